"""What a request wishes for, and what that comes to: the sampling of a completion, or the settings of a run.

The same wish said twice is fine; two that contradict each other are refused with both values. README of the rules:
docs/serving.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from engine.api import ModelInfo, SamplingParams
from rsa.errors import did_you_mean
from rsa.serve.errors import ApiError
from rsa.serve.models import Route, Served
from rsa.settings import resources
from rsa.settings.config import Limits, RSAConfig
from rsa.settings.methods import Method, load_method
from rsa.settings.profiles import profile_names
from rsa.settings.suitability import AS_TRAINED, CHAT, of_the_method

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How hard to think, as OpenAI's interfaces say it."""
PROFILES: dict[Effort, str] = {
    "minimal": "light",
    "low": "light",
    "medium": "paper-8k",
    "high": "paper-16k",
    "xhigh": "paper-40k",
    "max": "apex-xhigh",
}
"""The profile that an effort stands for, under Markovian RSA."""
REASONING_TOKENS: dict[Effort, int | None] = {
    "minimal": 1024,
    "low": 4 * 1024,
    "medium": 8 * 1024,
    "high": 16 * 1024,
    "xhigh": 40 * 1024,
    "max": None,
}
"""The reasoning budget that an effort stands for, of the model itself."""
_SAMPLING = ("temperature", "top_p", "top_k", "min_p")


MOST = {"n": 1024, "t": 128}
"""The largest settings of a run that a client may wish for. What a run keeps in memory grows with both, so that without
a bound one request ends the server: a billion candidates took 23 GB before the first of them was generated."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request says of how it is to be answered; None: nothing.

    choices     completions that are wanted: OpenAI's `n`.
    max_tokens  of a completion, reasoning and answer together; of a run, of all candidates of all rounds together.
    stop        strings that end a completion, and cut the answer of a run.
    pro         OpenAI's `reasoning.mode: "pro"`: Markovian RSA, even under the model's own name.
    rsa         settings of a run, keys as in `RSAConfig`, and `method`.
    aliases     fields by the names of Zyphra's proxy, with the setting that each means and its value: see
                `rsa.serve.aliases`.
    """

    choices: int = 1
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    effort: Effort | None = None
    pro: bool = False
    rsa: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, Any]] = field(default_factory=dict)


def routed(route: Route, wishes: Wishes) -> Route:
    """The route that a request takes: who wishes for settings of a run, under whatever name, gets a run."""
    wants_run = wishes.pro or bool(wishes.rsa) or bool(wishes.aliases)
    return replace(route, rsa=True) if wants_run and not route.rsa else route


def samplings(wishes: Wishes, model: ModelInfo) -> tuple[SamplingParams, ...]:
    """How each completion of the model itself is drawn."""
    best = (AS_TRAINED if of_the_method(model) else model.sampling or CHAT).model_dump()
    asked = {name: value for name in _SAMPLING if (value := getattr(wishes, name)) is not None}
    seed = secrets.randbits(63) if wishes.seed is None else wishes.seed
    return tuple(
        SamplingParams(
            **{**best, **asked},
            seed=(seed + index) % 2**64,
            max_tokens=wishes.max_tokens,
            stop=wishes.stop,
            reasoning_budget=REASONING_TOKENS.get(wishes.effort) if wishes.effort is not None else None,
        )
        for index in range(wishes.choices)
    )


def run_config(wishes: Wishes, route: Route, served: Served) -> RSAConfig:
    """The settings of a run. Raises ApiError for wishes that contradict each other, ConfigError for values."""
    if wishes.choices != 1:
        raise ApiError(
            400,
            f"n = {wishes.choices}: a run gives one answer; the number of its candidates is rsa.n",
            param="n",
        )
    asked = _asked(wishes)
    method = asked.pop("method", None)
    if method is not None:
        _one_of(method, get_args(Method), "rsa.method")
    asked.setdefault("seed", secrets.randbits(63))
    profile = _profile(wishes, route, asked)
    _check_most(asked)
    config = load_method(method, profile, asked, defaults=served.settings_of(route.model))
    _check_most(config.values())
    return config


def _check_most(settings: Mapping[str, Any]) -> None:
    for name, most in MOST.items():
        if isinstance(value := settings.get(name), int) and value > most:
            raise ApiError(
                400, f"rsa.{name} = {value} is more than {most}, the most of a run here", param=f"rsa.{name}"
            )


def _profile(wishes: Wishes, route: Route, asked: dict[str, Any]) -> str | None:
    """The profile that the name, the effort or the field says."""
    named = asked.pop("profile", None)
    if named is not None:
        _one_of(named, profile_names(), "rsa.profile")
    if wishes.effort == "none":
        raise ApiError(
            400,
            f"reasoning_effort = 'none' contradicts {route.name}, whose candidates reason: ask {route.model} itself",
            param="reasoning_effort",
        )
    said = {
        "model": route.profile,
        "rsa.profile": named,
        "reasoning_effort": None if wishes.effort is None else PROFILES[wishes.effort],
    }
    given = {field: profile for field, profile in said.items() if profile is not None}
    if len(set(given.values())) > 1:
        (one, first), (other, second), *_ = given.items()
        raise ApiError(400, f"{one} asks for the profile {first}, and {other} for {second}: leave one out", param=other)
    return next(iter(given.values()), None)


def _asked(wishes: Wishes) -> dict[str, Any]:
    """Settings from all fields that say any, by name; limits under `limits`."""
    asked = {**wishes.rsa}
    limits = asked.pop("limits", None) or {}
    if not isinstance(limits, Mapping):
        raise ApiError(400, f"rsa.limits = {limits!r}: should be an object", param="rsa.limits")
    for key in limits:
        _one_of(key, Limits.model_fields, "rsa.limits")
    if "task" in asked:
        _one_of(asked["task"], resources.names("prompts"), "rsa.task")
    said: list[tuple[str, str, Any]] = [(name, name, getattr(wishes, name)) for name in (*_SAMPLING, "seed")]
    said += [(name, setting, value) for name, (setting, value) in wishes.aliases.items()]
    for field_name, setting, value in said:
        if value is not None:
            _agree(asked, f"rsa.{setting}", setting, field_name, value)
    limits = dict(limits)
    if wishes.max_tokens is not None:
        _agree(limits, "rsa.limits.total_tokens", "total_tokens", "max_completion_tokens", wishes.max_tokens)
    return {**asked, **({"limits": limits} if limits else {})}


def _agree(asked: dict[str, Any], path: str, setting: str, field_name: str, value: Any) -> None:
    if setting in asked and asked[setting] != value:
        raise ApiError(
            400, f"{field_name} = {value} contradicts {path} = {asked[setting]}: leave one out", param=field_name
        )
    asked[setting] = value


def _one_of(value: Any, known: Iterable[str], param: str) -> str:
    """A name that comes with the package: a client names no files of this machine. Raises ApiError."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        meant = did_you_mean(value, names) if isinstance(value, str) else ""
        raise ApiError(400, f"{param} = {value!r} is not known{meant or '.'} There are {', '.join(names)}", param=param)
    return value


def effort_of(text: str | None, field_name: str) -> Effort | None:
    """An effort as it is written. Raises ApiError for one that nobody knows."""
    if text is not None:
        _one_of(text, get_args(Effort), field_name)
    return cast(Effort | None, text)
