"""A model of mlx-lm as the engine asks for it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from math import ceil, floor
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from engine.families.mlx_lm.caches import PromptsCache, RowsCache
from engine.families.mlx_lm.decode import Decoder
from engine.families.mlx_lm.pages import KVRows
from engine.mlx.model import StepWeights

_CACHE_STEP = 256
"""Tokens by which mlx-lm's caches grow."""


class AdaptedModel:
    """Implements `engine.mlx.model.TextModel` for a model of mlx-lm.

    module         the model: `module(tokens [B, n], cache=caches) -> logits [B, n, V]`.
    max_rows       1 for a model that does not batch (see `engine.families.mlx_lm.batching`); its caches need no
                   `merge`.
    takes_padding  whether prompts may share a pass; only for models whose caches are all plain KV caches.
    decoder        decodes its rows in pages, by kernels; None: mlx-lm's code does it alone.
    notes          why it does not batch, or not by kernels, for people.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        max_rows: int | None = None,
        takes_padding: bool = False,
        decoder: Decoder | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.module = module
        self.notes = notes
        self.max_rows = max_rows
        self.takes_padding = takes_padding
        self._decoder = decoder

    @property
    def ragged(self) -> bool:
        """See `engine.mlx.model.TextModel.ragged`: rows in pages are."""
        return self._decoder is not None

    @property
    def vocab_size(self) -> int | None:
        """As its arguments say, which nearly all models keep."""
        size = getattr(getattr(self.module, "args", None), "vocab_size", None)
        return size if isinstance(size, int) else None

    @property
    def weight_bytes(self) -> int:
        """Memory of all parameters."""
        return _nbytes(self.module)

    @property
    def step_weights(self) -> StepWeights:
        """Experts are told by mlx-lm's layer for them, and how many a row chooses by the model's arguments; where these
        do not say, all are taken to be read."""
        modules = self.module.named_modules()
        experts = [module for _, module in modules if isinstance(module, SwitchLinear | QuantizedSwitchLinear)]
        head = any(name.rpartition(".")[2] == "lm_head" for name, _ in modules)  # else it is the embeddings
        embeddings = [module for _, module in modules if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)]
        always = self.weight_bytes - _nbytes(*experts) - (_nbytes(*embeddings) if head else 0)
        args = getattr(self.module, "args", None)
        chosen = getattr(args, "num_experts_per_tok", None)
        if not experts or not isinstance(chosen, int):
            return StepWeights(always + _nbytes(*experts))
        return StepWeights(always, _nbytes(*experts), classes=max(experts[0].num_experts, chosen), chosen=chosen)

    def __call__(self, inputs: mx.array, cache: Sequence[Any]) -> mx.array:
        if self._decoder is not None and isinstance(cache[0], KVRows):
            return self._decoder.run(inputs, cache[0])
        return self.module(inputs, cache=cache)

    def make_cache(self, rows: int = 1) -> list[Any]:
        """The model's own caches, or mlx-lm's usual ones; for several rows those of prompts that share a pass."""
        caches: list[Any] = make_prompt_cache(self.module)
        return caches if rows == 1 else [PromptsCache([0] * rows) for _ in caches]

    @property
    def has_plain_caches(self) -> bool:
        """True if each layer has mlx-lm's usual KV cache."""
        return all(type(cache) is KVCache for cache in self.make_cache())

    def copy_cache(self, caches: Sequence[Any]) -> list[KVCache] | None:
        """Copies of plain KV caches; None if one is of another kind, whose copies nobody has tried."""
        return [_copied(cache) for cache in caches] if all(type(cache) is KVCache for cache in caches) else None

    def batch_cache(self, caches: Sequence[Any], places: Sequence[int]) -> list[Any]:
        """Usual caches in pages or a batch, others by their `merge`; one row of a model that does not batch keeps its
        kind."""
        if self._decoder is not None:
            return [KVRows(self._decoder.shape, caches, places)]
        if self.max_rows == 1:
            return deepcopy(list(caches))
        if not isinstance(caches[0], PromptsCache):
            return [_rows_of(cache, len(places)) for cache in caches]
        for cache in caches:
            cache.filter(list(places))
        return list(caches)

    def cache_bytes(self, tokens: int) -> int:
        """Between and beyond the lengths that `_measured` knows, on the straight line through the two nearest."""
        lengths = [length for length, _ in self._measured]
        place = min(max(bisect_left(lengths, tokens), 1), len(lengths) - 1)
        (start, start_bytes), (end, end_bytes) = self._measured[place - 1 : place + 1]
        return max(start_bytes + (tokens - start) * (end_bytes - start_bytes) // (end - start), 0)

    @cached_property
    def _measured(self) -> list[tuple[int, int]]:
        """Tokens for which a row's caches have room, ascending, and their bytes, where their growth may change: at the
        least room, where a sliding window is full, and beyond. Of prompts that are never computed: shapes are known
        without."""
        full = {window / _CACHE_STEP for window in _windows(self.make_cache())}
        around = sorted({1, *map(floor, full), *map(ceil, full)} - {0})
        rooms = [steps * _CACHE_STEP for steps in (*around, around[-1] + 4)]
        return [(room, self._bytes_with(room)) for room in rooms]

    def _bytes_with(self, room: int) -> int:
        """Bytes of a row's caches when they have grown to so many tokens, in whole steps."""
        caches = self.make_cache()
        prompt = room - _CACHE_STEP
        if prompt:
            self(mx.zeros((1, prompt), dtype=mx.uint32), caches)
        self(mx.zeros((1, 1), dtype=mx.uint32), caches)  # grows them by a step; cuts windows off
        return sum(cache.nbytes for cache in caches)


def _rows_of(cache: Any, rows: int) -> Any:
    return RowsCache.of(cache, rows) if type(cache) is KVCache else type(cache).merge([cache] * rows)


def _nbytes(*modules: nn.Module) -> int:
    """Memory of their parameters."""
    return sum(parameter.nbytes for module in modules for _, parameter in tree_flatten(module.parameters()))


def _windows(caches: Sequence[Any]) -> Iterator[int]:
    """The most tokens that caches hold, of those that do not hold all."""
    for cache in caches:
        yield from _windows(getattr(cache, "caches", ()))
        window = getattr(cache, "max_size", None) or getattr(cache, "chunk_size", None)
        if isinstance(window, int):
            yield window


def _copied(cache: KVCache) -> KVCache:
    copy = KVCache()
    copy.offset = cache.offset
    if cache.keys is not None:
        # A slice is an array of its own: writing to it leaves the other as it is.
        copy.keys, copy.values = (mx.contiguous(x[..., : cache.offset, :]) for x in (cache.keys, cache.values))
    return copy
