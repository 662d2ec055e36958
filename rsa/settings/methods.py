"""Methods by name, as settings of one run: a comparison of two is one flag.

single     one rollout (T = 0); in a measurement N independent ones, each of which counts by itself
vote       N independent rollouts, T = 0; what counts is the answer that most of them agree on, or that `select` chooses
rsa        Markovian RSA: T rounds of aggregation over C tails of tau tokens
markovian  C = 1: each candidate goes on from its own tail
full-rsa   recursive self-aggregation as first published (arXiv 2509.26626): whole traces are carried, tau = beta
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from rsa.errors import ConfigError, did_you_mean
from rsa.words import as_given, shown

Method = Literal["single", "vote", "rsa", "markovian", "full-rsa"]

_FIXED: dict[Method, dict[str, Any]] = {
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
        if key in settings and settings[key] != value:
            given = as_given(settings[key])
            raise ConfigError(f"{key} = {given} contradicts method = {method}, which means {key} = {value}")
    return {**({"answers": "every"} if measured else {}), **settings, **fixed}
