"""The batched sampler against a plain reference, and the independence of its rows."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.mlx.sampler as sampler_module
from engine.api import SamplingParams
from engine.mlx.sampler import BatchSampler, noise_key


def allowed_tokens(logits: np.ndarray, params: SamplingParams) -> set[int]:
    """The tokens that may be drawn, worked out one at a time in float64."""
    scaled = logits.astype(np.float64) / max(params.temperature, 1e-5)
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: params.top_k] if params.top_k else order
    total = p[kept].sum() if params.top_k else 1.0
    nucleus: list[int] = []
    mass = 0.0
    for token in kept:
        if nucleus and params.top_p < 1 and mass >= params.top_p * total:
            break
        nucleus.append(int(token))
        mass += p[token]
    return {t for t in nucleus if p[t] >= params.min_p * p.max()}


params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 40]),
    min_p=st.sampled_from([0.0, 0.02, 0.3]),
    seed=st.integers(0, 2**64 - 1),
)


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


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.999999])
@pytest.mark.parametrize("spread", [0.1, 4.0])  # nearly flat: the nucleus is wider than the head; peaked: narrower
def test_a_large_vocabulary_has_the_same_nucleus(top_p: float, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SamplingParams(top_p=top_p, seed=i) for i in range(3)]
    logits = mx.array(np.random.default_rng(3).normal(0, spread, (3, 5000)).astype(np.float32))
    full = BatchSampler(rows)._thresholds(logits)
    monkeypatch.setattr(sampler_module, "_HEAD_TOKENS", 64)
    assert mx.array_equal(BatchSampler(rows)._thresholds(logits), full)


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
    assert len({noise_key(seed, draw) for seed in range(100) for draw in range(100)}) == 10_000
