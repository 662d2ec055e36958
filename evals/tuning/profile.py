"""What was chosen as a profile, with what is expected of it in the comments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from evals.errors import ResultsError
from evals.tuning.records import PROFILE, Asked, Tuned
from rsa.folders import write_atomically
from rsa.settings.config import RSAConfig

_ALWAYS = ("n", "c", "t", "beta", "tau", "answer_budget", "select", "stop")
_NOT_OF_A_PROFILE = ("task", "answers", "seed")
"""Settings that are of the measurement: what is solved later has its own."""
_DEFAULTS = RSAConfig().model_dump(mode="json")


def settings_of(config: RSAConfig) -> dict[str, Any]:
    """What a profile says of these settings: those that were chosen, and what somebody asked for besides."""
    besides = [name for name in RSAConfig.model_fields if name not in (*_ALWAYS, *_NOT_OF_A_PROFILE)]
    asked = [name for name in besides if name in config.model_fields_set]
    values = config.model_dump(mode="json")
    found = {name: values[name] for name in (*_ALWAYS, *asked) if name in _ALWAYS or values[name] != _DEFAULTS[name]}
    if "limits" in found:
        found["limits"] = {key: value for key, value in found["limits"].items() if value is not None}
    return found


def write_profile(folder: Path, asked: Asked, tuned: Tuned) -> Path:
    """Write the profile into the folder; returns its path. Raises ResultsError."""
    path = folder / PROFILE
    try:
        write_atomically(path, "\n".join([*_comments(folder, asked, tuned), *_lines(tuned.profile), ""]).encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from None
    return path


def _comments(folder: Path, asked: Asked, tuned: Tuned) -> Iterator[str]:
    yield from (f"# {line}" for line in tuned.conclusion)
    yield f"# For {asked.model} on {tuned.benchmark}, tuned on {date.fromisoformat(asked.created_at[:10])} by:"
    yield f"#   {command(folder, asked)}"


def command(folder: Path, asked: Asked) -> str:
    """The command that goes on with a tuning, or makes its files again."""
    return f"rsa tune --resume {shlex.quote(str(folder))} --budget {asked.budget}"


def _lines(settings: Mapping[str, Any]) -> Iterator[str]:
    tables = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    for name, value in settings.items():
        if name not in tables and value is not None:
            yield f"{name} = {_toml(value)}"
    for name, table in tables.items():
        yield f"[{name}]"
        yield from _lines(table)


def _toml(value: object) -> str:
    """A value as TOML writes it, which for these is as JSON does."""
    return json.dumps(value, ensure_ascii=True)
