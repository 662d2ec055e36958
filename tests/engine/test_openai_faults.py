"""What comes through faults is what comes without them, and the faults are on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_server.faults import BEFORE, HARMLESS, KINDS, WITHIN, Fault, FaultPlan
from stub_server.running import Running, running
from stub_server.server import StubServer
from stub_server.shapes import Dialect, dialect

from engine.api import Completion, EngineEvent, Failure, GenerationRequest, Restarted, TokenChunk
from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai

from .subject import request

Served = tuple[Running, OpenAIEngine]
pytestmark = pytest.mark.thorough

SILENT = ("silence", "stall")
"""What a client finds out by waiting."""
LOUD = tuple(kind for kind in KINDS if kind not in SILENT)
faults = st.builds(Fault, st.sampled_from(WITHIN), st.integers(0, 60)) | st.builds(Fault, st.sampled_from(BEFORE))
"""Faults that come early or late in an answer of a hundred tokens."""
loud = faults.filter(lambda fault: fault.kind in LOUD)


@contextmanager
def served_by(speaks: Dialect, **options: Any) -> Iterator[Served]:
    with running(StubServer(speaks)) as server:
        engine = open_openai("tiny", base_url=server.url, backoff_s=0.0, max_retries=30, timeout_s=60.0, **options)
        yield server, engine
        anyio.run(engine.aclose)


@pytest.fixture(scope="module")
def continuing(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., int]) -> Iterator[Served]:
    """A server that can go on with a turn that was broken off, and a client that knows the token that ends it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    with served_by(dialect("vllm"), tokenizer=folder) as served:
        yield served


@pytest.fixture(scope="module")
def restarting() -> Iterator[Served]:
    """A server that cannot."""
    with served_by(dialect("openai", reasoning="tags")) as served:
        yield served


async def events_of(engine: OpenAIEngine, asked: list[GenerationRequest]) -> list[EngineEvent]:
    async with engine.generate(asked) as stream:
        return [event async for event in stream]


def written(events: list[EngineEvent], name: str) -> tuple[str, str]:
    """Both texts as a reader of the events has them in the end."""
    texts = {"reasoning": "", "answer": ""}
    for event in events:
        if event.request_id == name and isinstance(event, Restarted):
            texts = {"reasoning": "", "answer": ""}
        elif event.request_id == name and isinstance(event, TokenChunk):
            texts[event.section] += event.text
    return texts["reasoning"], texts["answer"]


# No budget is used up: where a server ends the reasoning, it writes another end than a client does.
BUDGETS: dict[str, Any] = {"reasoning_budget": 400, "answer_budget": 400}
ASKED = [request(f"r{i}", "x" * (i + 1), seed=i, temperature=0.0, **BUDGETS) for i in range(4)]


@settings(max_examples=10)
@given(plan=st.lists(st.none() | loud, max_size=8))
def test_what_is_gone_on_with_is_what_comes_without_faults(continuing: Served, plan: list[Fault | None]) -> None:
    comes_through(continuing, plan)


@settings(max_examples=10)
@given(plan=st.lists(st.none() | loud, max_size=8))
def test_what_is_begun_again_is_what_comes_without_faults(restarting: Served, plan: list[Fault | None]) -> None:
    comes_through(restarting, plan)


def comes_through(served: Served, plan: list[Fault | None]) -> None:
    server, engine = served
    expected = {event.request_id: event for event in ends(anyio.run(events_of, engine, ASKED))}
    server.server.faults = FaultPlan(plan)
    events = anyio.run(events_of, engine, ASKED)
    server.server.faults, injected = FaultPlan(), server.server.faults.injected
    found = ends(events)
    assert sorted(end.request_id for end in found) == sorted(expected), "each ends once"
    for end in found:
        assert isinstance(end, Completion), end
        unbroken = expected[end.request_id]
        assert (end.token_ids, end.text, end.finish_reason) == (
            unbroken.token_ids,
            unbroken.text,
            unbroken.finish_reason,
        )
        assert written(events, end.request_id) == (end.reasoning, end.text)
    recorded = sum(len(end.interruptions) for end in found)
    harmful = sum(count for kind, count in injected.items() if kind not in (*HARMLESS, "no_end"))
    assert harmful <= recorded <= harmful + injected["no_end"], "who knows the token that ends it needs no other sign"


def ends(events: list[EngineEvent]) -> list[Completion]:
    return [event for event in events if isinstance(event, Completion | Failure)]  # type: ignore[misc]


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.anyio
async def test_a_server_that_falls_silent_is_left(kind: str) -> None:
    with running(StubServer(faults=FaultPlan([]))) as server:
        engine = open_openai("tiny", base_url=server.url, backoff_s=0.0, timeout_s=0.3)
        server.server.faults = FaultPlan([Fault(kind, 20)])
        (end,) = ends(await events_of(engine, ASKED[:1]))
        await engine.aclose()
    assert isinstance(end, Completion)
    assert any("said nothing for 0.3 s" in interruption.error for interruption in end.interruptions)


@pytest.mark.parametrize("kind", [kind for kind in LOUD if kind not in HARMLESS])
@pytest.mark.anyio
async def test_who_always_fails_is_given_up_with_the_cause_in_one_line(kind: str) -> None:
    with running(StubServer()) as server:
        engine = open_openai("tiny", base_url=server.url, backoff_s=0.0, max_retries=3)
        server.server.faults = FaultPlan(rate=1.0, kinds=[kind])
        server.server.seen.asked = 0
        (end,) = ends(await events_of(engine, [request("a", seed=1)]))
        await engine.aclose()
    if isinstance(end, Completion):  # a stream that is broken off after a few tokens goes on a few tokens at a time
        assert kind in WITHIN
        assert end.interruptions
        return
    assert isinstance(end, Failure)
    assert server.url in str(end.error)
    assert "\n" not in str(end.error)
    assert server.server.seen.asked >= 4


@given(cut=st.integers(3, 100), seed=st.integers(0, 100))
@settings(max_examples=20)
def test_what_was_drawn_before_a_cut_is_kept_and_what_comes_after_is_drawn_anew(
    continuing: Served, cut: int, seed: int
) -> None:
    """The server's draws begin anew with each answer, so they are given another seed: else they would come again."""
    server, engine = continuing
    asked = [request("a", seed=seed, temperature=1.0, **BUDGETS)]
    (unbroken,) = ends(anyio.run(events_of, engine, asked))
    server.server.faults = FaultPlan([Fault("cut", cut)])
    (end,) = ends(anyio.run(events_of, engine, asked))
    (interruption,) = end.interruptions
    assert interruption.action == "continued"
    kept = interruption.after_tokens
    assert 0 < kept <= cut
    assert end.token_ids[:kept] == unbroken.token_ids[:kept]
    seeds = [body["seed"] for body in list(server.server.seen.bodies)[-2:]]
    assert seeds[0] != seeds[1]
