"""A family of models in one folder: each has a memory of its own kind, the sum of all tokens so far."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from engine.families.family import Family
from engine.files.folder import ModelFolder
from engine.mlx.model import StepWeights

FIRST_WORD = 10
"""The least token that a toy writes: those below are special."""


def next_token(total: int, vocabulary: int) -> int:
    """What a toy writes after tokens of that sum."""
    return FIRST_WORD + (7 * total + 3) % (vocabulary - 2 * FIRST_WORD)


class ToyCache:
    """The sum of the tokens of each of B rows, [B]."""

    def __init__(self, total: mx.array) -> None:
        self.total = total

    @property
    def state(self) -> mx.array:
        return self.total

    @property
    def nbytes(self) -> int:
        return self.total.nbytes

    def extend(self, other: ToyCache) -> None:
        self.total = mx.concatenate([self.total, other.total])

    def filter(self, batch_indices: Sequence[int]) -> None:
        self.total = self.total[mx.array(list(batch_indices))]


class ToyModel:
    """Implements `engine.mlx.model.TextModel`."""

    max_rows: int | None = None
    notes: tuple[str, ...] = ("it is a toy",)
    takes_padding = False
    ragged = False
    weight_bytes = 1
    step_weights = StepWeights(1)

    def __init__(self, vocabulary: int) -> None:
        self.vocab_size: int | None = vocabulary
        self._words = vocabulary

    def __call__(self, inputs: mx.array, cache: Sequence[ToyCache]) -> mx.array:
        (memory,) = cache
        totals = memory.total[:, None] + mx.cumsum(inputs.astype(mx.int32), axis=1)  # [B, n]
        memory.total = totals[:, -1]
        chosen = FIRST_WORD + (7 * totals + 3) % (self._words - 2 * FIRST_WORD)
        return (mx.arange(self._words) == chosen[..., None]).astype(mx.float32)  # [B, n, V]

    def make_cache(self, rows: int = 1) -> list[ToyCache]:
        return [ToyCache(mx.zeros((1,), mx.int32))]

    def copy_cache(self, caches: Sequence[ToyCache]) -> list[ToyCache]:
        return [ToyCache(cache.total) for cache in caches]

    def batch_cache(self, caches: Sequence[ToyCache], places: Sequence[int]) -> list[ToyCache]:
        return [ToyCache(cache.total[mx.array(list(places))]) for cache in caches]

    def cache_bytes(self, tokens: int) -> int:
        return 4


class Toy(Family):
    """Reads `vocab_size` and no weights."""

    def load(self, folder: ModelFolder, *, kv_bits: int | None = None) -> ToyModel:
        return ToyModel(int(folder.config["vocab_size"]))


FAMILY = Toy()
