"""What the caches of rows cost, before they are there, how long rows are going to be, and how fast memory is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import mlx.core as mx

from engine.mlx.model import StepWeights, TextModel

_ROOM_TOKENS = 256
"""Caches grow by an eighth of their length, in whole steps of so many tokens, which is also a page."""
_PAGED_SHARE = 16
"""Rows in pages have no more room than one part in so many of their length, and a page."""

_FIRST_SHARE = 0.25
"""The share of its budget that a row is taken to use before any has ended."""
_MEMORY = 16
"""Rows of which the share is remembered, about: each that ends moves it by one part in so many."""

_COPY_BYTES = 2**28
"""Size of the array that is copied: more than caches of processors hold."""
_COPIES, _TRIES = 8, 3
"""Copies one after the other in a measurement, since a single one is over almost as it is launched; and measurements,
of which the best counts."""


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Memory of the caches of rows that decode together.

    cache_bytes  of one row with so many tokens: `TextModel.cache_bytes`.
    ragged       whether each row takes its own length, or that of the longest: `TextModel.ragged`.
    """

    cache_bytes: Callable[[int], int]
    ragged: bool = False

    @classmethod
    def of(cls, model: TextModel) -> CacheCost:
        """As the model says."""
        return cls(model.cache_bytes, model.ragged)

    def of_rows(self, tokens: Iterable[int]) -> int:
        """Bytes of rows with so many tokens each, room to grow included."""
        lengths = list(tokens)
        if self.ragged:
            return sum(self.cache_bytes(length + length // _PAGED_SHARE + _ROOM_TOKENS) for length in lengths)
        return self._at_most(lengths)

    def fit(self, tokens: Iterable[int], nbytes: int) -> bool:
        """True if such rows take no more than so many bytes."""
        lengths = list(tokens)
        return self._at_most(lengths) <= nbytes or (self.ragged and self.of_rows(lengths) <= nbytes)

    def _at_most(self, lengths: Sequence[int]) -> int:
        return len(lengths) * self.cache_bytes(_grown(max(lengths, default=0)))


class LikelyLength:
    """How long a row is going to be, from what the rows before it used of their budgets.

    Budgets are made for the longest completions, and most are far shorter: of the 56K tokens that `paper-16k` allows,
    candidates use 9 to 15K. A row is taken to use the share that rows used of late; one that has outgrown it, to go on
    for another eighth of its length, so that a row for which there was no room, and then is, goes on for a good while.
    """

    def __init__(self) -> None:
        self._share = _FIRST_SHARE

    def learn(self, tokens: int, budget: int) -> None:
        """A row has ended by itself with so many tokens of those it might have had."""
        self._share += (tokens / max(budget, 1) - self._share) / _MEMORY

    def of(self, prompt: int, written: int, budget: int) -> int:
        """The tokens of a row with such a prompt, that has written so many of those it may: the next one at least, and
        no more than the budget allows."""
        likely = max(prompt + int(self._share * budget), _grown(prompt + written))
        return max(min(likely, prompt + budget), prompt + written + 1)


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Implements `engine.api.Memory`. Once made, it touches no arrays: any thread may ask it."""

    room_bytes: int
    copy_bytes_per_s: float
    weights: StepWeights
    cost: CacheCost

    @classmethod
    def of(cls, model: TextModel, room_bytes: int) -> ModelMemory:
        """Measure; for the thread that touches MLX."""
        cost = CacheCost.of(model)
        cost.cache_bytes(1)  # models that measure their caches do it at the first question
        return cls(room_bytes, _copy_bytes_per_s(), model.step_weights, cost)

    def step_bytes(self, rows: int, tokens: int) -> int:
        """See `engine.api.Memory.step_bytes`; each expert that a row is expected to choose is read once."""
        return self.weights.read_by(rows) + rows * self.cost.cache_bytes(tokens)

    def cache_bytes(self, rows: int, tokens: int) -> int:
        """See `engine.api.Memory.cache_bytes`."""
        return self.cost.of_rows([tokens] * rows)


def _copy_bytes_per_s() -> float:
    array = mx.zeros((_COPY_BYTES // 4,), mx.float32)
    mx.eval(array)
    seconds = []
    for _ in range(_TRIES):
        copied = array
        start = perf_counter()
        for _ in range(_COPIES):
            copied = copied + 1  # MLX has no plain copy of an array that is in order
        mx.eval(copied)
        seconds.append(perf_counter() - start)
    return 2 * array.nbytes * _COPIES / min(seconds)


def _grown(tokens: int) -> int:
    """The tokens for which caches have room, at most, once they have grown for so many."""
    return tokens + tokens // 8 + _ROOM_TOKENS
