"""What rows of a model with plain KV caches remember while they decode by kernels: keys and values in pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from engine.families.mlx_lm.caches import PromptsCache
from engine.mlx.kernels.attention import PAGE, store
from engine.mlx.pages import PagedRows, Prompt


@dataclass(frozen=True, slots=True)
class KVShape:
    """Of the keys, and of the values, in every layer of a model.

    heads  key heads.
    size   of each of them.
    """

    layers: int
    heads: int
    size: int
    dtype: mx.Dtype

    @classmethod
    def of(cls, caches: Sequence[Any]) -> Self | None:
        """That of a prompt's caches; None: they are not all plain, or not all alike."""
        if not all(type(cache) is KVCache and cache.keys is not None for cache in caches):
            return None
        kinds = {(x.shape[1], x.shape[3], x.dtype) for cache in caches for x in (cache.keys, cache.values)}
        return cls(len(caches), *kinds.pop()) if len(kinds) == 1 else None


class KVRows(PagedRows):
    """The memory of all layers; see `engine.mlx.pages.PagedRows`."""

    def __init__(self, shape: KVShape, caches: Sequence[Any], places: Sequence[int]) -> None:
        """Rows that go on from those at some places of a prompt's caches, or of several prompts'."""
        first = caches[0]
        starts, end = (first.paddings, first.size()) if isinstance(first, PromptsCache) else ([0], first.offset)
        super().__init__(shape.layers, [Prompt(caches, place, starts[place], end - starts[place]) for place in places])
        self._shape = shape

    def _empty_pool(self, pages: int) -> mx.array:
        return mx.zeros((pages, 2, self._shape.heads, PAGE, self._shape.size), self._shape.dtype)

    def _stored(self, prompt: Prompt, tokens: tuple[int, int], pages: Sequence[int]) -> list[mx.array]:
        return [
            store(cache.keys, cache.values, prompt.place, prompt.start, tokens, pages, pool)
            for cache, pool in zip(prompt.caches, self.pools, strict=True)
        ]
