"""Attention over pages in bfloat16: a row of any length, cut into any chunks, gives what it gives whole."""

from __future__ import annotations

import emulator
import mlx.core as mx
import numpy as np
import pytest
from emulator import PLACES
from hypothesis import given
from hypothesis import strategies as st

from engine.mlx.kernels.attention import PAGE, Split, attend

KV, GROUP, D = 2, 2, 64
LENGTHS = [PAGE + 130, 0, 3 * PAGE - 1]
"""Of three rows, before the token that decodes."""


@pytest.fixture(params=PLACES)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.use(request.param, monkeypatch)


@pytest.mark.parametrize("split", [Split(128, 6), Split(384, 2), Split(640, 2), Split(2048, 1)], ids=str)
def test_rows_read_their_own_pages_in_any_chunks(kernels: None, split: Split) -> None:
    random = np.random.default_rng(1)
    pool = random.standard_normal((9, 2, KV, PAGE, D)).astype(np.float32)
    pool[0] = np.nan  # nobody's
    table = np.array([[3, 7, 0], [8, 0, 0], [1, 2, 6], [0, 0, 0]])
    q = random.standard_normal((4, KV * GROUP, D)).astype(np.float32)
    found = attend(
        mx.array(q).astype(mx.bfloat16),
        mx.array(pool).astype(mx.bfloat16),
        mx.array(table, dtype=mx.int32),
        mx.array([*LENGTHS, -1], dtype=mx.int32),
        split,
    )
    for row, length in enumerate(LENGTHS):
        pages = pool[table[row, : length // PAGE + 1]]  # [pages, 2, KV, PAGE, D]
        k, v = (
            np.concatenate(pages[:, kind].swapaxes(0, 1).swapaxes(0, 1), axis=1)[:, : length + 1] for kind in (0, 1)
        )
        scores = q[row].reshape(KV, GROUP, D) @ k.swapaxes(1, 2) / np.sqrt(D)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        expected = (weights / weights.sum(axis=-1, keepdims=True)) @ v
        np.testing.assert_allclose(np.array(found[row].astype(mx.float32)), expected.reshape(-1), atol=0.03)
    assert not np.array(found[3].astype(mx.float32)).any()


@given(rows=st.integers(1, 512), longest=st.integers(1, 200_000))
def test_chunks_reach_the_longest_row(rows: int, longest: int) -> None:
    split = Split.of(rows, KV, longest)
    assert longest <= split.reach <= 2 * longest + 2 * 2048
    assert split.chunk % 128 == 0
    assert 128 <= split.chunk <= 2048


def test_few_choices_are_met_while_rows_grow() -> None:
    """Each is a step to be traced anew."""
    assert len({Split.of(64, KV, longest) for longest in range(1, 40_000)}) < 30
