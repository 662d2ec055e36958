"""Faster forms of a few operations for MLX's CPU backend, whose exponential runs one number at a time.

`exp` here is a polynomial that the compiler can vectorise once `mx.compile` has fused it: 4 times as fast as
`mx.exp` on x86 (57 against 221 us for 19,200 numbers) and closer to the truth (1.2e-7 against 3.8e-6 relative).
Without a C++ compiler on the machine MLX runs the same steps one by one: slower, same numbers.

For few numbers it is the operations that count, 9 us each, and MLX's own have fewer; they are as close to the truth, up
to float32's rounding of what goes in.
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx

# exp(r) = 1 + r + r^2 * (...) for |r| <= ln(2) / 2; minimax coefficients, highest power first (Cephes expf).
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG2_E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # the first times a small whole number is exact
_LOWEST = -87.0  # below it the result would be subnormal
_MANTISSA_BITS, _EXPONENT_BIAS = 23, 127
_FEW = 8192
"""Numbers below which MLX's operations are faster; a step of one row of nano takes a sixth less time with them."""


def on_cpu() -> bool:
    """Whether operations run on the CPU backend by default."""
    return mx.default_device().type == mx.DeviceType.cpu


def exp_nonpositive(x: mx.array) -> mx.array:
    """exp(x) in float32 for x <= 0; not below 1.6e-38."""
    mantissa, exponent = _exp_parts(x)
    return mantissa * exponent.view(mx.float32)


def softmax(x: mx.array) -> mx.array:
    """Softmax over the last axis, float32."""
    if x.size < _FEW:
        return mx.softmax(x, axis=-1)
    e = exp_nonpositive(x - mx.max(x, axis=-1, keepdims=True))
    return e / mx.sum(e, axis=-1, keepdims=True)


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up, float32."""
    gate = gate.astype(mx.float32)
    if gate.size < _FEW:
        return gate * mx.sigmoid(gate) * up.astype(mx.float32)
    mantissa, exponent = _exp_parts(-mx.abs(gate))
    return _swiglu(gate, up.astype(mx.float32), mantissa, exponent.view(mx.float32))


# Shapeless: attention has new shapes at every token, and a trace would be made and kept for each.
@partial(mx.compile, shapeless=True)
def _exp_parts(x: mx.array) -> tuple[mx.array, mx.array]:
    """exp(x) as a float32 in [0.7, 1.42] and a power of two, the latter as the bits of a float32."""
    x = mx.maximum(x, _LOWEST)
    whole = (x * _LOG2_E - 0.5).astype(mx.int32)  # rounds to nearest: x is not positive
    n = whole.astype(mx.float32)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = mx.array(_EXP[0], mx.float32)
    for c in _EXP[1:]:
        p = p * r + c
    return p * (r * r) + (r + 1.0), (whole + _EXPONENT_BIAS) * (1 << _MANTISSA_BITS)


@partial(mx.compile, shapeless=True)
def _swiglu(gate: mx.array, up: mx.array, mantissa: mx.array, power: mx.array) -> mx.array:
    e = mantissa * power  # exp(-|gate|)
    share = 1.0 / (1.0 + e)
    return gate * up * mx.where(gate >= 0, share, e * share)
