"""The built-in model on the engine: trained weights of the real architecture, as users run them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from engine.api import Completion, GenerationRequest, Message, SamplingParams
from engine.loader import NANO, load_engine
from engine.mlx.engine import MLXEngine
from evals.tasks.countdown import CountdownProblem, check
from rsa.answers import last_boxed

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


async def complete(engine: MLXEngine, requests: Sequence[GenerationRequest]) -> dict[str, Completion]:
    async with engine.generate(requests) as stream:
        return {event.request_id: event async for event in stream if isinstance(event, Completion)}


async def test_batched_equals_alone_token_for_token_for_32_seeds(nano: MLXEngine) -> None:
    """Prompts of two lengths, so that rows are padded, and rollouts that end at different steps."""
    requests = [request(seed, text=TEXT if seed % 2 else f"{TEXT} Think.") for seed in range(32)]
    together = await complete(nano, requests)
    for each in requests:
        alone = await complete(nano, [each])
        assert alone[each.id].token_ids == together[each.id].token_ids


async def test_it_solves_an_unseen_problem(nano: MLXEngine) -> None:
    done = await complete(nano, [request(seed, beta=400, answer=40) for seed in range(16)])
    answers = [last_boxed(completion.text) for completion in done.values()]
    assert sum(bool(answer and check(PROBLEM, answer)) for answer in answers) >= 8
    assert all(completion.closed for completion in done.values())


async def test_cut_off_it_says_so_instead_of_thinking_on(nano: MLXEngine) -> None:
    """After a bare tag it went on reasoning in its answer: the blank line after it is forced too."""
    done = await complete(nano, [request(seed, text=HARD, beta=40, answer=60) for seed in range(16)])
    forced = [completion for completion in done.values() if completion.forced]
    assert len(forced) > 8
    assert all(completion.text.lstrip().startswith(("Not solved yet.", "The answer is")) for completion in forced)
