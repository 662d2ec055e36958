"""Operations for CPUs against exact ones, for few numbers and for many, which go different ways."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from engine.mlx import cpu

COLUMNS = 128
both = pytest.mark.parametrize("rows", [1, cpu._FEW // COLUMNS - 1, cpu._FEW // COLUMNS])


def drawn(rows: int, seed: int) -> np.ndarray:
    return (6 * np.random.default_rng(seed).standard_normal((rows, COLUMNS))).astype(np.float32)


@both
def test_softmax(rows: int) -> None:
    x = drawn(rows, 0)
    exact = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(cpu.softmax(mx.array(x)), exact / exact.sum(axis=1, keepdims=True), rtol=5e-6)


@both
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_swiglu(rows: int, dtype: mx.Dtype) -> None:
    gate, up = (mx.array(drawn(rows, seed)).astype(dtype) for seed in (1, 2))
    found = cpu.swiglu(gate, up)
    assert found.dtype == mx.float32
    wide_gate, wide_up = (np.array(x.astype(mx.float32)).astype(np.float64) for x in (gate, up))
    np.testing.assert_allclose(found, wide_gate / (1 + np.exp(-wide_gate)) * wide_up, rtol=5e-6)
