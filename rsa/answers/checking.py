"""Checkers of answers: some models answer problems of a few kinds only, and those can be checked exactly.

A checker is a function `check(problem, answer) -> Check` that somebody installs under a name, as an entry point of the
group `rsa.checkers`; a file of configs/models names the one of its model. What it says is a label for people: see
`rsa.results.Check`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata

from rsa.results import Check

GROUP = "rsa.checkers"
Checker = Callable[[str, str], Check]


@cache
def find_checker(name: str) -> Checker:
    """The checker of that name, made safe: where it is not installed or fails, all is `unchecked`. Never raises."""
    try:
        (point,) = metadata.entry_points(group=GROUP, name=name)
        checker: Checker = point.load()
    except Exception as error:  # an older installation does not know it; another's module may break
        why = f"the checker {name!r} cannot be loaded: install markovian-rsa again"
        return _always(f"{why} ({error})" if not isinstance(error, ValueError) else why)
    return _safe(name, checker)


def mark_of(check: Check | None) -> str:
    """What stands beside an answer wherever one is shown; what is wrong is said with it. Empty without a checker."""
    if check is None:
        return ""
    return f"wrong: {check.reason}" if check.mark == "wrong" else check.mark


def _always(reason: str) -> Checker:
    return lambda problem, answer: Check(mark="unchecked", reason=reason)


def _safe(name: str, checker: Checker) -> Checker:
    def check(problem: str, answer: str) -> Check:
        try:
            return checker(problem, answer)
        except Exception as error:  # a label is no reason to lose a run
            return Check(mark="unchecked", reason=f"the checker {name!r} failed: {type(error).__name__}: {error}")

    return check
