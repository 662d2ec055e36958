"""How sure candidates were of what they wrote, as policies compare it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsa.results import Candidate


def how_sure(candidate: Candidate) -> float | None:
    """The mean log-probability at the end of its reasoning: what stands there led to its answer and is handed on, and a
    mean of the whole says most of how it began. None: nobody says how likely its tokens were."""
    return None if candidate.confidence is None else candidate.confidence.tail


def confidences(candidates: Sequence[Candidate]) -> list[float]:
    """Of each of these; of one that has none, the median of the others, and 0 where nobody has any."""
    found = [how_sure(candidate) for candidate in candidates]
    middle = median([each for each in found if each is not None] or [0.0])
    return [middle if each is None else each for each in found]


def ranks(candidates: Sequence[Candidate]) -> list[float]:
    """The place of each among those that have a confidence, the least sure first, from 1; equals share their mean
    place. One without any has the middle place.

    Ranks, since how far confidences lie apart depends on the problem: among its candidates alone they say who is
    surer.
    """
    known = sorted(each for each in map(how_sure, candidates) if each is not None)
    middle = (len(known) + 1) / 2
    places = {each: known.index(each) + (known.count(each) + 1) / 2 for each in set(known)}
    found = (how_sure(candidate) for candidate in candidates)
    return [middle if each is None else places[each] for each in found]
