"""Policies by name, and how others add theirs.

A package of one's own adds a policy by an entry point of the group of its kind:

    [project.entry-points."rsa.stop"]
    patient = "my_package:Patient"

`Patient(3.0)` is called for `patient:3`, and makes an `rsa.policies.stopping.StopPolicy`; a ValueError of it says what
its numbers must be. Whatever else it does that it should not is said in a line that names its package
(`rsa.policies.guarding`). Groups are `rsa.stop`, `rsa.select` (`rsa.policies.selecting.SelectPolicy`) and `rsa.parents`
(`rsa.policies.parents.ParentsPolicy`). Nothing of a policy is imported before it is asked for.
"""

from __future__ import annotations

import inspect
import math
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, cast

from rsa.errors import ConfigError, UnknownPolicyError, did_you_mean
from rsa.policies.guarding import guarded, told
from rsa.words import in_one_line, shown

if TYPE_CHECKING:
    from rsa.policies.parents import ParentsPolicy
    from rsa.policies.selecting import SelectPolicy
    from rsa.policies.stopping import StopPolicy

Kind = Literal["stop", "select", "parents"]
"""The settings that take policies; the group of a kind's entry points is `rsa.KIND`."""

_OURS: dict[Kind, dict[str, str]] = {
    "stop": {
        "decided": "rsa.policies.stopping:Decided",
        "beta": "rsa.policies.stopping:Beta",
        "quorum": "rsa.policies.stopping:Quorum",
        "consensus": "rsa.policies.stopping:Consensus",
        "bayes": "rsa.policies.stopping:Bayes",
        "answered": "rsa.policies.stopping:Answered",
    },
    "select": {
        "vote": "rsa.policies.selecting:Majority",
        "weighted": "rsa.policies.selecting:Weighted",
        "pooled": "rsa.policies.selecting:Pooled",
        "tournament": "rsa.policies.selecting:Tournament",
        "aggregate": "rsa.policies.selecting:Aggregate",
        "first": "rsa.policies.selecting:First",
    },
    "parents": {
        "uniform": "rsa.policies.parents:Uniform",
        "confident": "rsa.policies.parents:Confident",
        "distinct": "rsa.policies.parents:Distinct",
    },
}


def names(kind: Kind) -> list[str]:
    """The policies of a kind that there are here, ours first; none is imported."""
    others = sorted({point.name for point in entry_points(group=f"rsa.{kind}")})
    return list(dict.fromkeys([*_OURS[kind], *others]))


def stop_policy(spec: str) -> StopPolicy:
    """The policy of `stop` that is written so. Raises ConfigError, as the other two do."""
    return cast("StopPolicy", _policy("stop", spec))


def select_policy(spec: str) -> SelectPolicy:
    return cast("SelectPolicy", _policy("select", spec))


def parents_policy(spec: str) -> ParentsPolicy:
    return cast("ParentsPolicy", _policy("parents", spec))


@cache
def _policy(kind: Kind, spec: str) -> object:
    """Raises ConfigError for a policy that nobody brings, naming the nearest, for numbers that make no sense, and for
    one of another package that breaks."""
    name, *written = spec.split(":")
    make, package = _maker(kind, name)
    numbers = [_number(kind, spec, value) for value in written]
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind} = {name}: what {package} brings makes no policy: {told(error)}") from None
    try:
        signature.bind(*numbers)
    except TypeError:
        raise ConfigError(f"{kind} = {shown(spec)}: {name} takes {_wanted(signature)}, not {len(numbers)}") from None
    try:
        policy = make(*numbers)
    except ValueError as error:
        raise ConfigError(f"{kind} = {shown(spec)}: {in_one_line(str(error))}") from None
    except Exception as error:  # another package's code, whatever it does
        raise ConfigError(f"{kind} = {shown(spec)}: the policy of {package} cannot be made: {told(error)}") from error
    return guarded(policy, kind, f"{kind} = {spec}", package) if package else policy


def _maker(kind: Kind, name: str) -> tuple[Any, str]:
    """What makes a policy, and the package that brings it; empty for ours."""
    ours = _OURS[kind].get(name)
    if ours is not None:
        return EntryPoint(name, ours, f"rsa.{kind}").load(), ""
    found = list(entry_points(group=f"rsa.{kind}", name=name))
    if not found:
        known = names(kind)
        raise UnknownPolicyError(
            f"{kind} = {shown(name)}: no policy is called so{did_you_mean(name, known) or '.'} There are "
            f"{', '.join(known)}",
            f"{kind} = {name}",
        )
    if len({point.value for point in found}) > 1:
        raise ConfigError(f"{kind} = {name}: two packages bring a policy of this name: {_packages(found)}")
    try:
        return found[0].load(), _packages(found)
    except Exception as error:  # another package's code, whatever it does
        raise ConfigError(f"{kind} = {name}: {_packages(found)} cannot be loaded: {told(error)}") from error


def _number(kind: Kind, spec: str, written: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{kind} = {shown(spec)}: {shown(written)} is no number: it is written NAME or NAME:NUMBER")
    return number


def _wanted(signature: inspect.Signature) -> str:
    parameters = signature.parameters.values()
    if not parameters:
        return "no number"
    written = ", ".join(p.name if p.default is p.empty else f"{p.name} ({p.default} unless given)" for p in parameters)
    return f"{len(parameters)} number{'s' * (len(parameters) > 1)}: {written}"


def _packages(points: list[EntryPoint]) -> str:
    return " and ".join(sorted({point.dist.name if point.dist else point.value for point in points}))
