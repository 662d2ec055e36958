"""Caches of rows whose padding the host knows, against mlx-lm's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import BatchKVCache, KVCache

from engine.families.mlx_lm.caches import PromptsCache, RowsCache

HEADS, SIZE = 2, 4


def tokens(rows: int, count: int, seed: int) -> tuple[mx.array, mx.array]:
    """Keys and values [rows, HEADS, count, SIZE]."""
    both = mx.random.normal((2, rows, HEADS, count, SIZE), key=mx.random.key(seed))
    return both[0], both[1]


def prompt(length: int, seed: int) -> KVCache:
    cache = KVCache()
    if length:
        cache.update_and_fetch(*tokens(1, length, seed))
    return cache


class Twins:
    """The same rows in both kinds of caches."""

    def __init__(self, length: int, rows: int, seed: int) -> None:
        alone = prompt(length, seed)
        self.ours, self.theirs = RowsCache.of(alone, rows), BatchKVCache.merge([alone] * rows)

    @property
    def rows(self) -> int:
        return len(self.ours.paddings)

    def each(self, do: Callable[[BatchKVCache], object]) -> None:
        for cache in (self.ours, self.theirs):
            do(cache)

    def check(self) -> None:
        assert self.ours._idx == self.theirs._idx
        assert self.ours.paddings == self.ours.left_padding.tolist() == self.theirs.left_padding.tolist()
        assert self.ours.offset.tolist() == self.theirs.offset.tolist()
        if self.theirs.keys is not None:
            for mine, other in zip(self.ours.keys_and_values(), self.theirs.keys_and_values(), strict=True):
                assert mx.array_equal(mine, other)


@given(st.data())
def test_rows_come_write_and_leave_as_in_mlx_lms_caches(data: st.DataObject) -> None:
    twins = Twins(data.draw(st.integers(0, 5)), data.draw(st.integers(1, 3)), seed=0)
    for step in range(1, data.draw(st.integers(1, 8)) + 1):
        match data.draw(st.sampled_from(["write", "leave", "join"])):
            case "write":
                new = tokens(twins.rows, data.draw(st.integers(1, 300)), step)
                twins.each(lambda cache, new=new: cache.update_and_fetch(*new))
            case "leave":
                kept = [place for place in range(twins.rows) if data.draw(st.booleans())] or [0]
                with no_reading():
                    twins.ours.filter(kept)
                twins.theirs.filter(mx.array(kept))
            case "join":
                more = Twins(data.draw(st.integers(0, 600)), data.draw(st.integers(1, 2)), step)
                with no_reading():
                    twins.ours.extend(more.ours)
                twins.theirs.extend(more.theirs)
        twins.check()


@contextmanager
def no_reading() -> Iterator[None]:
    """The host reads nothing from the device, and waits for nothing."""

    def refuse(*_: object) -> None:
        raise AssertionError("the host waits for the device")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "item"):
            patch.setattr(mx.array, name, refuse)
        yield


def test_prompts_that_share_a_pass_are_padded_in_front_after_it() -> None:
    cache = PromptsCache([0, 0])
    cache.prepare(lengths=[5, 2], right_padding=[0, 3])
    keys, values = tokens(2, 5, 1)
    cache.update_and_fetch(keys, values)
    cache.finalize()
    assert cache.paddings == cache.left_padding.tolist() == [0, 3]
    with no_reading():
        cache.filter([1, 1])
    assert cache.paddings == cache.left_padding.tolist() == [0, 0]
    assert cache.offset.tolist() == [2, 2]
    assert mx.array_equal(cache.keys_and_values()[0], mx.concatenate([keys[1:, :, :2]] * 2))
