"""Keys and values in 8 bits: a byte for each number, and a scale for each head of each token.

    number = (byte - 128) * scale        byte in 1..255, scale in bfloat16: the largest magnitude / 127

Rounding is off by half a step at most, 1/254 of the head's largest number. In MLX's words for quantised matrices that
is a group as wide as a head, whose bias is -128 scales; so its products can read the bytes as they are.
"""

from __future__ import annotations

import mlx.core as mx

from engine.mlx.cpu import on_cpu

SCALE = mx.bfloat16
"""Type of the scales: the range of any activation."""
_MIDDLE = 128
_MOST = 127
_GROUPS = (32, 64, 128)
"""Widths of a group that MLX's products take."""


def quantised(x: mx.array) -> tuple[mx.array, mx.array]:
    """x [..., d] -> bytes [..., d], scales [..., 1]."""
    x = x.astype(mx.float32)
    scales = (mx.max(mx.abs(x), axis=-1, keepdims=True) / _MOST).astype(SCALE)
    step = scales.astype(mx.float32)
    whole = mx.round(x / mx.where(step > 0, step, 1.0))
    return (mx.clip(whole, -_MOST, _MOST) + _MIDDLE).astype(mx.uint8), scales


def numbers(codes: mx.array, scales: mx.array, dtype: mx.Dtype) -> mx.array:
    """What `quantised` gave, as numbers of a type again."""
    return (codes.astype(dtype) - _MIDDLE) * scales.astype(dtype)


def groups_fit(width: int) -> bool:
    """True if `product` can be had of heads as wide."""
    return on_cpu() or width in _GROUPS


def product(x: mx.array, codes: mx.array, scales: mx.array, *, transposed: bool) -> mx.array:
    """x @ numbers, or x @ numbers.T where `transposed`, without the numbers: only bytes are read.

    x [..., n, d or m] in float32, bytes [..., m, d], scales [..., m, 1].
    """
    scales = scales.astype(x.dtype)
    if on_cpu():  # where MLX's product of bytes is slow, and bytes without scale and shift are made numbers in one go
        plain = codes.astype(x.dtype)
        if transposed:
            return (x @ plain.swapaxes(-1, -2) - _MIDDLE * mx.sum(x, axis=-1, keepdims=True)) * scales.swapaxes(-1, -2)
        x = x * scales.swapaxes(-1, -2)
        return x @ plain - _MIDDLE * mx.sum(x, axis=-1, keepdims=True)
    return mx.quantized_matmul(
        x, codes.view(mx.uint32), scales, scales * -_MIDDLE,
        transpose=transposed, group_size=codes.shape[-1], bits=8,
    )  # fmt: skip
