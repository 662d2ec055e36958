"""The engine that asks servers keeps the contract of all engines, whatever dialect the server speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from stub_server.answers import log_probability
from stub_server.running import running
from stub_server.server import StubServer
from stub_server.shapes import Dialect, dialect
from stub_server.writing import Writer

from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai

from .contract import PROMISES, Promise
from .subject import ENDLESS_TOKENS, Subject, completions, mixed

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.thorough,
    # Once in some four whole runs a socket is left to the garbage collector where an engine is closed, on asyncio. It
    # could not be brought about at will; whether it is the client's or the stub server's is not known.
    pytest.mark.filterwarnings(r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Case:
    """A server, whether the client has the model's tokenizer, and what cannot be promised then."""

    speaks: Dialect
    tokenizer: bool = False
    lacks: frozenset[str] = frozenset()


SERVERS_TOKENIZER = frozenset({"the_tokenizer_reads_what_it_writes"})
"""A server's tokenizer takes a tag that is spelled in a text for the tag."""
BY_TEXT = frozenset({"all_of_the_reasoning_has_likelihoods"})
"""Where a server gives no ids, it is not known which tokens its numbers are of where one ends inside a character."""
AT_ONCE = frozenset(
    {
        "what_is_cancelled_ends_with_what_it_has",
        "what_is_concluded_answers",
        "a_cancelled_row_makes_room_for_one_that_waits",
        "closing_the_engine_fails_what_runs_and_what_comes",
    }
)
"""Of an answer that comes whole, nothing is there before its end."""
ENDLESS_TOKENS_PER_S = 2000
CASES = {
    "vllm": Case(dialect("vllm"), lacks=SERVERS_TOKENIZER),
    "sglang": Case(dialect("sglang"), lacks=SERVERS_TOKENIZER | BY_TEXT),
    "llama.cpp": Case(dialect("llama.cpp"), lacks=SERVERS_TOKENIZER | BY_TEXT),
    "tags": Case(dialect("sglang", reasoning="tags"), tokenizer=True, lacks=BY_TEXT),
    "whole answers": Case(dialect("vllm", streaming="ignored"), tokenizer=True, lacks=AT_ONCE),
}


KEPT = [
    (backend, name, promise)
    for backend, names in (("asyncio", CASES), ("trio", ("vllm", "sglang")))
    for name in names
    for promise in PROMISES
    if promise.__name__ not in CASES[name].lacks
]


Opened = Callable[[str], Subject]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., int]) -> Iterator[Opened]:
    """Opens what a case needs, servers and engines, once for all promises."""
    folders = {}
    for thinks in (True, False):
        folders[thinks] = tmp_path_factory.mktemp("tokenizer")
        make_tokenizer(folders[thinks], thinks=thinks)
    with ExitStack() as stack:
        yield cache(lambda name: _subject(CASES[name], folders, stack))


def _subject(case: Case, folders: Mapping[bool, Path], stack: ExitStack) -> Subject:
    def opened(writer: Writer, *, refused_from: int | None = None, **options: Any) -> OpenAIEngine:
        pace = ENDLESS_TOKENS_PER_S if writer.endless else None
        stub = StubServer(case.speaks, writer, refused_from=refused_from, tokens_per_s=pace)
        server = stack.enter_context(running(stub))
        tokenizer = folders[writer.thinks] if case.tokenizer else None
        engine = open_openai("tiny", base_url=server.url, tokenizer=tokenizer, backoff_s=0.0, **options)
        stack.callback(anyio.run, engine.aclose)
        return engine

    short = Writer(context=512)
    endless = partial(opened, Writer(endless=True, context=2 * ENDLESS_TOKENS), max_rows=2)
    return Subject(
        thinking=opened(short),
        plain=opened(Writer(thinks=False, context=512)),
        endless=endless(),
        fresh=endless,
        failing=lambda: opened(short, refused_from=400),
    )


@pytest.fixture
def subject(request: pytest.FixtureRequest, opened: Opened) -> Subject:
    return opened(request.param)


@pytest.mark.parametrize(
    ("anyio_backend", "subject", "promise"),
    KEPT,
    ids=[f"{backend}-{name}-{promise.__name__}" for backend, name, promise in KEPT],
    indirect=["subject"],
)
async def test_the_engine_keeps(promise: Promise, subject: Subject) -> None:
    await promise(subject)


@pytest.mark.parametrize("subject", CASES, indirect=True)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_number_is_of_its_token_or_there_is_none(subject: Subject) -> None:
    """The servers say the same of a token wherever it stands, so that each number shows which one it is of."""
    asked = [each.model_copy(update={"likelihoods": True}) for each in mixed()]
    told = 0
    for end in await completions(subject.thinking, *asked):
        assert end.likelihoods is not None
        numbers = end.likelihoods.log_probabilities
        for token, number in zip(end.token_ids, numbers, strict=True):
            assert number in (None, log_probability(token)), (end.token_ids, numbers)
            told += number is not None
    assert told > 40
