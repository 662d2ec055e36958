"""Logits that are no numbers: the row fails and says so, and nobody else notices."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from engine_calls import complete
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.llama import Model as Llama

from engine.api import Completion, Failure, GenerationRequest, Message, SamplingParams, TokenChunk
from engine.errors import EngineError
from engine.mlx.engine import MLXEngine
from engine.mlx.sampler import BatchSampler

SAMPLING: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05},
]
BAD = st.sampled_from([math.nan, math.inf])


@given(
    rows=st.lists(st.sampled_from(SAMPLING), min_size=1, max_size=4),
    bad=st.dictionaries(st.integers(0, 3), st.lists(st.tuples(st.integers(0, 99), BAD), min_size=1, max_size=3)),
    masked=st.sets(st.integers(0, 98)),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
)
def test_a_draw_says_which_rows_hold_numbers(
    rows: list[dict[str, Any]], bad: dict[int, list[tuple[int, float]]], masked: set[int], dtype: mx.Dtype
) -> None:
    """-inf beside numbers is a token that may not be drawn, and no fault."""
    logits = np.random.default_rng(0).normal(0, 2, (len(rows), 100)).astype(np.float32)
    logits[:, sorted(masked)] = -math.inf
    for row in set(bad) & set(range(len(rows))):
        for place, value in bad[row]:
            logits[row, place] = value
    sampler = BatchSampler([SamplingParams(**row, seed=i) for i, row in enumerate(rows)])
    draw = sampler(mx.array(logits).astype(dtype), [0] * len(rows), likelihoods=True)
    sound = [row not in bad for row in range(len(rows))]
    assert draw.finite.tolist() == sound
    assert np.isfinite(np.array(draw.likelihoods)[sound]).all()


@pytest.mark.anyio
@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
@pytest.mark.parametrize("fault", ["nan", "inf", "nothing"])
async def test_the_row_fails_and_the_others_do_not_notice(
    llama: MLXEngine, monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any], fault: str
) -> None:
    requests = [
        GenerationRequest(
            id=f"r{i}",
            messages=(Message(role="user", text="Hello"),),
            sampling=SamplingParams(seed=i, reasoning_budget=12, answer_budget=3, **sampling),
        )
        for i in range(3)
    ]
    expected = await complete(llama, requests)
    ill, fifth = 1, 5  # the row, and the draw of all rows, that go wrong
    forward, draws = Llama.__call__, itertools.count(1)

    def faulty(self: Llama, inputs: mx.array, cache: Any = None) -> mx.array:
        logits = forward(self, inputs, cache=cache)
        if inputs.shape == (3, 1) and next(draws) == fifth:
            logits[ill, -1] = -math.inf if fault == "nothing" else logits[ill, -1]
            logits[ill, -1, 70] = {"nan": math.nan, "inf": math.inf, "nothing": -math.inf}[fault]
        return logits

    monkeypatch.setattr(Llama, "__call__", faulty)
    ends: dict[str, Completion | Failure] = {}
    shown: list[int] = []
    async with llama.generate(requests) as stream:
        async for event in stream:
            if isinstance(event, Completion | Failure):
                ends[event.request_id] = event
            elif isinstance(event, TokenChunk) and event.request_id == requests[ill].id:
                shown += event.token_ids
    for i in (0, 2):
        end = ends[requests[i].id]
        assert isinstance(end, Completion)
        assert end.token_ids == expected[i].token_ids
    failure = ends[requests[ill].id]
    assert isinstance(failure, Failure)
    assert type(failure.error) is EngineError
    assert str(failure.error).startswith(f"after {fifth - 1} tokens the model's logits are not finite")
    assert tuple(shown) == expected[ill].token_ids[: fifth - 1]
