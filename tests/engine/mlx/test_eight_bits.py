"""Keys and values in 8 bits: how far they are off, MLX's products of them, kernels that write and read pages."""

from __future__ import annotations

import emulator
import mlx.core as mx
import numpy as np
import pytest
from emulator import TEXTS, Text
from hypothesis import given
from hypothesis import strategies as st

from engine.mlx import eight_bits
from engine.mlx.kernels import eight_bits as paged
from engine.mlx.kernels.attention import PAGE, Split
from engine.mlx.kernels.launch import Kernel


def drawn(*shape: int, seed: int = 0, scale: float = 1.0, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array((scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)).astype(dtype)


@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-30, 1e-3, 1.0, 300.0, 1e30]), width=st.integers(1, 9))
def test_a_number_is_off_by_half_a_step_at_most(seed: int, scale: float, width: int) -> None:
    x = drawn(5, width, seed=seed, scale=scale)
    found = np.array(eight_bits.numbers(*eight_bits.quantised(x), mx.float32))
    most = np.abs(np.array(x)).max(axis=1, keepdims=True)
    assert (np.abs(found - np.array(x)) <= most * (1 / 254 + 1 / 512 / 127)).all()


def test_zeros_stay_zeros_and_what_is_not_finite_stays_so() -> None:
    x = mx.array([[0.0, 0.0], [1.0, float("nan")], [float("-inf"), 1.0]])
    found = np.array(eight_bits.numbers(*eight_bits.quantised(x), mx.float32))
    assert found[0].tolist() == [0, 0]
    assert not np.isfinite(found[1:]).all(axis=1).any()


@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("on_cpu", [False, True])
def test_products_read_the_bytes_as_the_numbers_that_they_are(
    width: int, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.mlx.eight_bits.on_cpu", lambda: on_cpu)
    assert eight_bits.groups_fit(width)
    codes, scales = eight_bits.quantised(drawn(2, 3, 50, width))
    codes, scales = codes[:, :, :41], scales[:, :, :41]  # a part of a buffer, as caches give it
    known = eight_bits.numbers(codes, scales, mx.float32)
    x, weights = drawn(2, 3, 4, width, seed=1), drawn(2, 3, 4, 41, seed=2)
    scores = eight_bits.product(x, codes, scales, transposed=True)
    np.testing.assert_allclose(scores, x @ known.swapaxes(-1, -2), atol=1e-3)
    np.testing.assert_allclose(eight_bits.product(weights, codes, scales, transposed=False), weights @ known, atol=1e-3)


@pytest.fixture(params=[(text, backwards) for text in TEXTS for backwards in (False, True)])
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    text: Text = request.param[0]
    monkeypatch.setattr(Kernel, "__call__", emulator.call(text, backwards=request.param[1]))


LENGTHS = [PAGE + 3, 6, 2 * PAGE - 1]
"""Of three rows, before the token that decodes: its page is the second, the first and the second."""
KV, GROUP, D = 2, 2, 64


def test_pages_are_read_as_they_were_written(emulated: None) -> None:
    """A prompt's keys and values come in bytes, those of the token that decodes from the projection: attention over
    pages is that over numbers, and an empty place gives zeros."""
    room = max(LENGTHS) + 5
    table, taken = [], 0
    for length in LENGTHS:
        pages = list(range(taken, taken + length // PAGE + 1))
        table.append(pages + [0] * (3 - len(pages)))
        taken += len(pages)
    pool, scratch = paged.empty_pool(taken, KV, D), paged.scratch(4, KV, D, mx.bfloat16)
    new = drawn(4, 2, KV, D, seed=5, dtype=mx.bfloat16)
    lengths = mx.array([*LENGTHS, -1], dtype=mx.int32)
    keys, values = (drawn(2, KV, room, D, seed=seed, dtype=mx.bfloat16) for seed in (3, 4))
    codes = [eight_bits.quantised(x) for x in (keys, values)]
    scales = mx.concatenate([codes[0][1], codes[1][1]], axis=1)
    place, start = 1, 2
    for row, length in enumerate(LENGTHS):
        first = PAGE if row == 2 else 0  # its first page is copied by itself
        for part in ((0, first), (first, length)):
            if part[0] < part[1]:
                pages = table[row][part[0] // PAGE : -(-part[1] // PAGE)]
                mx.eval(paged.store(codes[0][0], codes[1][0], scales, place, start, part, pages, pool))
        scratch[row, :, :, length % PAGE] = new[row]
    mx.eval(scratch)
    q = drawn(4, KV * GROUP, D, seed=6, dtype=mx.bfloat16)
    full = mx.array([*table, [0] * 3], dtype=mx.int32)
    passed = paged.pack(q, scratch, pool, full, lengths)
    assert mx.array_equal(passed, q)
    found = np.array(paged.attend(passed, pool, full, lengths, Split(128, 4)).astype(mx.float32))

    def numbers(x: mx.array) -> np.ndarray:
        return np.array(eight_bits.numbers(*eight_bits.quantised(x), mx.float32))

    for row, length in enumerate(LENGTHS):
        span = slice(start, start + length)
        k = np.concatenate([numbers(keys[place, :, span]), numbers(new[row, 0])[:, None]], axis=1)
        v = np.concatenate([numbers(values[place, :, span]), numbers(new[row, 1])[:, None]], axis=1)
        queries = np.array(q[row].astype(mx.float32)).reshape(KV, GROUP, D)
        scores = queries @ k.swapaxes(1, 2) / np.sqrt(D)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        expected = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        np.testing.assert_allclose(found[row], expected.reshape(-1), atol=0.01)
    assert not found[3].any()


@pytest.mark.parametrize("at", [1, D - 1])
def test_what_decodes_and_is_not_finite_stays_so(emulated: None, at: int) -> None:
    """In a byte it could pass for a number."""
    pool, table = paged.empty_pool(1, KV, D), mx.zeros((1, 1), dtype=mx.int32)
    scratch, lengths = paged.scratch(1, KV, D, mx.bfloat16), mx.zeros((1,), dtype=mx.int32)
    scratch[0, 1, 0, 0, at] = float("nan")  # in a value of the first head
    q = drawn(1, KV * GROUP, D, dtype=mx.bfloat16)
    passed = paged.pack(q, scratch, pool, table, lengths)
    found = np.array(paged.attend(passed, pool, table, lengths, Split(128, 1)).astype(mx.float32))
    assert np.isnan(found[0, : GROUP * D]).all()
    assert not found[0, GROUP * D :].any()
