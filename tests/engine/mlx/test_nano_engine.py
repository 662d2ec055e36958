"""The built-in model on the engine: trained weights of the real architecture, as users run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import mlx.core as mx
import pytest
from engine_calls import complete

from engine.api import Completion, Failure, GenerationRequest, Message, SamplingParams
from engine.families.zaya.model import Model
from engine.loader import NANO, load_engine
from engine.mlx.engine import MLXEngine
from evals.tasks.countdown import CountdownProblem, check
from rsa.answers.extract import last_boxed

pytestmark = pytest.mark.anyio
PROBLEM = CountdownProblem((3, 7, 5, 2), 24)
HARD = "Use 18, 23, 25, 13 and 7 once each to make 115.\n\nPut your final answer within \\boxed{}."
TEXT = "Use 3, 7, 5 and 2 once each to make 24.\n\nPut your final answer within \\boxed{}."


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def nano() -> Iterator[MLXEngine]:
    engine = load_engine(NANO)
    yield engine
    engine.close()


def request(seed: int, *, text: str = TEXT, beta: int = 40, answer: int = 20) -> GenerationRequest:
    sampling = SamplingParams(seed=seed, reasoning_budget=beta, answer_budget=answer)
    return GenerationRequest(id=f"seed {seed}", messages=(Message(role="user", text=text),), sampling=sampling)


async def by_id(engine: MLXEngine, requests: Sequence[GenerationRequest]) -> dict[str, Completion]:
    return {completion.request_id: completion for completion in await complete(engine, requests)}


async def test_batched_equals_alone_token_for_token(nano: MLXEngine) -> None:
    """32 prompts of two lengths, so that rows are padded, and rollouts that end at different steps; some of each."""
    requests = [request(seed, text=TEXT if seed % 2 else f"{TEXT} Think.") for seed in range(32)]
    together = await by_id(nano, requests)
    for each in requests[::5]:
        alone = await by_id(nano, [each])
        assert alone[each.id].token_ids == together[each.id].token_ids


async def test_it_solves_an_unseen_problem(nano: MLXEngine) -> None:
    done = await by_id(nano, [request(seed, beta=400, answer=40) for seed in range(8)])
    answers = [last_boxed(completion.text) for completion in done.values()]
    assert sum(bool(answer and check(PROBLEM, answer)) for answer in answers) >= 4
    assert all(completion.closed for completion in done.values())


async def test_cut_off_it_says_so_instead_of_thinking_on(nano: MLXEngine) -> None:
    """After a bare tag it went on reasoning in its answer: the blank line after it is forced too."""
    done = await by_id(nano, [request(seed, text=HARD, beta=40, answer=60) for seed in range(16)])
    forced = [completion for completion in done.values() if completion.forced]
    assert len(forced) > 8
    assert all(completion.text.lstrip().startswith(("Not solved yet.", "The answer is")) for completion in forced)


# ---- different prompts in one pass


def puzzles(*lengths: int) -> list[GenerationRequest]:
    """A request for each length: sums of so many numbers, all different."""
    texts = [f"{' + '.join(str(i * 7 + j) for j in range(n))} = ?" for i, n in enumerate(lengths)]
    return [request(seed, text=text, beta=30, answer=10) for seed, text in enumerate(texts)]


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of all inputs of more than one token."""
    seen: list[tuple[int, ...]] = []
    compute = Model.__call__

    def watching(self: Model, inputs: mx.array, *args: Any, **options: Any) -> mx.array:
        if inputs.shape[1] > 1:
            seen.append(inputs.shape)
        return compute(self, inputs, *args, **options)

    monkeypatch.setattr(Model, "__call__", watching)
    return seen


async def test_short_prompts_share_a_pass_and_equal_each_alone(nano: MLXEngine, widths: list[tuple[int, ...]]) -> None:
    requests = puzzles(12, 10, 11, 12)
    together = await by_id(nano, requests)
    assert [shape[0] for shape in widths] == [4]
    for each in requests:
        assert (await by_id(nano, [each]))[each.id] == together[each.id]


async def test_prompts_of_very_different_lengths_do_not_share(nano: MLXEngine, widths: list[tuple[int, ...]]) -> None:
    await by_id(nano, puzzles(30, 2, 2))
    assert [shape[0] for shape in widths] == [1, 2]


async def test_a_pass_is_no_longer_than_a_chunk(nano: MLXEngine, widths: list[tuple[int, ...]]) -> None:
    await by_id(nano, puzzles(*[40] * 9))
    assert sum(rows for rows, _ in widths) == 9
    assert all(rows * width <= 512 for rows, width in widths)
    assert len(widths) < 9


async def test_a_prompt_that_two_calls_have_is_computed_once(nano: MLXEngine, widths: list[tuple[int, ...]]) -> None:
    """Four calls at once, three of them of one prompt."""
    text, other = (each.messages[0].text for each in puzzles(14, 15))
    done: list[Completion] = []

    async def ask(text: str, seed: int) -> None:
        done.extend((await by_id(nano, [request(seed, text=text, beta=30, answer=10)])).values())

    held = threading.Event()

    def hold(_: object) -> None:
        held.wait()

    nano.call(hold)  # until all of them are in its queue
    async with anyio.create_task_group() as group:
        for seed, each in enumerate((other, text, text, text)):
            group.start_soon(ask, each, seed)
        while nano._commands.qsize() < 4:
            await anyio.lowlevel.checkpoint()
        held.set()
    assert sum(rows for rows, _ in widths) == 2
    assert sorted(each.usage.cached_tokens > 0 for each in done) == [False, False, True, True]


async def test_a_shared_pass_that_fails_is_tried_again_one_prompt_at_a_time(
    nano: MLXEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = puzzles(12, 10, 11)
    whole = await by_id(nano, requests)
    compute = Model.__call__

    def failing(self: Model, inputs: mx.array, *args: Any, **options: Any) -> mx.array:
        if inputs.shape[0] > 1 and inputs.shape[1] > 1:
            raise RuntimeError("[malloc] Unable to allocate")
        if inputs.shape[1] > 1 and inputs.shape[1] == len(nano.tokenizer.prompt_ids(requests[1].messages)) - 1:
            raise RuntimeError("a bug")
        return compute(self, inputs, *args, **options)

    monkeypatch.setattr(Model, "__call__", failing)
    async with nano.generate(requests) as stream:
        ends = {event.request_id: event async for event in stream if isinstance(event, Completion | Failure)}
    failure = ends.pop(requests[1].id)
    assert isinstance(failure, Failure)
    assert "a bug" in str(failure.error)
    assert ends == {each.id: whole[each.id] for each in (requests[0], requests[2])}


async def test_prompts_computed_together_wait_for_room_and_are_not_computed_again(
    widths: list[tuple[int, ...]],
) -> None:
    """Three rows for two candidates of each of four prompts."""
    engine = load_engine(NANO, max_rows=3)
    widths.clear()  # loading tries the model
    requests = puzzles(12, 10, 11, 12)
    requests += [each.model_copy(update={"id": f"{each.id} again"}) for each in requests]
    done = await by_id(engine, requests)
    assert sum(shape[0] for shape in widths) == 4
    for each in requests[:4]:
        alone = (await by_id(engine, [each]))[each.id]
        assert done[each.id].token_ids == done[f"{each.id} again"].token_ids == alone.token_ids
    engine.close()
