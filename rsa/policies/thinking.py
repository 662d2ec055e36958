"""Whether a round thinks, or copies what it read: how long its reasoning is, against that of round 0.

A model that never learned to aggregate may write out one of the attempts that it reads. Its reasoning is then far
shorter than when it had nothing to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsa.results import Round

RATIO = 0.5
"""A round copies whose mean reasoning is shorter than this part of round 0's."""


def reasoning_of(played: Round) -> float | None:
    """Mean reasoning tokens of the candidates that ran their course, up to beta where they reached it; None: there are
    none. How many tokens others wrote depends on how soon they were cut off."""
    lengths = [
        candidate.completion.usage.reasoning_tokens
        for candidate in played.candidates
        if candidate.status == "ok" and candidate.completion is not None
    ]
    return fmean(lengths) if lengths else None


def copies(played: Round, first: Round, ratio: float) -> bool:
    """Whether a round after round 0 copies. One of which nobody can say it does, and one of a model that does not
    reason does not."""
    mean, before = reasoning_of(played), reasoning_of(first)
    return mean is None or mean < ratio * (before or 0)


def latest_sound(rounds: Sequence[Round], ratio: float) -> Round:
    """The latest round that has votes and does not copy; of rounds of which none is so, the last. `rounds` are played,
    round 0 first."""
    first = rounds[0]
    sound = (each for each in reversed(rounds) if each.votes and (each is first or not copies(each, first, ratio)))
    return next(sound, rounds[-1])
