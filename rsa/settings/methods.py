"""Methods by name, as settings of one run: a comparison of two is one flag.

auto       as rsa, while nobody answers; what it is for a model, `rsa.settings.suitability` knows
single     one rollout (T = 0); in a measurement N independent ones, each of which counts by itself
vote       N independent rollouts, T = 0; what counts is the answer that most of them agree on, or that `select` chooses
rsa        Markovian RSA: T rounds of aggregation over C tails of tau tokens
markovian  C = 1: each candidate goes on from its own tail
full-rsa   recursive self-aggregation as first published (arXiv 2509.26626): whole traces are carried, tau = beta
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from rsa.errors import ConfigError, did_you_mean
from rsa.settings.config import RSAConfig
from rsa.settings.profiles import load_config
from rsa.words import as_given, shown

Method = Literal["auto", "single", "vote", "rsa", "markovian", "full-rsa"]

RULE: Mapping[str, Any] = {"stop": ("answered",), "select": "vote"}
"""What `auto` does where nobody has vouched that rounds help: settings that count as asked for by nobody."""
_OF_ROUNDS = frozenset({"t", *RULE})
"""Settings that say how rounds are played: who asks for one of them has chosen, and gets no rule."""
_FIXED: dict[Method, dict[str, Any]] = {
    "auto": {"carry": "reasoning", **RULE},
    "single": {"n": 1, "t": 0, "c": 1},
    "vote": {"t": 0, "c": 1},
    "rsa": {"carry": "reasoning"},
    "markovian": {"c": 1, "carry": "reasoning"},
    "full-rsa": {"carry": "full"},
}


def check_method(method: str) -> Method:
    """The method of that name. Raises ConfigError for an unknown one, naming the nearest."""
    names = get_args(Method)
    if method not in names:
        raise ConfigError(
            f"no method is called {shown(method)}{did_you_mean(method, names) or '.'} There are {', '.join(names)}"
        )
    return cast(Method, method)


def method_settings(method: str, settings: Mapping[str, Any], *, measured: bool = False) -> dict[str, Any]:
    """`settings` (as given by the user, keys of `RSAConfig`) with those that make the method what it is.

    measured  for a measurement: N rollouts of `single` are wanted, and rounds before the last write answers too, so
              that each round can be scored; what that costs is counted apart.

    Raises ConfigError for an unknown method, and for a setting that contradicts it.
    """
    fixed = dict(_FIXED[check_method(method)])
    if measured:
        fixed.pop("n", None)
    for key, value in fixed.items():
        if key in settings and _written(settings[key]) != _written(value):
            given = as_given(_written(settings[key]))
            raise ConfigError(f"{key} = {given} contradicts method = {method}, which means {key} = {_written(value)}")
    if method == "auto" and settings.get("t") == 0:
        raise ConfigError(
            "t = 0 contradicts method = auto, which plays rounds while nobody answers; method = vote has none"
        )
    return {**({"answers": "every"} if measured else {}), **settings, **fixed}


def _written(value: object) -> object:
    """As people write it: policies in one text, with commas between them."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else value


def load_method(
    method: str | None,
    profile: str | Path | None,
    settings: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    measured: bool = False,
) -> RSAConfig:
    """The settings of a run as `load_config` has them, by a method; `measured` as of `method_settings`.

    method  None: `auto`, unless somebody says how rounds are to be played, by a profile, by `t`, `stop` or `select`, or
            in configs/models.

    Raises ConfigError.
    """
    if method is not None:
        config = load_config(profile, method_settings(method, settings, measured=measured), defaults=defaults)
        return _by_nobody(config) if method == "auto" else config
    config = load_config(profile, settings, defaults=defaults)
    chosen = profile is not None or _OF_ROUNDS & {*settings, *(defaults or {})}
    return config if chosen else config.with_defaults(**RULE)


def with_method(config: RSAConfig, method: str | None, settings: Mapping[str, Any]) -> RSAConfig:
    """`config` with these settings, limits changed one by one, and those of a method; None: of none. Who asks for how
    rounds are played gets no rule of `auto`. Raises ConfigError."""
    if method is not None:
        changed = config.changed(method_settings(method, settings))
        return _by_nobody(changed) if method == "auto" else changed
    if is_ruled(config) and _OF_ROUNDS & settings.keys():
        config = without_rule(config)
    return config.changed(settings)


def is_ruled(config: RSAConfig) -> bool:
    """Whether `auto` decides how rounds are played."""
    return not RULE.keys() & config.model_fields_set and all(getattr(config, key) == RULE[key] for key in RULE)


def without_rule(config: RSAConfig, **values: Any) -> RSAConfig:
    """A copy in which rounds are played as in the method `rsa`, but for `values`; nobody has asked for these either."""
    return config.with_defaults(**{key: RSAConfig.model_fields[key].default for key in RULE}, **values)


def _by_nobody(config: RSAConfig) -> RSAConfig:
    return config.asking(config.model_fields_set - RULE.keys())
