"""Whether who is surer is right more often: claims in bins, the error of what is a probability, and ranks.

A claim is anything that was said, with how sure its speaker was, on any scale that ascends: an answer and the share of
the candidates that agree on it, an answer and how likely the tokens before it were. Only where sureness is a
probability does it have an expected error; ranks need no scale.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, fsum

from pydantic import FiniteFloat

from evals.stats import wilson
from rsa.results import Record


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that was said.

    sure   how sure of it its speaker was: more is surer.
    worth  what it was worth: 0 is wrong, 1 is right.
    group  what it has in common with claims that it does not stand apart from: its problem, or a cluster of problems.
    """

    sure: float
    worth: float
    group: str = ""


class Bin(Record):
    """Claims that are about as sure.

    low, high   of their sureness: the ends of the bin, which has claims of `high` and none of `low` where bins are
                steps; the least and the most of them elsewhere.
    sure, worth   means.
    least, most   the interval of `worth`, as if each group had said one thing: Wilson's, which has a width, too, where
                  all were right.
    claims, groups   how many.
    """

    low: FiniteFloat
    high: FiniteFloat
    sure: FiniteFloat
    worth: FiniteFloat
    least: FiniteFloat
    most: FiniteFloat
    claims: int
    groups: int


def in_steps(claims: Sequence[Claim], steps: int) -> tuple[Bin, ...]:
    """Bins of equal width from 0 to 1, ascending, for sureness that is a share; those that nothing is in are left out.
    What lies between two bins is in the lower one."""

    def step(claim: Claim) -> int:
        return max(0, ceil(round(claim.sure * steps, 9)) - 1)  # 3 of 5 is three steps, whatever floats make of it

    ordered = sorted(claims, key=step)
    return tuple(_bin(list(members), at / steps, (at + 1) / steps) for at, members in groupby(ordered, step))


def in_parts(claims: Sequence[Claim], parts: int) -> tuple[Bin, ...]:
    """Bins of about equally many claims, the least sure first. Who are as sure as each other stay together, so that
    there may be fewer bins."""
    sure = sorted(claim.sure for claim in claims)
    places = {claim.sure: _part(sure, claim.sure, parts) for claim in claims}
    ordered = sorted(claims, key=lambda claim: claim.sure)
    found = [list(members) for _, members in groupby(ordered, lambda claim: places[claim.sure])]
    return tuple(_bin(members, members[0].sure, members[-1].sure) for members in found)


def by_place(claims: Sequence[Claim], parts: int) -> list[int]:
    """The part of each among these, 0 for the least sure; equals are where the middle one of them would be."""
    sure = sorted(claim.sure for claim in claims)
    return [_part(sure, claim.sure, parts) for claim in claims]


def in_places(placed: Sequence[tuple[Claim, int]], parts: int) -> tuple[Bin, ...]:
    """Bins of claims whose parts `by_place` said, each among those of its own kind: sureness is of no scale then, and
    what a bin says of it is its part."""
    ordered = sorted(placed, key=lambda pair: pair[1])
    found = ((at, [claim for claim, _ in members]) for at, members in groupby(ordered, lambda pair: pair[1]))
    return tuple(_bin(members, at / parts, (at + 1) / parts, sure=(at + 0.5) / parts) for at, members in found)


def expected_error(bins: Sequence[Bin]) -> float | None:
    """How far sureness that is a probability is from what comes true, on average over claims: the expected calibration
    error (Guo et al. 2017, arXiv 1706.04599), which depends on the bins. None without claims."""
    claims = sum(each.claims for each in bins)
    return fsum(each.claims * abs(each.worth - each.sure) for each in bins) / claims if claims else None


def ranked_right(claims: Sequence[Claim]) -> float | None:
    """Of two claims of different worth, how often the surer is worth more, equals counted half: 1 always, 0.5 as by
    lot. Of right and wrong claims that is the area under the ROC curve. None where all are worth the same."""
    ordered = sorted(claims, key=lambda claim: (claim.worth, claim.sure))
    lower: list[float] = []
    won, pairs = 0.0, 0
    for _, members in groupby(ordered, lambda claim: claim.worth):
        sures = [claim.sure for claim in members]
        won += sum((bisect_left(lower, sure) + bisect_right(lower, sure)) / 2 for sure in sures)
        pairs += len(lower) * len(sures)
        lower = sorted([*lower, *sures])
    return won / pairs if pairs else None


def _part(ordered: Sequence[float], sure: float, parts: int) -> int:
    middle = (bisect_left(ordered, sure) + bisect_right(ordered, sure)) / 2
    return min(parts - 1, int(middle * parts / len(ordered)))


def _bin(members: Sequence[Claim], low: float, high: float, sure: float | None = None) -> Bin:
    groups = len({claim.group for claim in members})
    worth = fsum(claim.worth for claim in members) / len(members)
    least, most = wilson(worth, groups)
    return Bin(
        low=low,
        high=high,
        sure=fsum(claim.sure for claim in members) / len(members) if sure is None else sure,
        worth=worth,
        least=least,
        most=most,
        claims=len(members),
        groups=groups,
    )
