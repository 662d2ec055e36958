"""The batched sampler against a plain reference, and the independence of its rows."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_params import params

from engine.api import SamplingParams
from engine.mlx import plain_sampler
from engine.mlx.plain_sampler import COLDEST, _Filters, least_of_nucleus
from engine.mlx.sampler import BatchSampler, noise_keys


def allowed_tokens(logits: np.ndarray, params: SamplingParams, slack: float = 1e-5) -> set[int]:
    """The tokens that may be drawn, worked out in float64, with bounds moved by so much that rounding cannot matter."""
    scaled = (logits * np.float32(1 / max(params.temperature, COLDEST))).astype(np.float64)
    p = np.exp(scaled - scaled.max())
    falling = np.sort(p)[::-1]
    kept = falling[: params.top_k or None]
    last = np.sort(scaled)[::-1][len(kept) - 1]
    before = np.append(0.0, np.cumsum(falling))[np.searchsorted(-falling, -p, side="left")]  # mass of what is likelier
    allowed = (scaled >= last) & (p >= params.min_p * (1 - slack))
    if params.top_p < 1:
        allowed &= before < (params.top_p + slack) * kept.sum()
    return {*np.flatnonzero(allowed).tolist(), int(p.argmax())}


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(params, min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_draws_only_what_the_filters_allow(rows: list[SamplingParams], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (len(rows), 64)).astype(np.float32)
    sampler = BatchSampler(rows)
    allowed = [allowed_tokens(row, p) for row, p in zip(logits, rows, strict=True)]
    for draw in range(5):
        for token, may in zip(sampler(mx.array(logits), [draw] * len(rows)).tokens.tolist(), allowed, strict=True):
            assert token in may


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(params, min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1), draw=st.integers(0, 10**6))
def test_a_row_draws_alone_what_it_draws_in_a_batch(rows: list[SamplingParams], seed: int, draw: int) -> None:
    logits = mx.array(np.random.default_rng(seed).normal(0, 2, (len(rows), 64)).astype(np.float32))
    together = BatchSampler(rows)(logits, [draw + i for i in range(len(rows))]).tokens.tolist()
    alone = [BatchSampler([row])(logits[i : i + 1], [draw + i]).tokens.item() for i, row in enumerate(rows)]
    assert together == alone


@settings(max_examples=60)
@given(
    rows=st.lists(params, min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.1, 2.0, 6.0]),  # of nearly flat logits, nuclei are wide
    vocab=st.sampled_from([5, 64, 1001, 4099]),
)
def test_what_may_be_drawn_is_neither_more_nor_less_than_the_filters_say(
    rows: list[SamplingParams], seed: int, spread: float, vocab: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, (len(rows), vocab)).astype(np.float32)
    sharpness = np.array([[1 / max(row.temperature, COLDEST)] for row in rows], np.float32)
    allowed = np.array(_Filters(rows).allowed(mx.array(logits * sharpness)))
    for found, row, p in zip(allowed, logits, rows, strict=True):
        least, most = allowed_tokens(row, p, slack=-1e-5), allowed_tokens(row, p, slack=1e-5)
        assert least <= set(np.flatnonzero(found).tolist()) <= most


@given(
    values=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=70), min_size=1, max_size=4),
    share=st.floats(0.01, 1.0),
    sorted_tokens=st.sampled_from([1, 2, 5, 100]),
)
def test_halving_finds_the_edge_that_a_sort_finds(values: list[list[int]], share: float, sorted_tokens: int) -> None:
    """Masses are whole numbers, of which there are ties and no rounding."""
    longest = max(map(len, values))
    mass = np.array([row + [0] * (longest - len(row)) for row in values], np.float32)
    target = np.ceil(mass.sum(axis=1, keepdims=True) * share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_sampler, "_SORTED", sorted_tokens)
        found = least_of_nucleus(mx.array(mass), mx.array(target)).tolist()
    for row, aim, (edge,) in zip(mass, target[:, 0], found, strict=True):
        before = {value: row[row > value].sum() for value in row}
        assert edge == min((value for value in row if before[value] < aim), default=row.max())


@pytest.mark.parametrize("row", [{}, {"top_p": 0.9}, {"top_k": 9}, {"top_k": 9, "top_p": 0.9}, {"min_p": 0.1}], ids=str)
@pytest.mark.parametrize("vocab", [50, 5000])
def test_a_draw_is_put_together_without_waiting_for_logits(row: dict[str, float], vocab: int) -> None:
    """MLX refuses to evaluate anything while it traces a function."""
    sampler = BatchSampler([SamplingParams(**row)] * 2)
    traced = mx.compile(lambda logits: sampler(logits, [0, 0], likelihoods=True))
    traced(mx.zeros((2, vocab)))
    with pytest.raises(ValueError, match="eval an array during function transformations"):
        mx.compile(lambda logits: mx.max(logits).item() * logits)(mx.zeros((2, vocab)))


def test_temperature_zero_is_greedy_beside_a_row_that_is_not() -> None:
    logits = mx.array(np.random.default_rng(0).normal(0, 1, (2, 100)).astype(np.float32))
    sampler = BatchSampler([SamplingParams(temperature=0.0), SamplingParams(temperature=1.0)])
    assert {sampler(logits, [i, i]).tokens.tolist()[0] for i in range(20)} == {int(mx.argmax(logits[0]).item())}


def test_draws_follow_the_distribution() -> None:
    """20,000 draws of three tokens: each share within 5 standard errors (false alarm: about one in a million)."""
    probabilities = np.array([0.6, 0.3, 0.1])
    rows, draws = 200, 100
    sampler = BatchSampler([SamplingParams(seed=i) for i in range(rows)])
    logits = mx.broadcast_to(mx.log(mx.array(probabilities.astype(np.float32))), (rows, 3))
    counts = sum(np.bincount(np.array(sampler(logits, [i] * rows).tokens), minlength=3) for i in range(draws))
    for count, p in zip(counts, probabilities, strict=True):
        assert abs(count - p * rows * draws) < 5 * math.sqrt(p * (1 - p) * rows * draws)


def test_noise_keys_do_not_collide() -> None:
    keys = [tuple(key) for draw in range(100) for key in noise_keys(np.arange(100, dtype=np.uint64), [draw] * 100)]
    assert len(set(keys)) == 10_000


def test_noise_keys_are_the_outputs_of_splitmix64() -> None:
    """As published with the generator, for the seed 1234567; and at the end of the range of seeds."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    keys = noise_keys(np.full(5, 1234567, dtype=np.uint64), range(5))
    assert [int(upper) << 32 | int(lower) for upper, lower in keys] == outputs
    seeds = np.array([2**64 - 1], dtype=np.uint64)
    assert noise_keys(seeds, [2**40]).tolist() == [[*divmod(splitmix64(2**64 - 1, 2**40), 2**32)]]


def splitmix64(seed: int, draw: int) -> int:
    """In whole numbers of any size."""
    z = (seed + (draw + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31
