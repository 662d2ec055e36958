"""What a block of ZAYA1 remembers of the tokens so far, for a batch of rows.

`CCACache` follows the batch-cache protocol of mlx-lm (`merge`, `extend`, `filter`, `extract`, `prepare`,
`finalize`, `make_mask`), with one class for every batch size. Two kinds of memory are kept together, because a
row is only right if both stand at the same token:

    keys, values  [B, kv_heads, capacity, head_dim]   every token; grown in steps, written in place. In 8 bits these are
                                                      bytes, and a third buffer has their scales
    tail          [B, 2, qk_width + value_width]      the last two tokens' inputs of the convolutions and, beside
                                                      them, what the values use one token late
    last_input    [B, 1, hidden_size]                 only with vision-LoRA: the last token's normed input, of which
                                                      an image token after it makes its own delayed values

Rows are right-aligned: row b's tokens are at positions left_padding[b] .. size()-1 of the buffers.

    tokens            positions     left_padding
    a b c d           a b c d       0
    e f               . . e f       2

All bookkeeping is in Python integers: an array updated once a step and never evaluated would grow a graph as long
as the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from engine.families.zaya.config import CONV_TAPS, ModelArgs
from engine.mlx import eight_bits

TAIL_TOKENS = CONV_TAPS - 1


def kv_bytes_per_token(args: ModelArgs, dtype: mx.Dtype, kv_bits: int | None = None) -> int:
    """Bytes that one more token of one row costs, all layers together."""
    head = args.head_dim * dtype.size if kv_bits is None else args.head_dim + eight_bits.SCALE.size
    return 2 * args.num_layers * args.num_kv_heads * head


def state_bytes(args: ModelArgs, dtype: mx.Dtype) -> int:
    """Bytes that a row costs however long it is, all layers together."""
    last_input = args.hidden_size if args.lora_rank_attn else 0
    return args.num_layers * (TAIL_TOKENS * (args.qk_width + args.value_width) + last_input) * dtype.size


class CCACache:
    """The memory of one layer for B rows. A new one is empty, and takes the batch size of its first input.

    kv_bits  8: keys and values are kept in as many bits (`engine.mlx.eight_bits`); None: as they come.
    """

    step = 256
    """Tokens by which the buffers grow at least; they grow by an eighth when that is more, so that copying stays
    a small part of the work at any length."""

    def __init__(self, left_padding: Sequence[int] = (0,), *, kv_bits: int | None = None) -> None:
        self.kv_bits = kv_bits
        self.buffers: list[mx.array] = []
        """Keys, values [B, kv_heads, capacity, head_dim] and, of bytes, scales [B, 2 * kv_heads, capacity, 1]."""
        self.tail: mx.array | None = None  # [B, 2, qk_width + value_width]
        self.last_input: mx.array | None = None  # [B, 1, hidden_size]
        self.left_padding: list[int] = list(left_padding)
        self.images_end: list[int] = [0] * len(self.left_padding)
        """Tokens of each row up to its last image token, inclusive; 0: no image. Kept by the first layer's cache."""
        self._size = 0
        self._ends: list[int] | None = None  # while right-padded: the position after each row's last real token

    # ---- what the model asks -------------------------------------------------------------------------------

    @property
    def keys(self) -> mx.array | None:
        return self.buffers[0] if self.buffers else None

    @property
    def values(self) -> mx.array | None:
        return self.buffers[1] if self.buffers else None

    @property
    def batch_size(self) -> int:
        return len(self.left_padding)

    @property
    def offset(self) -> int | mx.array:
        """Position of the next token within its row: a number if all rows agree, else [B]."""
        if max(self.left_padding) == min(self.left_padding):
            return self._size - self.left_padding[0]
        return mx.array([self._size - pad for pad in self.left_padding])

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array | str | None:
        """Attention mask of the next `n` tokens: None or "causal" while no row is padded, which lets MLX take its
        fast paths, else that of `mask_array`."""
        if window_size is not None:
            raise ValueError("CCACache has no sliding window")
        if not any(self.left_padding) and not return_array:
            return None if n == 1 else "causal"
        return self.mask_array(n)

    def mask_array(self, n: int) -> mx.array:
        """The same as booleans [B, 1, n, size() + n]. Padding attends to itself, so that no softmax is empty."""
        total = self._size + n
        keys = mx.arange(total)  # [total]
        queries = mx.arange(self._size, total)[:, None]  # [n, 1]
        first = mx.array(self.left_padding)[:, None, None, None]  # [B, 1, 1, 1]
        return ((keys <= queries) & (keys >= first)) | (keys == queries)

    def pad_mask(self, n: int) -> mx.array | None:
        """Which of the next `n` tokens are real, [B, n]; None if all are."""
        if max(self.left_padding) <= self._size and (self._ends is None or min(self._ends) >= self._size + n):
            return None
        positions = mx.arange(self._size, self._size + n)  # [n]
        real = positions >= mx.array(self.left_padding)[:, None]
        if self._ends is not None:
            real = real & (positions < mx.array(self._ends)[:, None])
        return real

    def columns(self, n: int) -> list[tuple[int, int]]:
        """Which of the next `n` tokens are real, as a half-open range for each row."""
        ends = self._ends if self._ends is not None else [self._size + n] * self.batch_size
        spans = [(pad - self._size, end - self._size) for pad, end in zip(self.left_padding, ends, strict=True)]
        return [(min(max(first, 0), n), min(max(end, 0), n)) for first, end in spans]

    def fetch_tail(self, batch: int, width: int, dtype: mx.Dtype) -> mx.array:
        """Latents of the two tokens before the next ones, [B, 2, width]; zero before the first."""
        self.adopt(batch)
        if self.tail is None:
            self.tail = mx.zeros((batch, TAIL_TOKENS, width), dtype)
        return self.tail

    def fetch_last_input(self, batch: int, width: int, dtype: mx.Dtype) -> mx.array:
        """Normed input of the token before the next ones, [B, 1, width]; zero before the first."""
        self.adopt(batch)
        return mx.zeros((batch, 1, width), dtype) if self.last_input is None else self.last_input

    def update_tail(self, latents: mx.array, inputs: mx.array | None = None) -> None:
        """Keep the last two of `latents` [B, 2 + n, width] that are real, and the last of `inputs` [B, n, width] if
        given. Call it before `update_and_fetch`."""
        n = latents.shape[1] - TAIL_TOKENS
        if self._ends is None or min(self._ends) >= self._size + n:
            # After a long input they are copied: as views they would keep all of it in memory.
            self.tail = latents[:, n:] if n == 1 else mx.take(latents, mx.array([n, n + 1]), axis=1)
            if inputs is not None:
                self.last_input = inputs if n == 1 else mx.take(inputs, mx.array([n - 1]), axis=1)
            return
        # A row that ended keeps the state it had at its end: its new tokens are padding.
        real = [min(max(end - self._size, 0), n) for end in self._ends]
        rows = mx.array([[r + i for i in range(TAIL_TOKENS)] for r in real])  # [B, 2]
        self.tail = mx.take_along_axis(latents, rows[:, :, None], axis=1)
        if inputs is not None:
            before = self.fetch_last_input(inputs.shape[0], inputs.shape[2], inputs.dtype)
            inputs = mx.concatenate([before, inputs], axis=1)  # [B, 1 + n, width]
            self.last_input = mx.take_along_axis(inputs, mx.array(real)[:, None, None], axis=1)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append n tokens, each [B, kv_heads, n, head_dim]; return all so far, [B, kv_heads, size(), head_dim]."""
        self.append(keys, values)
        return self.fetch(keys.dtype)

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Append n tokens, each [B, kv_heads, n, head_dim]."""
        batch, _, n, _ = keys.shape
        self.adopt(batch)
        new = [keys, values]
        if self.kv_bits is not None:
            (keys, key_scales), (values, value_scales) = map(eight_bits.quantised, new)
            new = [keys, values, mx.concatenate([key_scales, value_scales], axis=1)]
        end = self._size + n
        if not self.buffers or end > self.buffers[0].shape[2]:
            self.buffers = [self._grown(i, x, end) for i, x in enumerate(new)]
        # Nothing else holds the buffers between two steps, so these are writes in place, not copies.
        for buffer, x in zip(self.buffers, new, strict=True):
            buffer[:, :, self._size : end] = x
        self._size = end

    def fetch(self, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """Keys and values of all tokens so far, each [B, kv_heads, size(), head_dim]; of a type, if they are bytes."""
        if self.kv_bits is None:
            keys, values = (x[:, :, : self._size] for x in self.buffers)
            return keys, values
        keys, key_scales, values, value_scales = self.fetch_bytes()
        return eight_bits.numbers(keys, key_scales, dtype), eight_bits.numbers(values, value_scales, dtype)

    def fetch_bytes(self) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """Keys and their scales, values and theirs, as `engine.mlx.eight_bits` has them; only if they are bytes."""
        keys, values, scales = (x[:, :, : self._size] for x in self.buffers)
        heads = keys.shape[1]
        return keys, scales[:, :heads], values, scales[:, heads:]

    def _grown(self, index: int, new: mx.array, needed: int) -> mx.array:
        room = -(-max(needed, self._size * 9 // 8) // self.step) * self.step
        batch, heads, _, width = new.shape
        if not self.buffers:
            return mx.zeros((batch, heads, room, width), new.dtype)
        more = mx.zeros((batch, heads, room - self._size, width), new.dtype)
        return mx.concatenate([self.buffers[index][:, :, : self._size], more], axis=2)

    def adopt(self, batch: int) -> None:
        """Take the batch size of the first input. Raises ValueError if it is another than that of the rows held."""
        if batch == self.batch_size:
            return
        if not self.empty() or self.batch_size != 1:
            raise ValueError(f"a cache of {self.batch_size} rows was given {batch} rows")
        self.left_padding = self.left_padding * batch
        self.images_end = self.images_end * batch

    # ---- padding -------------------------------------------------------------------------------------------

    def prepare(
        self,
        *,
        left_padding: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
        right_padding: Sequence[int] | None = None,
    ) -> None:
        """Announce the padding of the next tokens.

        left_padding   leading pads per row; only into an empty cache.
        right_padding  trailing pads per row, with `lengths` real tokens before them; the tokens may come in
                       several calls. `finalize` must follow them.
        """
        if left_padding is not None:
            if not self.empty():
                raise ValueError("left padding can only be added to an empty cache")
            self.adopt(len(left_padding))
            self.left_padding = [a + b for a, b in zip(self.left_padding, left_padding, strict=True)]
        if right_padding is not None and max(right_padding) > 0:
            if lengths is None:
                raise ValueError("right padding needs the rows' lengths")
            self.adopt(len(lengths))
            self._ends = [self._size + length for length in lengths]

    def finalize(self) -> None:
        """Turn right padding into left padding, after the tokens announced by `prepare` were seen."""
        if self._ends is None:
            return
        shifts = [self._size - end for end in self._ends]
        self._ends = None
        if not any(shifts) or not self.buffers:
            return
        self.buffers = [_rolled(x[:, :, : self._size], shifts) for x in self.buffers]
        self.left_padding = [pad + shift for pad, shift in zip(self.left_padding, shifts, strict=True)]

    # ---- rows ----------------------------------------------------------------------------------------------

    @classmethod
    def merge(cls, caches: Sequence[CCACache]) -> CCACache:
        """One cache with the rows of all; n references to one cache cost no more than `repeat(n)`."""
        if len(caches) > 1 and all(cache is caches[0] for cache in caches):
            return caches[0].repeat(len(caches))
        merged = cls((), kv_bits=caches[0].kv_bits)
        merged._join(caches)
        return merged

    def extend(self, other: CCACache) -> None:
        """Append the rows of `other`."""
        self._join([self, other])

    def _join(self, caches: Sequence[CCACache]) -> None:
        """Become the rows of `caches` one after the other, right-aligned."""
        if any(cache._ends is not None for cache in caches):
            raise ValueError("finalize a right-padded cache before joining it to others")
        size = max(cache._size for cache in caches)
        padding = [pad + size - cache._size for cache in caches for pad in cache.left_padding]
        self.images_end = [end for cache in caches for end in cache.images_end]
        # Room for the next step is made here: the buffers are written anew anyway.
        self.buffers = _stacked(caches, size, self.step)
        self.tail, self.last_input = (_stacked_tails(caches, name) for name in ("tail", "last_input"))
        self.left_padding, self._size, self._ends = padding, size, None

    def repeat(self, n: int) -> CCACache:
        """A cache of n copies of each row, row by row: [a, b] -> [a, a, ..., b, b, ...]."""
        if self._ends is not None:
            raise ValueError("finalize a right-padded cache before repeating it")
        copy = type(self)([pad for pad in self.left_padding for _ in range(n)], kv_bits=self.kv_bits)
        copy._size = self._size
        copy.images_end = [end for end in self.images_end for _ in range(n)]
        if self.buffers and self.tail is not None:
            # No room is left over: the first write grows the buffers, and that makes the only copy.
            copy.buffers = [_repeated(x[:, :, : self._size], n) for x in self.buffers]
            copy.tail = _repeated(self.tail, n)
            copy.last_input = None if self.last_input is None else _repeated(self.last_input, n)
        return copy

    def filter(self, indices: Sequence[int] | mx.array) -> None:
        """Keep the rows `indices`, in that order, and drop positions that are padding in all of them."""
        rows: list[int] = indices.tolist() if isinstance(indices, mx.array) else list(indices)  # type: ignore[assignment]
        self.left_padding = [self.left_padding[i] for i in rows]
        self.images_end = [self.images_end[i] for i in rows]
        if self._ends is not None:
            self._ends = [self._ends[i] for i in rows]
        spare = min(min(self.left_padding, default=0), self._size)
        kept = mx.array(rows, mx.int32)
        self.buffers = [x[kept, :, spare:] if spare else x[kept] for x in self.buffers]
        if self.tail is not None:
            self.tail = self.tail[kept]
        if self.last_input is not None:
            self.last_input = self.last_input[kept]
        self.left_padding = [pad - spare for pad in self.left_padding]
        self._size -= spare
        if self._ends is not None:
            self._ends = [end - spare for end in self._ends]

    def extract(self, index: int) -> CCACache:
        """A cache of row `index` alone, without its padding. This one is left as it is."""
        row = type(self)(kv_bits=self.kv_bits)
        end = self._size if self._ends is None else min(self._size, self._ends[index])
        start = min(self.left_padding[index], end)
        row._size = end - start
        row.left_padding = [self.left_padding[index] - start]
        row.images_end = [self.images_end[index]]
        if self.buffers and self.tail is not None:
            row.buffers = [mx.contiguous(x[index : index + 1, :, start:end]) for x in self.buffers]
            row.tail = mx.contiguous(self.tail[index : index + 1])
            if self.last_input is not None:
                row.last_input = mx.contiguous(self.last_input[index : index + 1])
        return row

    # ---- the rest of mlx-lm's protocol -----------------------------------------------------------------------

    @property
    def state(self) -> list[mx.array]:
        """Every array held; evaluate them with each step."""
        return [*self.buffers, *(x for x in (self.tail, self.last_input) if x is not None)]

    @state.setter
    def state(self, arrays: Sequence[mx.array]) -> None:
        buffers = 2 if self.kv_bits is None else 3
        self.buffers = list(arrays[:buffers])
        self.tail, self.last_input = (*arrays[buffers:], None, None)[:2]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.state)

    def size(self) -> int:
        """Positions in use, the padding of the longest row's neighbours included."""
        return self._size

    def empty(self) -> bool:
        return self._size == 0

    def is_trimmable(self) -> bool:
        """Never: the tail of an earlier token is gone."""
        return False

    def trim(self, n: int) -> int:
        return 0


def _stacked(caches: Sequence[CCACache], size: int, step: int) -> list[mx.array]:
    """Buffers [B_i, heads, capacity_i, width] -> [sum of B_i, heads, size rounded up, width], right-aligned."""
    examples = next((cache.buffers for cache in caches if cache.buffers), [])
    room = -(-(size + 1) // step) * step
    stacked: list[mx.array] = []
    for i, example in enumerate(examples):
        _, heads, _, width = example.shape
        parts: list[mx.array] = []
        for cache in caches:
            parts.append(mx.zeros((cache.batch_size, heads, room, width), example.dtype))
            used = cache._size if cache.buffers else 0
            if used:
                parts[-1][:, :, size - used : size] = cache.buffers[i][:, :, :used]
        stacked.append(mx.concatenate(parts, axis=0))
    return stacked


def _stacked_tails(caches: Sequence[CCACache], name: str) -> mx.array | None:
    tails: list[mx.array | None] = [getattr(cache, name) for cache in caches]
    example = next((tail for tail in tails if tail is not None), None)
    if example is None:
        return None
    shape, dtype = example.shape[1:], example.dtype
    empty = [mx.zeros((cache.batch_size, *shape), dtype) for cache in caches]
    return mx.concatenate([e if tail is None else tail for tail, e in zip(tails, empty, strict=True)], axis=0)


def _repeated(x: mx.array, n: int) -> mx.array:
    """n copies of each row; of a single row it is a view."""
    return mx.broadcast_to(x, (n, *x.shape[1:])) if x.shape[0] == 1 else mx.repeat(x, n, axis=0)


def _rolled(x: mx.array, shifts: Sequence[int]) -> mx.array:
    """Move row b of x, [B, heads, n, width], right by shifts[b] positions, cyclically."""
    n = x.shape[2]
    source = (mx.arange(n) - mx.array(list(shifts))[:, None]) % n  # [B, n]
    return mx.take_along_axis(x, source[:, None, :, None], axis=2)
