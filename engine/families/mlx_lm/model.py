"""A model of mlx-lm as the engine asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache, make_prompt_cache

_CACHE_STEP = 256
"""Tokens by which mlx-lm's caches grow."""


class AdaptedModel:
    """Implements `engine.mlx.model.TextModel` for a model of mlx-lm.

    module    the model: `module(tokens [B, n], cache=caches) -> logits [B, n, V]`.
    max_rows  1 for a model that does not batch (see `engine.families.mlx_lm.batching`); its caches need no `merge`.
    notes     why it does not, for people.
    """

    takes_padding = False

    def __init__(self, module: nn.Module, *, max_rows: int | None = None, notes: tuple[str, ...] = ()) -> None:
        self.module = module
        self.notes = notes
        self.max_rows = max_rows

    @property
    def vocab_size(self) -> int | None:
        """As its arguments say, which nearly all models keep."""
        size = getattr(getattr(self.module, "args", None), "vocab_size", None)
        return size if isinstance(size, int) else None

    @property
    def weight_bytes(self) -> int:
        """Memory of all parameters."""
        return sum(parameter.nbytes for _, parameter in tree_flatten(self.module.parameters()))

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        return self.module(inputs, cache=cache)

    def make_cache(self) -> list[Any]:
        """The model's own caches, or mlx-lm's usual ones."""
        return make_prompt_cache(self.module)

    def copy_cache(self, caches: Sequence[Any]) -> list[KVCache] | None:
        """Copies of plain KV caches; None if one is of another kind, whose copies nobody has tried."""
        return [_copied(cache) for cache in caches] if all(type(cache) is KVCache for cache in caches) else None

    def batch_cache(self, caches: Sequence[Any], places: Sequence[int]) -> list[Any]:
        """A batch by mlx-lm's own `merge`; one row of a model that does not batch keeps its kind of caches."""
        if self.max_rows == 1:
            return deepcopy(list(caches))
        return [type(cache).merge([cache] * len(places)) for cache in caches]  # no prompts share a pass here

    def cache_bytes(self, tokens: int) -> int:
        """From the caches of two prompts."""
        row_bytes, token_bytes = self._cache_bytes
        return row_bytes + tokens * token_bytes

    @cached_property
    def _cache_bytes(self) -> tuple[int, int]:
        """Bytes of a row however long it is, and of each token: measured on prompts that are never computed, since
        shapes are known without."""
        sizes = []
        for tokens in (1, 1025):
            caches = self.make_cache()
            self(mx.zeros((1, tokens), dtype=mx.uint32), caches)
            sizes.append(sum(cache.nbytes for cache in caches))
        token_bytes = (sizes[1] - sizes[0]) // 1024
        return max(sizes[0] - _CACHE_STEP * token_bytes, 0), token_bytes


def _copied(cache: KVCache) -> KVCache:
    copy = KVCache()
    copy.offset = cache.offset
    if cache.keys is not None:
        # A slice is an array of its own: writing to it leaves the other as it is.
        copy.keys, copy.values = (mx.contiguous(x[..., : cache.offset, :]) for x in (cache.keys, cache.values))
    return copy
