"""Where candidates ended, in tokens, and so who of those that agree stands for them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsa.results import Candidate, Round


def ended_with(candidate: Candidate) -> int | None:
    """The tokens after which it counts as ended; None: not before its round is over.

    When one failed is chance; how many tokens there are of one that was cut off, because it repeated itself or a limit
    was reached, depends on how soon the engine obeyed.
    """
    if candidate.status != "ok" or candidate.completion is None:
        return None
    return candidate.completion.usage.completion_tokens


def stands_for(agreeing: Iterable[Candidate]) -> Candidate:
    """Who stands for candidates that agree: what it wrote is their answer. The one that ended with the fewest tokens,
    ties to the lowest index; those that only count as ended when their round is over stand behind the others.

    Where a round is cut, those that run have more tokens than all that have ended: so it is the one of the whole round.
    """
    return min(agreeing, key=_place)


def standing(members: Iterable[int], played: Round) -> Candidate:
    """Who stands for these of a round."""
    return stands_for(played.candidates[member] for member in members)


def _place(candidate: Candidate) -> tuple[float, int]:
    tokens = ended_with(candidate)
    return math.inf if tokens is None else tokens, candidate.index
