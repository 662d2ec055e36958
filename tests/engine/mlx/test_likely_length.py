"""Rows run where their likely length fits, and what was taken too lightly is made good: the youngest waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import Driver, tiny, tokens

from engine.api import Failure
from engine.backend import MEMORY_SHARE
from engine.errors import OutOfMemoryError
from engine.families.zaya.cache import CCACache
from engine.mlx import memory
from engine.mlx.memory import CacheCost, LikelyLength
from engine.mlx.model import StepWeights
from engine.mlx.scheduler import Scheduler

END_IDS = (7, 60)
BUDGET = 60
PROMPTS = [[i, *range(70, 70 + 5 * i % 17), 9] for i in (1, 2, 2, 3, 4, 4)]


# ---- what is likely


@given(
    before=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000))),
    prompt=st.integers(0, 20_000),
    written=st.integers(0, 5000),
    budget=st.integers(1, 5000),
)
def test_a_likely_length_is_a_possible_one(
    before: list[tuple[int, int]], prompt: int, written: int, budget: int
) -> None:
    likely = LikelyLength()
    for tokens_, budget_ in before:
        likely.learn(min(tokens_, budget_), budget_)
    written = min(written, budget - 1)
    assert prompt + written < likely.of(prompt, written, budget) <= prompt + budget


def test_it_follows_what_rows_use() -> None:
    likely = LikelyLength()
    assert likely.of(1000, 0, 40_000) == 1000 + 10_000
    for _ in range(100):
        likely.learn(30_000, 40_000)
    assert likely.of(1000, 0, 40_000) == pytest.approx(31_000, rel=0.01)
    assert likely.of(1000, 35_000, 40_000) == 36_000 * 9 // 8 + 256  # it has outgrown the others
    assert likely.of(1000, 37_000, 40_000) == 41_000


@given(
    lengths=st.lists(st.integers(1, 10_000), max_size=6),
    ragged=st.booleans(),
    nbytes=st.integers(0, 10**6),
)
def test_rows_fit_if_their_cost_does(lengths: list[int], ragged: bool, nbytes: int) -> None:
    cost = CacheCost(lambda tokens_: 7 + 3 * tokens_, ragged)
    assert cost.fit(lengths, nbytes) == (cost.of_rows(lengths) <= nbytes)
    assert CacheCost(cost.cache_bytes, True).of_rows(lengths) <= CacheCost(cost.cache_bytes).of_rows(lengths)


# ---- what comes of it


@pytest.fixture(scope="module")
def small_steps() -> Iterator[None]:
    """Caches grow by four tokens, so that rows of a few dozen show what long ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_ROOM_TOKENS", 4)
        patch.setattr(CCACache, "step", 4)
        yield


@cache
def roomy() -> tuple[tuple[int, ...], ...]:
    driver = Driver(tiny(), end_ids=END_IDS)
    driver.submit(PROMPTS, max_tokens=BUDGET)
    return tuple(tokens(driver.run()))


class Watch:
    """Looks on after each step: bytes that the caches of the rows take, and rows that were sent back."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._running: set[int] = set()
        self._going: set[int] = set()
        self.most_bytes = self.most_rows = 0
        self.sent_back: list[int] = []

    def __call__(self, scheduler: Scheduler) -> None:
        self.most_bytes = max(self.most_bytes, scheduler._batch.nbytes)
        self.most_rows = max(self.most_rows, len(scheduler._batch.rows))
        going = {row.number for row in self._driver.rows if row.finish_reason is None}
        running = {row.number for row in scheduler._batch.rows}
        left = sorted(self._running & going - running)
        assert not left or min(left) > min(self._going), "the oldest was sent back"
        self.sent_back += left
        self._running, self._going = running, going


@settings(max_examples=10)
@given(room=st.floats(0, 1), rows=st.integers(2, 6))
@pytest.mark.usefixtures("small_steps")
def test_no_budget_changes_a_token(room: float, rows: int) -> None:
    """Whatever there is room for, from one row at its longest to all: everyone says what it says with all the room,
    the caches never take more than there is, and the oldest row goes on."""
    cost = CacheCost.of(tiny())
    lengths = [len(prompt) + BUDGET for prompt in PROMPTS[:rows]]
    least = cost.of_rows([max(lengths)])
    kv_bytes = int(least + room * (cost.of_rows(lengths) - least))
    driver = Driver(tiny(), kv_bytes=kv_bytes, end_ids=END_IDS, prefill_chunk=16)
    driver.submit(PROMPTS[:rows], max_tokens=BUDGET)
    watch = Watch(driver)
    assert tokens(driver.run(watch)) == list(roomy())[:rows]
    assert all(driver.shown(row.number) == row.completion().token_ids for row in driver.rows)
    assert watch.most_bytes <= kv_bytes


@pytest.mark.usefixtures("small_steps")
def test_rows_that_become_longer_than_they_were_taken_for_wait_and_go_on() -> None:
    """Nothing ends these rows but their budget, of which a quarter was thought likely at first."""
    cost = CacheCost.of(tiny())
    kv_bytes = cost.of_rows([len(prompt) + BUDGET // 3 for prompt in PROMPTS])
    assert not cost.fit([BUDGET] * (len(PROMPTS) - 1), kv_bytes)
    expected = Driver(tiny())
    expected.submit(PROMPTS, max_tokens=BUDGET)
    driver = Driver(tiny(), kv_bytes=kv_bytes)
    driver.submit(PROMPTS, max_tokens=BUDGET)
    watch = Watch(driver)
    assert tokens(driver.run(watch)) == tokens(expected.run())
    assert watch.most_rows == len(PROMPTS)
    assert 2 <= len(watch.sent_back) <= 3 * len(PROMPTS)
    assert watch.most_bytes <= kv_bytes


@pytest.mark.usefixtures("small_steps")
def test_a_row_that_cannot_fit_alone_is_refused_at_once() -> None:
    driver = Driver(tiny(), kv_bytes=CacheCost.of(tiny()).of_rows([50]))
    driver.submit([[1, 2, 3]], max_tokens=48)
    driver.submit([[1, 2, 3]], max_tokens=47)
    refused, fits = driver.run()
    assert isinstance(refused, Failure)
    assert isinstance(refused.error, OutOfMemoryError)
    assert str(refused.error).startswith("one completion of 51 tokens needs")
    assert len(tokens([fits])[0]) == 47


# ---- sizes of real runs


class Script:
    """A model whose rows write as many tokens as they are told, and cost what ZAYA1-8B's cost in bfloat16.

    A prompt begins with the number of its row. Nothing is computed.

    scale  tokens of the real run for one of this.
    """

    max_rows: int | None = None
    notes: tuple[str, ...] = ()
    takes_padding = ragged = False
    vocab_size: int | None = 2
    weight_bytes = 10**10
    step_weights = StepWeights(10**10)

    def __init__(self, prompt: int, lengths: Sequence[int], scale: int) -> None:
        self._prompt, self._lengths, self._scale = prompt, lengths, scale

    def cache_bytes(self, tokens: int) -> int:
        return 40_960 * self._scale * tokens

    def make_cache(self, rows: int = 1) -> list[ScriptedCache]:
        return [ScriptedCache(self, [-1], [0])]

    def copy_cache(self, caches: Sequence[ScriptedCache]) -> None:
        return None

    def batch_cache(self, caches: Sequence[ScriptedCache], places: Sequence[int]) -> list[ScriptedCache]:
        (one,) = caches
        return [ScriptedCache(self, [one.names[place] for place in places], [one.fed[place] for place in places])]

    def __call__(self, inputs: mx.array, cache: Sequence[ScriptedCache]) -> mx.array:
        (rows,) = cache
        if rows.names == [-1]:
            rows.names = [int(inputs[0, 0].item())]
        rows.fed = [fed + inputs.shape[1] for fed in rows.fed]
        ends = [fed >= self._prompt + self._lengths[name] - 1 for name, fed in zip(rows.names, rows.fed, strict=True)]
        return mx.array([[[float(not end), float(end)]] for end in ends])


class ScriptedCache:
    """Counts the tokens of its rows."""

    state: tuple[mx.array, ...] = ()

    def __init__(self, model: Script, names: list[int], fed: list[int]) -> None:
        self._model, self.names, self.fed = model, names, fed

    @property
    def nbytes(self) -> int:
        return len(self.names) * self._model.cache_bytes(max(self.fed, default=0))

    def extend(self, other: ScriptedCache) -> None:
        self.names, self.fed = self.names + other.names, self.fed + other.fed

    def filter(self, batch_indices: Sequence[int]) -> None:
        self.names, self.fed = [self.names[i] for i in batch_indices], [self.fed[i] for i in batch_indices]


SCALE = 16
PAPER_16K_PROMPT = 16_600
"""A problem and four tails of 4K."""
PAPER_16K_BUDGET = 16_384 + 40_960


def mac_bytes(gigabytes: int) -> int:
    """For caches: of the three quarters that the GPU may use, less ZAYA1-8B's weights, MEMORY_SHARE."""
    return int(MEMORY_SHARE * (0.75e9 * gigabytes - 17.8e9))


# As RSA candidates of paper-16k are: 9.5K on average, most far below their budget.
LENGTHS = [
    2100, 3000, 4200, 5100, 6000, 6800, 7500, 8200, 9000, 10_000, 11_000, 12_500, 14_000, 16_000, 17_500, 20_000,
]  # fmt: skip


def scripted(lengths: Sequence[int], kv_bytes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, int]:
    """Run rows of such lengths, of real tokens, in so much memory; what was seen, and steps."""
    monkeypatch.setattr(memory, "_ROOM_TOKENS", 256 // SCALE)
    prompt = PAPER_16K_PROMPT // SCALE
    scripts = [length // SCALE for length in lengths]
    driver = Driver(Script(prompt, scripts, SCALE), kv_bytes=kv_bytes, prefill_chunk=4096 // SCALE, end_ids=(1,))
    driver.submit(
        [[i, *[0] * (prompt - 1)] for i in range(len(scripts))],
        max_tokens=PAPER_16K_BUDGET // SCALE,
        temperature=0.0,
    )
    watch, steps = Watch(driver), 0

    def look(scheduler: Scheduler) -> None:
        nonlocal steps
        steps += 1
        watch(scheduler)

    assert [len(each) for each in tokens(driver.run(look))] == scripts
    assert watch.most_bytes <= kv_bytes
    return watch, steps


def test_sixteen_rows_of_paper_16k_run_in_the_memory_of_a_64_gb_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the longest possible completions of seven fit. All run at once, none is sent back, and the round is over
    as soon as its longest candidate is, the reading of the prompts apart."""
    assert longest_that_fit(mac_bytes(64)) == 7
    watch, steps = scripted(LENGTHS, mac_bytes(64), monkeypatch)
    assert watch.most_rows == 16
    assert watch.sent_back == []
    chunks = -(-PAPER_16K_PROMPT // 4096)
    assert steps <= max(LENGTHS) // SCALE + 16 * chunks + 2


def test_five_rows_run_where_the_longest_completions_of_two_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert longest_that_fit(mac_bytes(36)) == 2
    watch, _ = scripted(LENGTHS, mac_bytes(36), monkeypatch)
    assert watch.most_rows == 5


def longest_that_fit(kv_bytes: int) -> int:
    """Rows of paper-16k that fit at their longest."""
    real = CacheCost(lambda tokens_: 40_960 * tokens_)
    return sum(real.fit([PAPER_16K_PROMPT + PAPER_16K_BUDGET] * rows, kv_bytes) for rows in range(1, 17))


def test_candidates_that_all_become_long_are_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as long as was likely: rows are sent back, some of them twice, and all come to their end."""
    watch, _ = scripted([40_000 + 100 * i for i in range(16)], mac_bytes(64), monkeypatch)
    assert watch.most_rows == 16
    assert 6 <= len(watch.sent_back) <= 32
