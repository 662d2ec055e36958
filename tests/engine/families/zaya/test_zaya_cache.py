"""However the tokens reach the model, each row's logits are those it has alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.families.zaya import CCACache, Model

TOLERANCE = 1e-4  # on logits up to 27; sums in another order move them by about 1e-5

Alone = Callable[[Sequence[int]], np.ndarray]
Prefilled = Callable[[Sequence[int]], list[CCACache]]

tokens_of = st.lists(st.integers(0, 127), min_size=1, max_size=9)
chunk_lengths = st.lists(st.integers(1, 6), min_size=20, max_size=20)
quick = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def run(model: Model, tokens: mx.array, caches: list[CCACache], chunks: Sequence[int]) -> np.ndarray:
    """Logits [B, L, V] of tokens [B, L] fed in chunks of these lengths."""
    parts, start = [], 0
    for length in chunks:
        if start < tokens.shape[1]:
            parts.append(np.array(model(tokens[:, start : start + length], caches)))
            start += length
    return np.concatenate(parts, axis=1)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


# ---- one row ---------------------------------------------------------------------------------------------------


@quick
@given(tokens=st.lists(st.integers(0, 127), min_size=20, max_size=20), chunks=chunk_lengths)
def test_any_chunking_equals_one_pass(tiny: Model, logits_alone: Alone, tokens: list[int], chunks: list[int]) -> None:
    close(run(tiny, mx.array([tokens]), tiny.make_cache(), chunks)[0], logits_alone(tokens))


def test_token_by_token_equals_one_pass(tiny: Model, logits_alone: Alone) -> None:
    tokens = [(7 * i * i + 3) % 128 for i in range(30)]
    close(run(tiny, mx.array([tokens]), tiny.make_cache(), [1] * 30)[0], logits_alone(tokens))


def test_no_cache_equals_an_empty_cache(tiny: Model, logits_alone: Alone) -> None:
    close(np.array(tiny(mx.array([[1, 2, 3]])))[0], logits_alone([1, 2, 3]))


# ---- padding ---------------------------------------------------------------------------------------------------


@quick
@given(rows=st.lists(tokens_of, min_size=2, max_size=4), chunks=chunk_lengths)
def test_left_padded_rows(tiny: Model, logits_alone: Alone, rows: list[list[int]], chunks: list[int]) -> None:
    """Whatever token stands in the padding, and also where a chunk is one token, or all padding for some row."""
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    caches = tiny.make_cache()
    for cache in caches:
        cache.prepare(left_padding=padding)
    tokens = mx.array([[99] * pad + row for pad, row in zip(padding, rows, strict=True)])
    logits = run(tiny, tokens, caches, chunks)
    for i, row in enumerate(rows):
        close(logits[i, padding[i] :], logits_alone(row))


@quick
@given(rows=st.lists(tokens_of, min_size=2, max_size=4), more=tokens_of, chunks=chunk_lengths)
def test_right_padded_rows(
    tiny: Model, logits_alone: Alone, rows: list[list[int]], more: list[int], chunks: list[int]
) -> None:
    """Also what the rows write after the padding was rolled away."""
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    caches = tiny.make_cache()
    for cache in caches:
        cache.prepare(lengths=[len(row) for row in rows], right_padding=padding)
    tokens = mx.array([row + [99] * pad for pad, row in zip(padding, rows, strict=True)])
    logits = run(tiny, tokens, caches, chunks)
    for cache in caches:
        cache.finalize()
    after = run(tiny, mx.array([more] * len(rows)), caches, chunks)
    for i, row in enumerate(rows):
        close(logits[i, : len(row)], logits_alone(row))
        close(after[i], logits_alone(row + more)[len(row) :])


def test_right_padding_of_rows_with_a_past(tiny: Model, logits_alone: Alone, prefilled: Prefilled) -> None:
    pasts, presents = [[1, 2, 3, 4, 5], [6, 7], [8]], [[10], [11, 12, 13], [14, 15]]
    caches = [CCACache.merge(layers) for layers in zip(*map(prefilled, pasts), strict=True)]
    for cache in caches:
        cache.prepare(lengths=[1, 3, 2], right_padding=[2, 0, 1])
    tiny(mx.array([[10, 0, 0], [11, 12, 13], [14, 15, 0]]), caches)
    for cache in caches:
        cache.finalize()
    logits = np.array(tiny(mx.array([[50]] * 3), caches))
    for i in range(3):
        close(logits[i, 0], logits_alone([*pasts[i], *presents[i], 50])[-1])


# ---- rows that come and go -------------------------------------------------------------------------------------


class Batch:
    """A batch of rows and, beside the caches, the tokens that each row has seen."""

    def __init__(self, model: Model, prefilled: Prefilled, rows: list[list[int]]) -> None:
        self.model, self.prefilled = model, prefilled
        self.rows = [list(row) for row in rows]
        self.caches = [CCACache.merge(layers) for layers in zip(*map(prefilled, rows), strict=True)]

    def decode(self, token: int) -> np.ndarray:
        tokens = [(token + 17 * i) % 128 for i in range(len(self.rows))]
        for row, t in zip(self.rows, tokens, strict=True):
            row.append(t)
        return np.array(self.model(mx.array(tokens)[:, None], self.caches)[:, 0])

    def extend(self, row: list[int]) -> None:
        self.rows.append(list(row))
        for cache, other in zip(self.caches, self.prefilled(row), strict=True):
            cache.extend(other)

    def filter(self, kept: list[int]) -> None:
        self.rows = [self.rows[i] for i in kept]
        for cache in self.caches:
            cache.filter(kept)

    def repeat(self) -> None:
        self.rows = [list(row) for row in self.rows for _ in range(2)]
        self.caches = [cache.repeat(2) for cache in self.caches]

    def rebuild(self) -> None:
        """Take the rows apart and put them together again, in reverse."""
        self.rows.reverse()
        count = len(self.rows)
        self.caches = [CCACache.merge([cache.extract(i) for i in reversed(range(count))]) for cache in self.caches]


OPERATIONS = st.one_of(
    st.tuples(st.just("decode"), st.integers(0, 127)),
    st.tuples(st.just("extend"), tokens_of),
    st.tuples(st.just("filter"), st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True)),
    st.tuples(st.just("repeat"), st.none()),
    st.tuples(st.just("rebuild"), st.none()),
)


@quick
@given(rows=st.lists(tokens_of, min_size=1, max_size=3), operations=st.lists(OPERATIONS, min_size=3, max_size=8))
def test_rows_that_come_and_go(
    tiny: Model,
    logits_alone: Alone,
    prefilled: Prefilled,
    rows: list[list[int]],
    operations: list[tuple[str, list[int] | int | None]],
) -> None:
    batch = Batch(tiny, prefilled, rows)
    for name, value in operations:
        if name == "filter" and isinstance(value, list):
            batch.filter([i for i in value if i < len(batch.rows)] or [0])
        elif name == "extend" and isinstance(value, list):
            batch.extend(value)
        elif name == "decode" and isinstance(value, int):
            batch.decode(value)
        elif name == "repeat" and len(batch.rows) <= 4:
            batch.repeat()
        elif name == "rebuild":
            batch.rebuild()
    logits = batch.decode(64)
    for row, actual in zip(batch.rows, logits, strict=True):
        close(actual, logits_alone(row)[-1])


def test_extract_gives_back_the_row_as_it_is_alone(prefilled: Prefilled) -> None:
    rows = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    alone = [prefilled(row) for row in rows]
    merged = [CCACache.merge(layers) for layers in zip(*alone, strict=True)]
    for i in range(3):
        for cache, original in zip(merged, alone[i], strict=True):
            row, single = cache.extract(i), original.extract(0)
            assert (row.size(), row.left_padding, row.offset) == (len(rows[i]), [0], len(rows[i]))
            for a, b in zip(row.state, single.state, strict=True):
                np.testing.assert_array_equal(np.array(a), np.array(b))


def test_copies_diverge_without_touching_the_original(tiny: Model, logits_alone: Alone, prefilled: Prefilled) -> None:
    prompt = [3, 1, 4, 1, 5]
    original = prefilled(prompt)
    copies = [cache.repeat(3) for cache in original]
    for step in ([10, 20, 30], [11, 21, 31]):
        logits = np.array(tiny(mx.array(step)[:, None], copies))
    for i, row in enumerate([[10, 11], [20, 21], [30, 31]]):
        close(logits[i, 0], logits_alone(prompt + row)[-1])
    close(np.array(tiny(mx.array([[9]]), original))[0, 0], logits_alone([*prompt, 9])[-1])


def test_a_deep_copy_is_independent(tiny: Model, logits_alone: Alone, prefilled: Prefilled) -> None:
    caches = prefilled([3, 1, 4])
    other = copy.deepcopy(caches)
    tiny(mx.array([[100]]), other)
    close(np.array(tiny(mx.array([[9]]), caches))[0, 0], logits_alone([3, 1, 4, 9])[-1])


def test_an_empty_cache_joins_and_is_joined(tiny: Model, logits_alone: Alone, prefilled: Prefilled) -> None:
    caches = [CCACache.merge([a, b]) for a, b in zip(tiny.make_cache(), prefilled([5, 6]), strict=True)]
    logits = np.array(tiny(mx.array([[7], [8]]), caches))
    close(logits[0, 0], logits_alone([7])[0])
    close(logits[1, 0], logits_alone([5, 6, 8])[-1])


# ---- masks, sizes, mistakes ------------------------------------------------------------------------------------


def test_there_is_no_mask_while_no_row_is_padded(prefilled: Prefilled) -> None:
    cache = CCACache.merge([prefilled([1, 2, 3])[0], prefilled([4, 5, 6])[0]])
    assert cache.make_mask(1) is None
    assert cache.make_mask(4) == "causal"
    assert cache.pad_mask(1) is None
    assert cache.offset == 3
    cache.extend(prefilled([7])[0])
    assert isinstance(cache.make_mask(1), mx.array)
    assert cache.pad_mask(1) is None  # its padding lies in the past
    assert cache.offset.tolist() == [3, 3, 1]
    cache.filter([0, 1])
    assert cache.make_mask(1) is None
    cache.extend(prefilled([8])[0])
    cache.filter([2])
    assert (cache.size(), cache.left_padding, cache.make_mask(1)) == (1, [0], None)


def test_the_mask_of_a_padded_batch() -> None:
    cache = CCACache([2, 0])
    mask = np.array(cache.make_mask(3))[:, 0].astype(int)
    causal = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    # Padding sees itself, so that no row of a softmax is empty; the first row's one token sees itself only.
    np.testing.assert_array_equal(mask, [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], causal])


def test_bytes_are_known_beforehand(tiny: Model, prefilled: Prefilled) -> None:
    caches = prefilled([1, 2, 3])
    assert sum(cache.nbytes for cache in caches) == tiny.cache_bytes(CCACache.step)
    assert tiny.cache_bytes(10) - tiny.cache_bytes(9) == 4 * 2 * 2 * 16 * 4  # layers x (k, v) x heads x dims x bytes


def test_state_lists_every_array(tiny: Model, prefilled: Prefilled) -> None:
    assert tiny.make_cache()[0].state == []
    for cache in prefilled([1, 2]):
        values = [x for value in vars(cache).values() for x in (value if isinstance(value, list) else [value])]
        arrays = [value for value in values if isinstance(value, mx.array)]
        assert len(cache.state) == len(arrays) == 4
        cache.state = [x + 0 for x in cache.state]
        assert not cache.empty()
        assert not cache.is_trimmable()
        assert cache.trim(1) == 0


def test_merging_references_to_one_cache_is_repeating_it(prefilled: Prefilled) -> None:
    cache = prefilled([1, 2, 3])[0]
    merged, repeated = CCACache.merge([cache] * 5), cache.repeat(5)
    assert merged.batch_size == repeated.batch_size == 5
    for a, b in zip(merged.state, repeated.state, strict=True):
        assert a.shape == b.shape


def test_repeating_a_row_costs_nothing_before_it_is_written(prefilled: Prefilled) -> None:
    caches = prefilled(list(range(100)) * 3)
    mx.eval([cache.state for cache in caches])
    before = mx.get_active_memory()
    copies = [cache.repeat(64) for cache in caches]
    mx.eval([cache.state for cache in copies])
    assert mx.get_active_memory() - before < 0.1 * sum(cache.nbytes for cache in copies)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda c: c.make_mask(1, window_size=4), "sliding window"),
        (lambda c: c.prepare(left_padding=[1]), "empty"),
        (lambda c: c.prepare(right_padding=[1]), "lengths"),
        (lambda c: c.update_and_fetch(mx.zeros((2, 2, 1, 16)), mx.zeros((2, 2, 1, 16))), "1 rows was given 2"),
        (lambda c: (c.prepare(lengths=[1], right_padding=[1]), c.repeat(2)), "finalize"),
        (lambda c: (c.prepare(lengths=[1], right_padding=[1]), c.extend(CCACache())), "finalize"),
    ],
)
def test_misuse_is_refused(prefilled: Prefilled, misuse: Callable[[CCACache], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misuse(prefilled([1, 2])[0])


# ---- long texts ------------------------------------------------------------------------------------------------


def test_a_step_writes_in_place(tiny: Model, prefilled: Prefilled, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 65,536 tokens a copy of one layer's keys would be 8 MB a row; a step needs a few KB."""
    monkeypatch.setattr(CCACache, "step", 1 << 16)
    caches = [cache.repeat(3) for cache in prefilled([1, 2, 3])]
    for cache, other in zip(caches, prefilled([4]), strict=True):
        cache.extend(other)
    for cache in caches:
        cache.filter([0, 3])
    tokens, extra = mx.array([1, 2]), []
    for _ in range(6):
        mx.reset_peak_memory()
        tokens = mx.argmax(tiny(tokens[:, None], caches)[:, -1], axis=-1)
        mx.async_eval(tokens, [cache.state for cache in caches])
        mx.eval(tokens)
        extra.append(mx.get_peak_memory() - mx.get_active_memory())
    assert caches[0].nbytes > 30_000_000
    assert max(extra[1:]) < 1_000_000  # the first step makes the rows' own copy, as filter left it lazy


def test_a_long_prompt_leaves_nothing_but_caches(tiny: Model) -> None:
    """The tail is two tokens' latents; as a view it would hold on to those of the whole prompt, 230 KB a layer."""
    caches = tiny.make_cache()
    before = mx.get_active_memory()
    tiny(mx.zeros((1, 512), mx.int32), caches)
    mx.eval([cache.state for cache in caches])
    assert mx.get_active_memory() - before < sum(cache.nbytes for cache in caches) + 50_000


def test_a_long_decode_keeps_memory_flat(tiny: Model) -> None:
    """600 steps: what is held is the caches and no more, so no graph grows with the text."""
    caches = tiny.make_cache()
    tokens = mx.array([1, 2])
    mx.eval(tiny(mx.zeros((2, 4), mx.int32), caches))
    before = mx.get_active_memory() - sum(cache.nbytes for cache in caches)
    beyond = []
    for step in range(600):
        tokens = mx.argmax(tiny(tokens[:, None], caches)[:, -1], axis=-1)
        mx.async_eval(tokens, [cache.state for cache in caches])
        if step % 100 == 99:
            mx.eval(tokens)
            beyond.append(mx.get_active_memory() - sum(cache.nbytes for cache in caches) - before)
    assert caches[0].size() == 604
    assert max(beyond) < 50_000
