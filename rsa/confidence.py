"""How sure a model was of what a candidate wrote: a few numbers made of the log-probabilities of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import fsum

from engine.api import Completion
from rsa.results import Confidence
from rsa.settings.config import Confidences

WINDOW = 64
"""Tokens whose mean log-probability is looked at together: a step or two of a reasoning. One token says little, since a
model that writes well is surprised now and then; over a whole trace, a place where it lost its way is averaged out."""
_DECIMALS = 4
"""Sums in batches of other sizes differ beyond."""


def confidence_of(completion: Completion | None, *, loops_after: int | None = None) -> Confidence | None:
    """None if nobody says how likely its tokens were, or if it has none.

    loops_after  of a candidate that repeats itself, as in `rsa.tails.cut_tail`: it is of these tokens.
    """
    if completion is None or completion.likelihoods is None:
        return None
    numbers = completion.likelihoods.log_probabilities[:loops_after]
    drawn, reasoning = _told(numbers), _told(numbers[: completion.usage.reasoning_tokens])
    if not drawn:
        return None
    entropies = _told((completion.likelihoods.entropies or ())[:loops_after])
    return Confidence(
        mean=_mean(drawn),
        tail=_mean((reasoning or drawn)[-WINDOW:]),
        lowest=_lowest(drawn),
        entropy=_mean(entropies) if entropies else None,
        tokens=len(drawn),
    )


def recorded(completion: Completion | None, asked: Confidences | None) -> Completion | None:
    """What is recorded of a completion: the numbers of all its tokens only where they were asked for, since they make a
    log several times as long."""
    if completion is None or completion.likelihoods is None or asked == "tokens":
        return completion
    return completion.model_copy(update={"likelihoods": None})


def _told(numbers: Sequence[float | None]) -> list[float]:
    return [number for number in numbers if number is not None]


def _mean(numbers: Sequence[float]) -> float:
    return _rounded(fsum(numbers) / len(numbers))


def _lowest(numbers: Sequence[float]) -> float:
    """The lowest mean of `WINDOW` numbers in a row; of all, if there are fewer."""
    if len(numbers) <= WINDOW:
        return _mean(numbers)
    sums = [0.0, *accumulate(numbers)]
    return _rounded(min(end - start for start, end in zip(sums, sums[WINDOW:], strict=False)) / WINDOW)


def _rounded(number: float) -> float:
    return round(number, _DECIMALS) + 0.0  # no -0.0
