"""What plugins share: settings as hosts give them, and what they tell of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from engine.paths import path_named
from rsa.errors import ConfigError
from rsa.results import RunResult
from rsa.settings.config import Limits, RSAConfig
from rsa.settings.methods import load_method

_OPTIONS = ("base_url", "tokenizer", "api_key_env", "max_rows")
"""Options of a model behind a server, as hosts may give them: see `engine.openai.opening.open_openai`."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host asks for on a model, sorted out of the names and values that it gives.

    config   the settings of the runs.
    options  of a model behind a server.
    runs     a folder whose runs are to be kept, each in a folder of its own; None: they are not.
    """

    config: RSAConfig
    options: Mapping[str, Any]
    runs: Path | None

    @classmethod
    def of(cls, model: str, given: Mapping[str, Any]) -> Self:
        """Sort names and values: settings of `RSAConfig`, its limits by their own names, `method`, `profile`, `runs`,
        and options of a model behind a server. None is not given.

        Raises ConfigError for what is unknown, wrong, or contradicts, and for a model that nobody knows.
        """
        from rsa.compose import model_settings

        rest = {name: value for name, value in given.items() if value is not None}
        options = {name: rest.pop(name) for name in _OPTIONS if name in rest}
        limits = {name: rest.pop(name) for name in Limits.model_fields if name in rest}
        profile, method, runs = (rest.pop(name, None) for name in ("profile", "method", "runs"))
        settings = {**rest, **({"limits": limits} if limits else {})}
        method, profile = (None if name is None else str(name) for name in (method, profile))
        return cls(
            config=load_method(method, profile, settings, defaults=model_settings(model)),
            options=options,
            runs=None if runs is None else path_named(str(runs), ConfigError),
        )


def differing(config: RSAConfig, base: RSAConfig) -> dict[str, Any]:
    """The settings of `config` that are others than those of `base`: what one run is to be given."""
    pairs = {name: (getattr(config, name), getattr(base, name)) for name in RSAConfig.model_fields}
    return {name: value for name, (value, other) in pairs.items() if value != other}


def text_of(result: RunResult) -> str:
    """What a run says: the answer section of the candidate that its answer is from, or the answer alone."""
    return result.text.strip() or result.answer or ""


def facts_of(result: RunResult) -> dict[str, Any]:
    """What a host may keep beside the text, as plain JSON."""
    return {
        "answer": result.answer,
        "check": None if result.check is None else result.check.model_dump(),
        "votes": [{"answer": vote.answer, "count": vote.count, "of": vote.of} for vote in result.votes],
        "rounds": len(result.rounds),
        "answered_from_round": result.answered_from_round,
        "stopped_because": result.stopped_because,
        "limits_hit": list(result.limits_hit),
        "warnings": list(result.warnings),
        "settings": {name: result.config.values()[name] for name in ("n", "c", "t", "beta", "tau", "seed")},
        "model": result.model.name,
        "fingerprint": result.model.fingerprint,
        "wall_s": round(result.timings.wall_s, 3),
    }
