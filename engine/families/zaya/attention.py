"""Compressed convolutional attention (CCA) of ZAYA1.

Queries and keys are small projections that two short causal convolutions then mix over time; half of the values
come from the token before. Widths: G = heads + kv_heads, d = head_dim, C = G*d (queries | keys), V = half of the
values' width.
"""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn

from engine.families.zaya.config import CONV_TAPS, ModelArgs
from engine.families.zaya.lora import LoRA, QKVLoRA
from engine.mlx import cpu, eight_bits

# Far below any real sum of squares; only all-zero (padding) rows feel it. The serving engines add 1e-12 to the sum.
_L2_EPS = 1e-12

_BLOCK_SCORES = 1 << 18
"""Attention scores computed at a time on the CPU: 1 MB."""


class Rotary:
    """Rotation of the first `rope_dims` dimensions of each head, for n tokens from `offset` on (a number, or [B])."""

    def __init__(self, args: ModelArgs, offset: int | mx.array, n: int, *, on_cpu: bool) -> None:
        self.dims, self.theta, self.offset = args.rope_dims, args.rope_theta, offset
        self.tables: tuple[mx.array, mx.array] | None = None
        if on_cpu:
            # MLX has a kernel for GPUs; on the CPU it would compute the angles anew in each layer.
            half = self.dims // 2
            # The exponent's denominator is the rotated width, not head_dim.
            frequencies = mx.exp(mx.arange(half) * (-math.log(self.theta) / half))  # [half]
            start = mx.array([offset]) if isinstance(offset, int) else offset  # [1 or B]
            positions = (start[:, None] + mx.arange(n)).astype(mx.float32)  # [1 or B, n]
            angles = positions[:, None, :, None] * frequencies  # [1 or B, 1, n, half]
            self.tables = mx.cos(angles), mx.sin(angles)

    def __call__(self, x: mx.array) -> mx.array:
        """x [B, heads, n, d] float32: turn the pairs (i, i + rope_dims / 2)."""
        if self.tables is None:
            return mx.fast.rope(x, self.dims, traditional=False, base=self.theta, scale=1.0, offset=self.offset)
        (cos, sin), half = self.tables, self.dims // 2
        a, b = x[..., :half], x[..., half : self.dims]
        parts = [a * cos - b * sin, b * cos + a * sin]
        if self.dims < x.shape[-1]:
            parts.append(x[..., self.dims :])
        return mx.concatenate(parts, axis=-1)


def attend(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str | None, *, on_cpu: bool) -> mx.array:
    """q [B, heads, n, d], k and v [B, kv_heads, total, d] -> [B, n, heads * d]. q are the last n of the tokens."""
    batch, heads, n, d = q.shape
    if not on_cpu:
        out = mx.fast.scaled_dot_product_attention(q, k, v, scale=d**-0.5, mask=mask)
    else:
        out = _attend_on_cpu(q * d**-0.5, k, v, mask)
    return out.transpose(0, 2, 1, 3).reshape(batch, n, heads * d)


def attend_to_bytes(
    q: mx.array,
    keys: mx.array,
    key_scales: mx.array,
    values: mx.array,
    value_scales: mx.array,
    mask: mx.array | str | None,
) -> mx.array:
    """The same for the last token alone, q [B, heads, 1, d], over keys and values in 8 bits. In float32 between."""
    batch, heads, _, d = q.shape
    groups = keys.shape[1]
    queries = q.astype(mx.float32).reshape(batch, groups, -1, d) * d**-0.5  # [B, kv_heads, g, d]
    scores = eight_bits.product(queries, keys, key_scales, transposed=True)  # [B, kv_heads, g, total]
    if isinstance(mask, mx.array):
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
    weights = cpu.softmax(scores) if cpu.on_cpu() else mx.softmax(scores, axis=-1)
    out = eight_bits.product(weights, values, value_scales, transposed=False)
    return out.astype(q.dtype).reshape(batch, 1, heads * d)


def _attend_on_cpu(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str | None) -> mx.array:
    """The same, q scaled, giving [B, heads, n, d]; in blocks of queries whose scores stay in the processor's cache.

    MLX's own way on this backend takes each query head by itself, with the slow exponential, and all scores at
    once. Here the query heads of one key head are rows of one product.
    """
    batch, heads, n, d = q.shape
    groups, total = k.shape[1], k.shape[2]
    rows = max(1, _BLOCK_SCORES // (batch * heads * total))
    if n > rows:
        parts = []
        for start in range(0, n, rows):
            end = min(start + rows, n)
            seen = total - n + end if mask == "causal" else total
            part = mask[..., start:end, :] if isinstance(mask, mx.array) else mask
            parts.append(_attend_on_cpu(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], part))
        return mx.concatenate(parts, axis=2)
    scores = q.reshape(batch, groups, -1, d) @ k.swapaxes(-1, -2)  # [B, kv_heads, g*n, total]
    if mask is not None:
        if isinstance(mask, str):
            mask = mx.arange(total) <= mx.arange(total - n, total)[:, None]  # [n, total]
        scores = scores.reshape(batch, heads, n, total)
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min).reshape(batch, groups, -1, total)
    out = cpu.softmax(scores.astype(mx.float32)).astype(v.dtype) @ v  # [B, kv_heads, g*n, d]
    return out.reshape(batch, heads, n, d)


class GroupedConv(nn.Module):
    """The two causal convolutions of width 2 (per channel, then per head) as one of width 3 per head."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = mx.zeros((heads, CONV_TAPS * head_dim, head_dim))
        self.bias = mx.zeros((heads, 1, head_dim))

    def __call__(self, windows: mx.array, add: mx.array) -> mx.array:
        """windows [G, N, 3*d] (oldest token first) -> [G, N, d], plus `add` of that shape."""
        return mx.addmm(add, windows, self.weight) + self.bias


class CCA(nn.Module):
    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        # One product makes the queries, the keys, the values' delayed half and their current half, in this order:
        # what later tokens need of this one (all but the last part) is then one slice.
        width = args.qk_width + 2 * args.value_width
        self.qkv = nn.Linear(args.hidden_size, width, bias=False)
        self.conv = GroupedConv(args.qk_heads, args.head_dim)
        self.temp = mx.ones((args.num_kv_heads,))
        self.o_proj = nn.Linear(args.num_heads * args.head_dim, args.hidden_size, bias=False)
        self.qkv_lora: QKVLoRA | None = None
        self.o_lora: LoRA | None = None
        if args.lora_rank_attn:
            self.qkv_lora = QKVLoRA(args)
            self.o_lora = LoRA(args.num_heads * args.head_dim, args.hidden_size, args.lora_rank_attn)
        self._mix = _head_means(args)

    def project(
        self, x: mx.array, before: mx.array, rotary: Rotary, added: mx.array | None = None
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """x [B, n, H] normed, padding zeroed; before [B, 2, C + V]: latents of the two tokens before; added
        [B, n, C + 2*V]: what vision-LoRA adds (see `QKVLoRA`).

        Gives queries [B, heads, n, d], keys and values [B, kv_heads, n, d], all for the attention, and the latents
        of the two tokens before and of these, [B, 2 + n, C + V].
        """
        args = self.args
        batch, n, _ = x.shape
        new, v_now = mx.split(self.qkv(x), [args.qk_width + args.value_width], axis=-1)
        if added is not None:
            new = mx.concatenate(
                [new[..., : args.qk_width] + added[..., : args.qk_width], new[..., args.qk_width :]], -1
            )
        latents = mx.concatenate([before, new], axis=1)
        # What is kept for the next token is Wv x, not x: the projection is linear and has no bias.
        v_before = latents[:, 1 : n + 1, args.qk_width :]
        v = mx.concatenate([v_now, v_before], axis=-1)  # [B, n, 2*V]
        if added is not None:
            v = v + added[..., args.qk_width :]
        v = v.reshape(batch, n, args.num_kv_heads, -1)

        qk = rotary(self._mixed(latents[..., : args.qk_width].astype(mx.float32), n))  # [B, G, n, d]
        q, k = qk[:, : args.num_heads], qk[:, args.num_heads :] * self.temp[:, None, None]
        return q.astype(x.dtype), k.astype(x.dtype), v.transpose(0, 2, 1, 3), latents

    def _mixed(self, latents: mx.array, n: int) -> mx.array:
        """latents [B, 2 + n, C] float32 -> queries and keys [B, G, n, d] before rotation, of L2 norm sqrt(d)."""
        args = self.args
        batch, heads, d = latents.shape[0], args.qk_heads, args.head_dim
        latents = latents.reshape(batch, -1, heads, d)
        taps = [latents[:, i : i + n] for i in range(CONV_TAPS)]
        windows = mx.concatenate(taps, axis=-1).transpose(2, 0, 1, 3).reshape(heads, batch * n, -1)  # [G, B*n, 3*d]
        means = (self._mix @ windows[..., -d:].reshape(heads, -1)).reshape(heads, batch * n, d)
        qk = mx.fast.rms_norm(self.conv(windows, means), None, _L2_EPS / d)  # an L2 norm times sqrt(d)
        return qk.reshape(heads, batch, n, d).transpose(1, 0, 2, 3)


def _head_means(args: ModelArgs) -> mx.array:
    """The mean terms as a matrix over heads, [G, G]: q_i + k_j goes, halved, to query head i; to key head j goes
    the mean of that over its query heads."""
    group = args.num_heads // args.num_kv_heads
    rows = [[0.0] * args.qk_heads for _ in range(args.qk_heads)]
    for i in range(args.num_heads):
        key = args.num_heads + i // group
        rows[i][i] = rows[i][key] = rows[key][key] = 0.5
        rows[key][i] = 0.5 / group
    return mx.array(rows)
