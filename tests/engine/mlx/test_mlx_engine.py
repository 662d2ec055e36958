"""The MLX engine as its callers see it: equivalences, budgets, admission, cancellation, faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from engine_calls import after_each_step, complete, rows
from mlx_lm.models.llama import Model as Llama
from mlx_lm.models.llama import ModelArgs as LlamaArgs

from engine.api import (
    Completion,
    Engine,
    Failure,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenChunk,
)
from engine.errors import ModelError, OutOfMemoryError
from engine.families.mlx_lm.model import AdaptedModel
from engine.loader import load_engine
from engine.mlx.engine import LoadedModel, MLXEngine, _gpu_chunk, _gpu_rows
from engine.mlx.memory import CacheCost
from engine.mlx.prefill import Prefill, Prefiller
from engine.mlx.scheduler import Scheduler, explain

pytestmark = pytest.mark.anyio


def request(name: str, text: str = "Hello wörld", **sampling: object) -> GenerationRequest:
    return GenerationRequest(
        id=name, messages=(Message(role="user", text=text),), sampling=SamplingParams.model_validate(sampling)
    )


MIXED: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20},
    {"temperature": 1.0, "min_p": 0.05},
]


async def test_batched_equals_alone_token_for_token_for_32_seeds(llama: MLXEngine) -> None:
    requests = [
        request(f"r{i}", seed=1000 + i, reasoning_budget=24 + i % 5, answer_budget=i % 4 * 3, **MIXED[i % len(MIXED)])
        for i in range(32)
    ]
    together = await complete(llama, requests)
    alone = [(await complete(llama, [r]))[0] for r in requests]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({c.token_ids for c in together}) > 16  # the seeds do differ


async def test_rows_that_join_and_leave_midway_equal_each_alone(llama: MLXEngine) -> None:
    """Prompts and budgets of many lengths, started while others decode: left padding, joins and filters."""
    requests = [
        request(f"r{i}", text="x" * (1 + 37 * i % 90), seed=i, reasoning_budget=5 + 11 * i % 40, answer_budget=4)
        for i in range(9)
    ]
    done: dict[str, Completion] = {}

    async def run(batch: Sequence[GenerationRequest], started: Callable[[], None]) -> None:
        async with llama.generate(batch) as stream:
            async for event in stream:
                started()  # the next stream enters while this one decodes
                if isinstance(event, Completion):
                    done[event.request_id] = event

    async with anyio.create_task_group() as tasks:
        for batch in (requests[:3], requests[3:4], requests[4:9]):
            begun = anyio.Event()
            tasks.start_soon(run, batch, begun.set)
            await begun.wait()
    for r in requests:
        assert done[r.id].token_ids == (await complete(llama, [r]))[0].token_ids


async def test_one_prefill_serves_all_candidates_of_a_prompt(llama_folder: Path) -> None:
    engine = load_engine(llama_folder, max_rows=3)  # seven candidates in portions of three share it too
    computed: list[int] = []
    compute = Prefiller._compute_chunk

    def counting(self: Prefiller, prefill: Prefill, *options: Any) -> None:
        before = prefill.done
        compute(self, prefill, *options)
        computed.append(prefill.done - before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prefiller, "_compute_chunk", counting)
        done = await complete(engine, [request(f"r{i}", seed=i, max_tokens=9) for i in range(7)])
    await engine.aclose()
    prompt = done[0].usage.prompt_tokens
    assert sum(computed) == prompt - 1
    assert sorted(c.usage.cached_tokens for c in done) == [0] + [prompt - 1] * 6


async def test_a_long_prompt_in_chunks_equals_one_piece(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = request("r", text="a long problem " * 20, seed=5, max_tokens=12)
    texts = []
    for chunk in (1, 7, 512):
        monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", chunk)
        engine = load_engine(llama_folder)
        texts.append((await complete(engine, [long]))[0].token_ids)
        await engine.aclose()
    assert texts[0] == texts[1] == texts[2]


async def test_budget_forcing_closes_the_tag_and_answers(llama: MLXEngine) -> None:
    (c,) = await complete(llama, [request("r", seed=1, reasoning_budget=20, answer_budget=5)])
    assert (c.forced, c.closed, c.usage.reasoning_tokens) == (True, True, 20)
    assert c.token_ids[20:23] == (*llama.tokenizer.think_close, *llama.tokenizer.encode("\n\n"))
    assert len(c.token_ids) <= 26


async def test_admission_by_kv_bytes_queues_the_rest_and_changes_nothing(llama_folder: Path) -> None:
    requests = [request(f"r{i}", seed=i, reasoning_budget=20, answer_budget=5) for i in range(6)]
    roomy = load_engine(llama_folder)
    expected = await complete(roomy, requests)
    await roomy.aclose()
    tight = load_engine(llama_folder, kv_bytes=_bytes_for(llama_folder, rows=2, tokens=100))
    with pytest.MonkeyPatch.context() as patch:
        widths = after_each_step(patch, rows)
        assert [c.token_ids for c in await complete(tight, requests)] == [c.token_ids for c in expected]
    await tight.aclose()
    assert max(widths) == 2


async def test_what_can_never_fit_fails_alone(llama_folder: Path) -> None:
    engine = load_engine(llama_folder, kv_bytes=_bytes_for(llama_folder, rows=1, tokens=100))
    events = []
    async with engine.generate([request("big", max_tokens=400), request("small", max_tokens=3)]) as stream:
        events = [event async for event in stream if not isinstance(event, TokenChunk)]
    failure = next(event for event in events if isinstance(event, Failure))
    assert failure.request_id == "big"
    assert isinstance(failure.error, OutOfMemoryError)
    assert "lower `beta`" in str(failure.error)
    assert any(isinstance(event, Completion) and event.request_id == "small" for event in events)
    await engine.aclose()


def _bytes_for(folder: Path, *, rows: int, tokens: int) -> int:
    from mlx_lm.utils import load_model

    return CacheCost.of(AdaptedModel(load_model(folder)[0])).of_rows([tokens] * rows)


async def test_the_engine_outlives_a_step_that_fails(llama_folder: Path) -> None:
    engine = load_engine(llama_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.mlx.batch.DecodeBatch.step", _out_of_memory)
        async with engine.generate([request("r", max_tokens=5)]) as stream:
            events = [event async for event in stream]
    assert isinstance(events[-1], Failure)
    assert isinstance(events[-1].error, OutOfMemoryError)
    (after,) = await complete(engine, [request("r", seed=1, max_tokens=5)])
    assert after.usage.completion_tokens == 5
    await engine.aclose()


async def test_rows_that_cannot_be_joined_are_told(llama_folder: Path) -> None:
    """Those that are just being started are neither waiting nor decoding."""
    engine = load_engine(llama_folder)
    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        async with engine.generate([request("runs", max_tokens=400, seed=1)]) as stream:
            await anext(stream)
            patch.setattr("engine.families.mlx_lm.caches.RowsCache.of", _out_of_memory)
            async with engine.generate([request(f"r{i}", text="other", max_tokens=5) for i in range(2)]) as other:
                ends = [event async for event in other if not isinstance(event, TokenChunk)]
            rest = [event async for event in stream]
    assert [isinstance(end, Failure) and isinstance(end.error, OutOfMemoryError) for end in ends] == [True, True]
    assert isinstance(rest[-1], Failure)
    (after,) = await complete(engine, [request("r", seed=1, max_tokens=5)])
    assert after.usage.completion_tokens == 5
    await engine.aclose()


async def test_a_prompt_that_cannot_be_planned_fails_alone(llama_folder: Path) -> None:
    engine = load_engine(llama_folder)
    plan = Prefiller.plan
    bad: list[int] = []

    def failing(self: Prefiller, ids: list[int], *options: Any) -> Prefill:
        if not bad or ids == bad:
            bad[:] = ids
            raise IndexError("a bug")
        return plan(self, ids, *options)

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(60):
        patch.setattr(Prefiller, "plan", failing)
        requests = [request("bad", max_tokens=5), request("good", text="other", max_tokens=5)]
        async with engine.generate(requests) as stream:
            ends = {event.request_id: event async for event in stream if not isinstance(event, TokenChunk)}
    assert isinstance(ends["bad"], Failure)
    assert "IndexError: a bug" in str(ends["bad"].error)
    assert isinstance(ends["good"], Completion)
    await engine.aclose()


async def test_rows_of_one_prompt_and_several_lengths_keep_to_the_room(llama_folder: Path) -> None:
    """Beside a long one a short one takes as much."""
    engine = load_engine(llama_folder, kv_bytes=_bytes_for(llama_folder, rows=1, tokens=400))
    with pytest.MonkeyPatch.context() as patch:
        widths = after_each_step(patch, rows)
        done = await complete(engine, [request("long", max_tokens=200, seed=1), request("short", max_tokens=5, seed=2)])
    assert done[0].usage.completion_tokens > 2 * done[1].usage.completion_tokens
    assert max(widths) == 1
    await engine.aclose()


@pytest.mark.parametrize(
    "text",
    [
        "[malloc] Unable to allocate 1 bytes",
        "[METAL] Command buffer execution failed: Insufficient Memory (00000008)",
        "cudaMallocAsync(&data, size, stream) failed: out of memory",
    ],
)
def test_memory_that_runs_out_is_called_that_on_every_device(text: str) -> None:
    assert isinstance(explain(RuntimeError(text)), OutOfMemoryError)
    assert not isinstance(explain(RuntimeError("shapes differ")), OutOfMemoryError)


async def test_a_command_that_fails_does_not_stop_the_worker(llama_folder: Path) -> None:
    engine = load_engine(llama_folder)
    engine.call(_out_of_memory)
    (after,) = await complete(engine, [request("r", seed=1, max_tokens=5)])
    assert after.usage.completion_tokens == 5
    await engine.aclose()


async def test_memory_is_wired_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("engine.mlx.engine.wire_memory", lambda: order.append("wired"))

    def load() -> LoadedModel:
        order.append("loading")
        raise ModelError("no such model")

    with pytest.raises(ModelError):
        await anyio.to_thread.run_sync(MLXEngine, load)
    assert order == ["wired", "loading"]


async def test_only_the_worker_computes(llama_folder: Path) -> None:
    threads: set[str] = set()
    forward = Llama.__call__

    def watched(self: Llama, *args: object, **kwargs: object) -> object:
        threads.add(threading.current_thread().name)
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Llama, "__call__", watched)
        engine = load_engine(llama_folder)
        await complete(engine, [request(f"r{i}", seed=i, max_tokens=5) for i in range(3)])
        await engine.aclose()
    assert threads == {"mlx-engine"}


def _out_of_memory(*_: object) -> None:
    raise RuntimeError("[malloc] Unable to allocate 1 bytes")


def test_it_is_an_engine(llama: MLXEngine) -> None:
    assert isinstance(llama, Engine)
    assert llama.model.thinks
    assert llama.model.context_tokens == 512


@pytest.mark.parametrize(
    ("weights", "tokens"),
    [(10**7, 16384), (10**9, 4096), (2 * 10**9, 2048), (2 * 10**10, 2048)],
    ids=["nano", "1 GB", "2 GB", "20 GB"],
)
def test_a_pass_on_a_gpu_is_longer_for_small_models(weights: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA with much memory for a large one too, whose experts each pass reads."""
    assert _gpu_chunk(SimpleNamespace(weight_bytes=weights), 10**12) == tokens
    monkeypatch.setattr("engine.mlx.engine.mx.cuda.is_available", lambda: True)
    assert _gpu_chunk(SimpleNamespace(weight_bytes=weights), 10**9) == tokens
    assert _gpu_chunk(SimpleNamespace(weight_bytes=weights), 10**11) >= max(tokens, 8192)


@pytest.mark.parametrize(("vocabulary", "rows"), [(512, 512), (262_272, 127), (2_000_000, 64), (None, 64)])
def test_rows_on_a_gpu_are_as_many_as_their_logits_allow(vocabulary: int | None, rows: int) -> None:
    assert _gpu_rows(SimpleNamespace(vocab_size=vocabulary)) == rows


@pytest.mark.parametrize(
    ("cost", "between"), [(0.0, 0.05), (0.01, 0.2), (1.0, 0.5)], ids=["quick", "a twentieth of the time", "the longest"]
)
def test_chunks_come_less_often_where_sending_them_is_slow(
    cost: float, between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that sending alone moves, and the test: a step takes no time, and then as long as is asked for."""
    now, sent = [100.0], [0]
    monkeypatch.setattr("engine.mlx.scheduler.monotonic", lambda: now[0])

    class Row:
        def chunks(self) -> list[TokenChunk]:
            sent[0] += 1
            now[0] += cost
            return []

    scheduler = Scheduler(
        AdaptedModel(Llama(LlamaArgs("llama", 8, 1, 8, 1, 1e-5, 16))),
        max_rows=1,
        kv_bytes=1 << 20,
        prefill_chunk=64,
        context_tokens=64,
    )
    scheduler._batch.rows = [Row()]
    scheduler._flush()
    start = 100.0
    for _ in range(3):
        now[0] = start + between - 0.001
        before = sent[0]
        scheduler._flush()
        assert sent[0] == before
        start = now[0] = start + between + 0.001
        scheduler._flush()
        assert sent[0] == before + 1
