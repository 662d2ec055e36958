"""A step of decoding of a model of mlx-lm whose rows lie in pages: its own code, compiled, but for the attention.

mlx-lm's models hand keys and values to their cache, and then call one function of `mlx_lm.models.base` for the
attention, by its name in their own module. There it finds ours, which passes on all that is not for pages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models import base

from engine.families.mlx_lm.pages import KVRows, KVShape
from engine.mlx.kernels.attention import Split, append, attend, parts_of
from engine.mlx.pages import Steps

_ATTENTION = "scaled_dot_product_attention"
_SIZES = (64, 128)
"""Sizes of a head for which `engine.mlx.kernels.attention` is written."""

_Step = Callable[[mx.array, mx.array, mx.array, list[mx.array]], tuple[mx.array, mx.array]]


class Decoder:
    """Decodes with a model's weights. `run` is for rows that one `KVRows` holds.

    Only for what `fits`. Once there is one, modules of mlx-lm with layers of the model have `attention` in place of
    mlx-lm's.
    """

    def __init__(self, module: nn.Module, shape: KVShape) -> None:
        self.shape = shape
        self._module = module
        heads = getattr(getattr(module, "args", None), "num_attention_heads", shape.heads)
        self._steps: Steps[_Step] = Steps(self._step, shape.heads * parts_of(max(heads // shape.heads, 1), shape.size))
        for code in _modules(module):
            setattr(code, _ATTENTION, attention)

    def run(self, tokens: mx.array, rows: KVRows) -> mx.array:
        """tokens [B, 1] -> logits [B, 1, V]; the rows then hold the tokens. The logits must be handed to the device
        before the next step is made: it reads what this one writes into the pools, and nothing else says so."""
        step, padded, table, lengths = self._steps.begin(tokens[:, 0], rows)
        logits, lengths = step(padded, table, lengths, rows.pools)
        rows.advanced(lengths)
        return logits[: tokens.shape[0]]

    def _step(self, split: Split) -> _Step:
        def step(
            tokens: mx.array, table: mx.array, lengths: mx.array, pools: list[mx.array]
        ) -> tuple[mx.array, mx.array]:
            positions = mx.maximum(lengths, 0)
            caches = [PagedLayer(pool, table, lengths, positions, split) for pool in pools]
            return self._module(tokens[:, None], cache=caches), mx.where(lengths < 0, lengths, lengths + 1)

        return step


class PagedLayer:
    """What one layer of a model is given as its cache in a step: mlx-lm's words for that, as far as models with plain
    KV caches use them.

    offset  [B] tokens before the one that decodes.
    """

    def __init__(self, pool: mx.array, table: mx.array, lengths: mx.array, offset: mx.array, split: Split) -> None:
        self.offset = offset
        self._pool, self._table, self._lengths, self._split = pool, table, lengths, split
        self._new: tuple[mx.array, mx.array] | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take the token's keys and values [B, kv_heads, 1, d]; those before it are for `attend` alone to read."""
        self._new = keys, values
        return keys, values

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> None:
        """None: a row sees all of its own tokens. Raises NotImplementedError if it is not to."""
        if n != 1 or return_array or window_size is not None:
            raise NotImplementedError("rows in pages have no masks")

    def attend(self, queries: mx.array, scale: float) -> mx.array:
        """[B, heads, 1, d] -> the same shape, over the row's tokens and the one taken last. Raises
        NotImplementedError if there is none that was not attended to yet."""
        if self._new is None:
            raise NotImplementedError("rows in pages are attended to once a step and layer")
        new, self._new = self._new, None
        usual = queries.shape[3] ** -0.5  # which the kernel multiplies by
        if abs(scale - usual) > 1e-6 * usual:
            queries = queries * (scale / usual)
        queries = append(queries, *new, self._pool, self._table, self._lengths)
        found = attend(queries, self._pool, self._table, self._lengths, self._split)
        return found.reshape(*queries.shape[:2], 1, queries.shape[2])


def attention(
    queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: Any = None
) -> mx.array:
    """mlx-lm's, and in pages our own."""
    if not isinstance(cache, PagedLayer):
        found: mx.array = base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)
        return found
    if mask is not None or sinks is not None:
        raise NotImplementedError("rows in pages have no masks and no sinks")
    return cache.attend(queries, scale)


def fits(module: nn.Module, shape: KVShape) -> bool:
    """True for a model of such keys that calls mlx-lm's attention, as far as one can see before it is tried."""
    return shape.dtype == mx.bfloat16 and shape.size in _SIZES and bool(_modules(module))


def _modules(module: nn.Module) -> list[Any]:
    """Modules of Python in which layers find mlx-lm's attention, or ours already."""
    names = {type(layer).__module__ for _, layer in module.named_modules()}
    ours = (base.scaled_dot_product_attention, attention)
    return [sys.modules[name] for name in sorted(names) if getattr(sys.modules[name], _ATTENTION, None) in ours]
