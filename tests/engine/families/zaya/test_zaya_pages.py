"""The pool of pages: hardly larger than what rows have in it, at any moment, and every page where its row says."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.families.zaya import CCACache
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.pages import ZayaRows
from engine.mlx.kernels.attention import PAGE
from engine.mlx.memory import CacheCost

ARGS = ModelArgs(
    model_type="zaya", vocab_size=96, hidden_size=64, num_layers=40, num_heads=2, num_kv_heads=1, head_dim=8,
    num_experts=3, expert_size=64, router_size=32, rope_theta=1e4, rope_dims=8,
)  # fmt: skip
TOKEN_BYTES = 40 * 2 * 8 * 2
COST = CacheCost(lambda tokens: TOKEN_BYTES * tokens, ragged=True)
"""What admission counts."""
LAYERS = range(ARGS.num_layers)


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be copied into pages is a number that the prompt has, in all of them."""

    def store(
        keys: mx.array, values: mx.array, row: int, start: int, span: object, pages: Sequence[int], pool: mx.array
    ) -> mx.array:
        pool[mx.array(list(pages))] = keys[row, 0, start, 0]
        return pool

    monkeypatch.setattr("engine.families.zaya.pages.store", store)


def prompt(tokens: int, mark: float = 0.0) -> list[CCACache]:
    shared = mx.full((1, 1, tokens, 8), mark, mx.bfloat16)
    caches = [CCACache() for _ in LAYERS]
    for cache in caches:
        cache.buffers, cache._size = [shared, shared], tokens
        cache.tail = mx.zeros((1, 2, ARGS.qk_width + ARGS.value_width), mx.bfloat16)
    return caches


def joined(rows: ZayaRows | None, tokens: int, mark: float = 0.0, copies: int = 1) -> ZayaRows:
    more = ZayaRows.of(ARGS, mx.bfloat16, prompt(tokens, mark), [0] * copies)
    if rows is None:
        return more
    rows.extend(more)
    return rows


def step(rows: ZayaRows) -> np.ndarray:
    """A token more for each row; the table of their pages."""
    rows.place()
    table, _ = rows.advance()
    rows.advanced(mx.zeros((rows.places,), mx.int32))
    rows._lengths = None
    return np.array(table)


def pool_bytes(rows: ZayaRows) -> int:
    return sum(pool.nbytes for pool in rows.pools)


def test_memory_is_that_of_the_rows_and_a_tenth_at_most() -> None:
    """16 rows of 512 to 8,192 tokens, and a thousand more for each: also while a pool grows."""
    rows: ZayaRows | None = None
    for i in range(16):
        rows = joined(rows, 512 + 512 * i + 31 * i % 97)
    assert rows is not None
    step(rows)
    mx.eval(rows.pools)
    rest = mx.get_active_memory() - pool_bytes(rows)
    sizes, grown, worst = [], 0, 0.0
    for _ in range(1000):
        mx.reset_peak_memory()
        before = rows.pools[0].shape[0]
        step(rows)
        grown += rows.pools[0].shape[0] > before
        used = TOKEN_BYTES * sum(rows.lengths)
        assert pool_bytes(rows) <= 1.1 * used
        assert pool_bytes(rows) <= COST.of_rows(rows.lengths)
        worst = max(worst, (mx.get_peak_memory() - rest) / used)
        sizes.append(pool_bytes(rows) / used)
    assert 2 <= grown <= 16
    assert worst <= 1.1
    assert np.mean(sizes) < 1.08


def test_rows_that_leave_give_their_pages_back() -> None:
    rows: ZayaRows | None = None
    for i in range(16):
        rows = joined(rows, 512 + 512 * i)
    assert rows is not None
    step(rows)
    for left in (12, 8, 3, 1):
        rows.filter(list(range(left)))
        step(rows)
        assert pool_bytes(rows) <= TOKEN_BYTES * (sum(rows.lengths) + PAGE * (left + max(left // 2, 1)))


def test_a_row_that_joins_takes_the_pages_of_one_that_left() -> None:
    rows = joined(joined(None, 700), 900)
    step(rows)
    pools = rows.pools
    rows.filter([0])
    joined(rows, 800)
    step(rows)
    assert all(now is before for now, before in zip(rows.pools, pools, strict=True))


@settings(max_examples=30)
@given(data=st.data())
def test_each_row_finds_its_own_pages_again(data: st.DataObject) -> None:
    """However rows come and go, and pools grow and shrink: each page of a prompt has its mark."""
    rows, marked = joined(None, PAGE + 1, mark=1.0), [(1.0, 2)]  # marks, and on how many pages
    for mark in range(2, 2 + data.draw(st.integers(1, 6), "joins")):
        if data.draw(st.booleans(), "one joins"):
            tokens, copies = data.draw(st.sampled_from([1, PAGE - 1, PAGE, 3 * PAGE, 9 * PAGE])), 1 + mark % 2
            joined(rows, tokens, float(mark), copies)
            marked += [(float(mark), -(-tokens // PAGE))] * copies
        order = data.draw(st.permutations(range(len(marked))), "order")
        kept = order[: data.draw(st.integers(1, len(order)), "kept")]
        rows.filter(kept)
        marked = [marked[i] for i in kept]
        table = step(rows)
        assert rows._pages.used + len(rows._pages.free) == rows.pools[0].shape[0]
        taken = [page for i, pages in enumerate(rows._rows) for page in pages[rows.lengths[i] // PAGE :]]
        assert len(set(taken)) == len(taken), "two rows write into one page"
        for layer in (0, ARGS.num_layers - 1):
            pool = np.array(rows.pools[layer].astype(mx.float32))
            for pages, (value, count) in zip(table, marked, strict=False):  # there are empty places, too
                assert (pool[pages[:count]] == value).all()
