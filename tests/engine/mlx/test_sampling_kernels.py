"""The kernels that draw tokens, by the emulator and on a GPU, against the sampler in plain operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import emulator
import mlx.core as mx
import numpy as np
import pytest
from emulator import PLACES, Text
from engine_calls import complete, same_likelihoods
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampling_params import params

from engine.api import GenerationRequest, Message, SamplingParams
from engine.mlx.engine import MLXEngine
from engine.mlx.kernels import launch, sampling
from engine.mlx.kernels.sampling import KernelSampler
from engine.mlx.plain_sampler import Draw, PlainSampler
from engine.mlx.sampler import BatchSampler, kernel_trouble, slow_sampling

VOCABS = (7, 4201)
"""Less than a warp, and more than a slice of a row; odd, so that the last pair of tokens is half a one."""

normal = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 2.0, 6.0]))


def logits_of(seed: int, spread: float, rows: int, vocab: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (rows, vocab)).astype(np.float32)


@contextmanager
def not_compiled() -> Iterator[None]:
    """The emulator needs values, of which there are none while MLX traces a function."""
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()


class Pair:
    """Both ways to draw."""

    def __init__(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backwards = False
        self._place = place
        self._monkeypatch = monkeypatch
        if place == "gpu":
            emulator.use(place, monkeypatch)

    def kernels(self, rows: Sequence[SamplingParams], logits: Any, draws: Sequence[int], **asked: bool) -> Draw:
        with self._monkeypatch.context() as patch, not_compiled():
            patch.setattr(launch, "wanted", lambda: True)
            if self._place != "gpu":
                text: Text = "cuda" if self._place == "cuda" else "metal"
                patch.setattr(launch.Kernel, "__call__", emulator.call(text, backwards=self.backwards))
            sampler = BatchSampler(rows)
            assert isinstance(sampler._sampler, KernelSampler), (kernel_trouble(False), kernel_trouble(True))
            return sampler(mx.array(logits), draws, **asked)

    def plain(self, rows: Sequence[SamplingParams], logits: Any, draws: Sequence[int], **asked: bool) -> Draw:
        with self._monkeypatch.context() as patch:
            patch.setattr(launch, "wanted", lambda: False)
            return BatchSampler(rows)(mx.array(logits), draws, **asked)

    def agree(self, rows: Sequence[SamplingParams], logits: Any) -> None:
        draws = [7 * i for i in range(len(rows))]
        assert self.kernels(rows, logits, draws).tokens.tolist() == self.plain(rows, logits, draws).tokens.tolist()


@pytest.fixture(params=PLACES)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    return Pair(request.param, monkeypatch)


def kept_fixture(test: Callable[..., None]) -> Callable[..., None]:
    """Hypothesis with few examples: `pair` has no state that one could leave to the next."""
    return settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])(test)


@kept_fixture
@given(rows=st.lists(params, min_size=1, max_size=5), drawn=normal, vocab=st.sampled_from(VOCABS))
def test_the_kernels_draw_what_plain_operations_draw(
    pair: Pair, rows: list[SamplingParams], drawn: tuple[int, float], vocab: int
) -> None:
    pair.agree(rows, logits_of(*drawn, len(rows), vocab))


@kept_fixture
@given(rows=st.lists(params, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_equal_logits_are_within_or_without_together(pair: Pair, rows: list[SamplingParams], seed: int) -> None:
    """Also: where probabilities are 0 in float32, and where tokens are masked."""
    values = np.array([-np.inf, -200.0, 0.0, 0.5, 1.0], np.float32)
    logits = np.random.default_rng(seed).choice(values, (len(rows), VOCABS[1]), p=[0.2, 0.2, 0.4, 0.1, 0.1])
    pair.agree(rows, logits)


@kept_fixture
@given(rows=st.lists(params, min_size=1, max_size=5), drawn=normal)
def test_logits_in_bfloat16_are_drawn_from_as_they_are(
    pair: Pair, rows: list[SamplingParams], drawn: tuple[int, float]
) -> None:
    pair.agree(rows, mx.array(logits_of(*drawn, len(rows), VOCABS[1])).astype(mx.bfloat16))


MIXED = [
    SamplingParams(seed=1),
    SamplingParams(seed=2, top_p=0.9),
    SamplingParams(seed=3, top_k=30, top_p=0.7, temperature=0.6),
    SamplingParams(seed=4, temperature=0.0),
    SamplingParams(seed=5, min_p=0.1, top_k=9999),
]


def test_a_row_draws_alone_what_it_draws_in_a_batch(pair: Pair) -> None:
    logits = logits_of(0, 2.0, len(MIXED), VOCABS[1])
    together = pair.kernels(MIXED, logits, [3] * 5).tokens.tolist()
    assert together == [pair.kernels([row], logits[i : i + 1], [3]).tokens.item() for i, row in enumerate(MIXED)]


def test_the_order_of_threads_and_blocks_is_nothing(pair: Pair) -> None:
    logits = logits_of(1, 0.5, len(MIXED), VOCABS[1])
    forwards = pair.kernels(MIXED, logits, [4] * 5, likelihoods=True)
    pair.backwards = True
    backwards = pair.kernels(MIXED, logits, [4] * 5, likelihoods=True)
    assert all(mx.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_a_row_that_is_not_finite_is_told_and_disturbs_no_other(pair: Pair) -> None:
    rows = [SamplingParams(seed=i, top_p=0.9, top_k=50 * (i % 2)) for i in range(6)]
    clean = logits_of(2, 2.0, 6, VOCABS[1])
    spoilt = clean.copy()
    spoilt[0, 4000] = np.nan
    spoilt[1, 5] = np.inf
    spoilt[2] = -np.inf
    spoilt[3, 0] = -np.inf
    draw, plain = (how(rows, spoilt, [0] * 6) for how in (pair.kernels, pair.plain))
    assert draw.finite.tolist() == plain.finite.tolist() == [False, False, False, True, True, True]
    assert all(0 <= token < VOCABS[1] for token in draw.tokens.tolist())
    assert draw.tokens.tolist()[4:] == pair.kernels(rows, clean, [0] * 6).tokens.tolist()[4:]


@kept_fixture
@given(
    rows=st.lists(params, min_size=1, max_size=5),
    drawn=normal,
    vocab=st.sampled_from(VOCABS),
    masked=st.booleans(),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
)
def test_likelihoods_are_those_of_the_model(
    pair: Pair, rows: list[SamplingParams], drawn: tuple[int, float], vocab: int, masked: bool, dtype: mx.Dtype
) -> None:
    """Whatever the rows' settings are; masked: none but five tokens may be drawn."""
    values = logits_of(*drawn, len(rows), vocab)
    if masked:
        values[:, 2 : vocab - 3] = -np.inf
    logits = mx.array(values).astype(dtype)
    draw, plain = (how(rows, logits, [1] * len(rows), likelihoods=True) for how in (pair.kernels, pair.plain))
    assert draw.tokens.tolist() == plain.tokens.tolist()
    exact = np.array(logits.astype(mx.float32)).astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    expected = np.sum(np.exp(exact) * np.maximum(exact, -1e9), axis=-1)
    wanted = np.stack([exact[np.arange(len(rows)), draw.tokens.tolist()], expected], axis=-1)
    np.testing.assert_allclose(np.array(draw.likelihoods), wanted, atol=2e-5)
    np.testing.assert_allclose(np.array(plain.likelihoods), wanted, atol=2e-5)
    assert pair.kernels(rows, logits, [1] * len(rows)).likelihoods is None


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels are wanted, and nobody knows yet whether they run."""
    monkeypatch.setattr(launch, "wanted", lambda: True)
    kernel_trouble.cache_clear()
    with not_compiled():
        yield
    kernel_trouble.cache_clear()


@pytest.mark.usefixtures("unchecked")
def test_kernels_that_do_not_compile_leave_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> list[mx.array]:
        raise RuntimeError("Failed to compile kernel: what the compiler says\nat length")

    monkeypatch.setattr(launch.Kernel, "__call__", fails)
    assert slow_sampling() == (
        "sampling is slower than it could be: kernels of our own do not run here "
        "(Failed to compile kernel: what the compiler says)",
    )
    rows = [SamplingParams(top_p=0.5)]
    assert BatchSampler(rows)(mx.array([[0.0, 9.0]]), [0]).tokens.tolist() == [1]


@pytest.mark.parametrize(
    ("place", "says"), [(0, "they draw other tokens"), (2, "they take tokens for more or less likely")]
)
@pytest.mark.usefixtures("unchecked")
def test_kernels_that_differ_leave_the_plain_path(monkeypatch: pytest.MonkeyPatch, place: int, says: str) -> None:
    right = emulator.call("cuda")

    def wrong(kernel: launch.Kernel, *inputs: mx.array, **how: Any) -> list[mx.array]:
        made = right(kernel, *inputs, **how)
        return [*made[:place], made[place] + 1, *made[place + 1 :]] if "drawn" in kernel.outputs else made

    monkeypatch.setattr(launch.Kernel, "__call__", wrong)
    assert kernel_trouble(both=True) == kernel_trouble(both=False) == says
    assert isinstance(BatchSampler([])._sampler, PlainSampler)


def test_without_room_for_all_records_the_last_is_the_likeliest_token(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tokens that are nearly equal, rows of 4,201 have some nine records each; the likeliest is always allowed."""
    monkeypatch.setattr(sampling, "_MOST", 2)
    rows = [SamplingParams(seed=i, top_k=1) for i in range(12)]
    logits = logits_of(4, 1e-3, len(rows), VOCABS[1])
    assert pair.kernels(rows, logits, [0] * len(rows)).tokens.tolist() == logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("held", [1, 8])
def test_more_records_than_threads_hold_are_looked_through(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(sampling, "_HELD", held)
    monkeypatch.setattr(sampling, "_THREADS", 64)  # so that a small vocabulary has many slices
    pair.agree([SamplingParams(temperature=0.7, top_p=0.9), SamplingParams()], logits_of(5, 2.0, 2, 20011))


@pytest.mark.anyio
async def test_an_engine_writes_with_kernels_what_it_writes_without(
    llama: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of all settings that join and leave."""
    requests = [
        GenerationRequest(
            id=f"r{i}",
            messages=(Message(role="user", text="Hello" * (1 + i % 2)),),
            sampling=row.model_copy(update={"max_tokens": 5 + 2 * i}),
            likelihoods=i != 1,
        )
        for i, row in enumerate(MIXED)
    ]
    plain = await complete(llama, requests)
    launches = 0
    launched = emulator.call("cuda")

    def run(kernel: launch.Kernel, *inputs: mx.array, **how: Any) -> list[mx.array]:
        nonlocal launches
        launches += 1
        return launched(kernel, *inputs, **how)

    monkeypatch.setattr(launch, "wanted", lambda: True)
    monkeypatch.setattr(launch.Kernel, "__call__", run)
    with not_compiled():
        found = await complete(llama, requests)
    assert [completion.token_ids for completion in found] == [completion.token_ids for completion in plain]
    assert all(same_likelihoods(a, b) for a, b in zip(found, plain, strict=True))
    assert launches > 40
