"""Keys and values of several rows of a model of mlx-lm, whose padding the host knows.

mlx-lm's own batch cache asks the device, in each layer, how far its rows are padded whenever one leaves: that waits for
all that is at work, and the device for the host in turn. Here the paddings are counted along.
"""

from __future__ import annotations

from typing import Any, Self

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache


class RowsCache(BatchKVCache):
    """As mlx-lm's, of B rows; `filter` takes a list of places.

    paddings  of each row, in tokens: what `left_padding` has on the device.
    """

    keys: Any
    values: Any
    offset: Any

    def __init__(self, left_padding: list[int]) -> None:
        super().__init__(left_padding)
        self.paddings = list(left_padding)
        self._behind = [0] * len(left_padding)

    @classmethod
    def of(cls, cache: KVCache, rows: int) -> Self:
        """So many rows that begin with the same tokens."""
        made = cls([0] * rows)
        if not cache.empty():
            whole = (x[..., : cache.offset, :] for x in (cache.keys, cache.values))
            made.keys, made.values = (mx.repeat(x, rows, axis=0) for x in whole)
            made.offset += cache.offset
            made._idx = cache.offset
        return made

    def prepare(self, *, right_padding: list[int] | None = None, **more: Any) -> None:
        super().prepare(right_padding=right_padding, **more)
        if self._right_padding is not None:
            self._behind = list(right_padding or ())

    def finalize(self) -> None:
        super().finalize()
        self._move([padding + behind for padding, behind in zip(self.paddings, self._behind, strict=True)])

    def filter(self, batch_indices: list[int]) -> None:
        places = mx.array(batch_indices, dtype=mx.int32)
        kept = [self.paddings[place] for place in batch_indices]
        spare = min(kept, default=0)
        if self.keys is not None:
            self.keys = self.keys[places][..., spare:, :]
            self.values = self.values[places][..., spare:, :]
        self._idx -= spare
        self.offset = self.offset[places]
        self._move([padding - spare for padding in kept])
        self.left_padding = mx.array(self.paddings)

    def extend(self, other: RowsCache) -> None:
        longest = max(self._idx, other._idx)
        paddings = [padding + longest - each._idx for each in (self, other) for padding in each.paddings]
        super().extend(other)
        self._move(paddings)

    def _move(self, paddings: list[int]) -> None:
        self.paddings, self._behind = paddings, [0] * len(paddings)


class PromptsCache(RowsCache):
    """The memory of prompts that share a pass, from their first token on, and of their rows after it.

    Their padding comes behind them, so that "causal" is all that the mask has to say: MLX then takes its fast way.
    """

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str | None:
        if self.keys is None and not return_array and window_size is None:
            return "causal"
        mask: mx.array = super().make_mask(n, return_array, window_size=window_size)
        return mask
