"""How far two ways to compute the same are apart."""

from __future__ import annotations

import mlx.core as mx


def relative_rms(found: mx.array, expected: mx.array) -> float:
    """The root mean square of a difference over that of what is expected, in float32. Waits for both."""
    found, expected = found.astype(mx.float32), expected.astype(mx.float32)
    return float(mx.sqrt(mx.mean((found - expected) ** 2) / mx.mean(expected**2)))
