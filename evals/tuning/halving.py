"""Successive halving: all families on few problems, the better half of them on twice as many, and so on.

Nothing here generates or reads anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FIRST = 8
"""Problems of the first rung, on which every family is recorded."""
LEAST_MORE = 4
"""Problems that a rung adds at least, or there is none: fewer say nothing."""
CHECKED = 0.25
"""The share of the budget that is kept for checking the choice on other problems."""


def better_half(scores: Mapping[str, float], costs: Mapping[str, float], always: str) -> list[str]:
    """The families that go on, in the order of `scores`: of F the better F // 2, at least one, and `always`, with which
    the others are compared in the end.

    scores  the accuracy of the best variant of each; of equals, the one that costs less goes on.
    """
    ranked = sorted(scores, key=lambda name: (-scores[name], costs[name], list(scores).index(name)))
    kept = {*ranked[: max(1, len(ranked) // 2)], always}
    return [name for name in scores if name in kept]


def more_problems(done: int, there: int, costs: Sequence[float], left: float) -> int:
    """How many problems the next rung adds; 0: there is none.

    done   problems that every family that stands was recorded on; `there`: that there are.
    costs  tokens a problem of each family that stands.
    left   tokens for recordings.
    """
    wanted = min(done or FIRST, there - done)
    if done == 0:  # nobody knows yet what it costs
        return wanted
    each = sum(costs)
    affordable = wanted if each <= 0 else int(left // each)
    more = min(wanted, affordable)
    return more if more >= min(LEAST_MORE, there - done) else 0
