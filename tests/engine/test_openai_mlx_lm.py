"""The engine that asks servers, on mlx-lm's own server with the built-in model: as our own engine on that model.

That server gives no token ids: they are recovered from the text of each chunk. Where a model splits a text otherwise
than its tokenizer would, a server that goes on with a text reads other tokens than the model wrote; so the puzzles are
some that the model knows, and splits as its tokenizer does.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
from real_servers import export_nano, mlx_lm_server

from engine.api import Completion, GenerationRequest
from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai
from rsa import MarkovianRSA

from .contract import PROMISES, Promise
from .subject import Subject, completions, request

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

KEPT = (
    "every_request_ends_once_and_last",
    "chunks_add_up_to_the_completion",
    "every_token_is_accounted_for",
    "without_thinking_all_is_the_answer",
    "a_model_that_thinks_has_no_use_for_a_cue",
    "a_seed_gives_the_same_draws_alone_and_in_a_batch",
    "other_seeds_give_other_draws",
    "streams_run_side_by_side",
    "the_tokenizer_reads_what_it_writes",
)
"""Of the promises, those about a model that thinks and ends: the others need models of other kinds."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_nano(tmp_path_factory.mktemp("models") / "nano")


@pytest.fixture(scope="module")
def remote(nano: Path) -> Iterator[OpenAIEngine]:
    with mlx_lm_server(nano) as url:
        engine = open_openai(str(nano), base_url=url, tokenizer=nano)
        yield engine
        anyio.run(engine.aclose)


@pytest.fixture(scope="module")
def local(nano: Path) -> Iterator[MLXEngine]:
    engine = load_engine(nano)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    "promise", [each for each in PROMISES if each.__name__ in KEPT], ids=lambda each: each.__name__
)
async def test_the_engine_keeps(promise: Promise, remote: OpenAIEngine) -> None:
    subject = Subject(remote, remote, remote, lambda: remote, lambda: remote)
    await promise(subject)


# ---- greedy: the same tokens as on our own engine

PUZZLES = (
    "Use 3, 7, 5 and 2 once each to make 24. Put your final answer within \\boxed{}.",
    "Start at 4, add 19, multiply by 3, modulo 97. Put your final answer within \\boxed{}.",
    "Add up 48, 93 and 120. Put your final answer within \\boxed{}.",
)
BUDGETS: tuple[dict[str, int], ...] = (
    {"reasoning_budget": 30, "answer_budget": 20},  # cut off, and made to answer
    {"reasoning_budget": 300, "answer_budget": 0},
    {"reasoning_budget": 300, "answer_budget": 4},
    {"max_tokens": 27},
)


def asked() -> list[GenerationRequest]:
    """Each budget, with and without thinking; puzzle by puzzle in turn."""
    return [
        request(f"r{i}", PUZZLES[i % len(PUZZLES)], thinking=thinking, temperature=0.0, **more)
        for i, (more, thinking) in enumerate(product(BUDGETS, (True, False)))
    ]


def told(end: Completion) -> Completion:
    """What does not depend on what a server has cached, nor on a connection that it refused: its line is short."""
    uncached = end.usage.model_copy(update={"cached_tokens": 0})
    return end.model_copy(update={"usage": uncached, "interruptions": ()})


async def test_greedy_tokens_are_those_of_our_engine(remote: OpenAIEngine, local: MLXEngine) -> None:
    for ours, theirs in zip(await completions(local, *asked()), await completions(remote, *asked()), strict=True):
        assert told(theirs) == told(ours)


async def test_a_greedy_run_is_that_of_our_engine_tails_too(remote: OpenAIEngine, local: MLXEngine) -> None:
    runs: list[list[Any]] = []
    for engine in (local, remote):
        solver = MarkovianRSA(engine, n=3, c=2, t=2, beta=64, tau=24, answer_budget=24, temperature=0.0, seed=1)
        result = await solver.solve("Use 3, 7, 5 and 2 once each to make 24.")
        ends = [each for played in result.rounds for each in played.candidates]
        runs.append(
            [
                result.answer,
                result.votes,
                result.budgets,
                [(each.parents, each.tail, each.answer, each.prompt_sha256) for each in ends],
                [each.completion.token_ids for each in ends if each.completion],
            ]
        )
    assert runs[0] == runs[1]
    assert len(runs[0][-1]) == 9
    assert not any(tail.approximate for _, tail, *_ in runs[1][3] if tail)
