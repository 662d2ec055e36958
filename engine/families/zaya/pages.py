"""What rows of ZAYA1 remember while they decode by kernels: keys and values in pages, and the tails of the
convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from engine.families.zaya.cache import TAIL_TOKENS, CCACache
from engine.families.zaya.config import ModelArgs
from engine.mlx.kernels import eight_bits
from engine.mlx.kernels.attention import PAGE, store
from engine.mlx.pages import PagedRows, Prompt


class ZayaRows(PagedRows):
    """The memory of all layers; see `engine.mlx.pages.PagedRows`."""

    def __init__(
        self, args: ModelArgs, dtype: mx.Dtype, prompts: Sequence[Prompt] = (), *, kv_bits: int | None = None
    ) -> None:
        super().__init__(args.num_layers, prompts)
        self._args, self._dtype, self._kv_bits = args, dtype, kv_bits

    @classmethod
    def of(
        cls,
        args: ModelArgs,
        dtype: mx.Dtype,
        caches: Sequence[CCACache],
        places: Sequence[int],
        *,
        kv_bits: int | None = None,
    ) -> ZayaRows:
        """Rows that go on from those at some places of a prompt's caches, which have the same `kv_bits`."""
        end, starts = caches[0].size(), caches[0].left_padding
        prompts = [Prompt(caches, place, starts[place], end - starts[place]) for place in places]
        return cls(args, dtype, prompts, kv_bits=kv_bits)

    def _empty_pool(self, pages: int) -> mx.array:
        args = self._args
        if self._kv_bits is not None:
            return eight_bits.empty_pool(pages, args.num_kv_heads, args.head_dim)
        return mx.zeros((pages, 2, args.num_kv_heads, PAGE, args.head_dim), self._dtype)

    def _stored(self, prompt: Prompt, tokens: tuple[int, int], pages: Sequence[int]) -> list[mx.array]:
        copy: Callable[..., mx.array] = store if self._kv_bits is None else eight_bits.store
        return [
            copy(*layer.buffers, prompt.place, prompt.start, tokens, pages, pool)
            for layer, pool in zip(prompt.caches, self.pools, strict=True)
        ]

    def _tails_of(self, prompts: Sequence[Prompt]) -> list[mx.array]:
        """[rows, 2, qk_width + value_width]"""
        return [mx.stack([self._tail(prompt, layer) for prompt in prompts]) for layer in range(self._args.num_layers)]

    def _tail(self, prompt: Prompt, layer: int) -> mx.array:
        tail: mx.array | None = prompt.caches[layer].tail
        if tail is None:
            return mx.zeros((TAIL_TOKENS, self._args.qk_width + self._args.value_width), self._dtype)
        return tail[prompt.place]
