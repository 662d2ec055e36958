"""Completions of the model itself: what is passed on, once, whatever the engine does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Self

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import (
    Completion,
    EngineEvent,
    GenerationRequest,
    Message,
    ModelInfo,
    Restarted,
    TokenChunk,
    Tool,
    Usage,
)
from engine.errors import EngineError
from engine.scripted import Script, ScriptedEngine
from rsa.serve.answering import AnswerDelta, Finished, Part, ReasoningDelta, ToolCalls
from rsa.serve.completions import PlainAnswering
from rsa.serve.guard import Slots
from rsa.serve.metrics import Metrics
from rsa.serve.models import Served
from rsa.serve.offers import Offer
from rsa.serve.settings import ServedModel
from rsa.serve.wishes import Wishes
from rsa.tools.reading import read_calls

HELLO = (Message(role="user", text="Hello"),)
WORDS = st.lists(st.sampled_from(["a", "bc ", "\n", "d", "  ", "é"]), max_size=6)


class Told:
    """An engine, and its one stream, that tells given events."""

    model = ModelInfo(name="told")
    tokenizer: Any = None

    def __init__(self, events: Sequence[EngineEvent]) -> None:
        self.events = iter(events)

    def generate(self, requests: Sequence[GenerationRequest]) -> Self:
        return self

    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        for event in self.events:
            return event
        raise StopAsyncIteration

    def cancel(self, request_id: str) -> None: ...

    def conclude(self, request_id: str, at: int = 0) -> None: ...


async def parts_of(engine: Any, *, deltas: bool = True, choices: int = 1, offer: Offer | None = None) -> list[Part]:
    async def open_engine(_: str) -> Any:
        return engine

    served = Served([ServedModel(name="m", opens="x/y")], open_engine=open_engine)
    ticket, metrics = Slots(1, 0).ticket(), Metrics()
    wishes = Wishes(choices=choices)
    answering = PlainAnswering(served, "m", HELLO, wishes, offer=offer, deltas=deltas, ticket=ticket, metrics=metrics)
    async with anyio.create_task_group() as group:
        group.start_soon(answering.work)
        found: list[Part] = []
        error: Exception | None = None
        try:
            found = [part async for part in answering]
        except Exception as trouble:
            error = trouble
    if error is not None:
        raise error
    return found


def chunks(reasoning: Sequence[str], answer: Sequence[str]) -> list[EngineEvent]:
    return [
        *(TokenChunk("0", (1,), text, "reasoning") for text in reasoning),
        *(TokenChunk("0", (1,), text, "answer") for text in answer),
    ]


def completion(reasoning: Sequence[str], answer: Sequence[str]) -> Completion:
    return Completion(
        request_id="0",
        token_ids=(),
        reasoning="".join(reasoning),
        text="".join(answer),
        finish_reason="stop",
        usage=Usage(completion_tokens=7),
    )


@given(WORDS, WORDS, st.lists(st.integers(0, 12), max_size=3))
def test_an_engine_that_begins_anew_is_told_once(reasoning: list[str], answer: list[str], breaks: list[int]) -> None:
    """Deltas, put together, are the texts of the whole answer, however often the engine begins anew, and where."""
    whole = chunks(reasoning, answer)
    events = [event for at in breaks for event in (*whole[:at], Restarted("0"))]
    parts = anyio.run(parts_of, Told([*events, *whole, completion(reasoning, answer)]))
    last = parts[-1]
    assert isinstance(last, Finished)
    assert "".join(part.text for part in parts if isinstance(part, ReasoningDelta)) == last.reasoning
    assert "".join(part.text for part in parts if isinstance(part, AnswerDelta)) == last.text
    assert last.text == "".join(answer).lstrip()
    assert last.reasoning == "".join(reasoning)


SPELLED = ["<tool_call>", "</tool_call>", '{"name": "now"}', "<function=now>", "</function>", "a", " ", "\n", "<"]


@given(st.lists(st.sampled_from(SPELLED), max_size=8), st.lists(st.integers(0, 9), max_size=2), st.booleans())
def test_calls_of_a_stream_are_those_of_the_whole_answer(answer: list[str], breaks: list[int], parallel: bool) -> None:
    whole = chunks(["so"], answer)
    events = [event for at in breaks for event in (*whole[:at], Restarted("0"))]
    told = Told([*events, *whole, completion(["so"], answer)])
    parts = anyio.run(partial(parts_of, told, offer=Offer((Tool(name="now"),), parallel)))
    last = parts[-1]
    assert isinstance(last, Finished)
    assert "".join(part.text for part in parts if isinstance(part, AnswerDelta)) == last.text
    assert tuple(call for part in parts if isinstance(part, ToolCalls) for call in part.calls) == last.calls
    found = read_calls("".join(answer).lstrip(), [Tool(name="now")])
    assert [call.name for call in last.calls] == [call.name for call in found.calls][: None if parallel else 1]
    assert (last.text, last.finish_reason) == (found.text, "tool_calls" if found.calls else "stop")


@pytest.mark.anyio
async def test_an_engine_that_begins_anew_as_another_answer_is_an_error() -> None:
    engine = Told([*chunks(["so"], ["yes"]), Restarted("0"), *chunks(["so"], ["no"])])
    with pytest.raises(EngineError, match="began anew as another one"):
        await parts_of(engine)


@pytest.mark.anyio
@pytest.mark.parametrize("choices", [1, 3])
async def test_without_deltas_only_what_is_whole_comes(choices: int) -> None:
    script = Script(reasoning="so", answer="\n\nyes")
    streamed = await parts_of(ScriptedEngine(script, tokens_per_step=1), choices=choices)
    whole = await parts_of(ScriptedEngine(script), deltas=False, choices=choices)
    assert len(whole) == choices
    assert [part for part in streamed if isinstance(part, Finished)] == whole


@pytest.mark.anyio
async def test_a_model_without_think_tags_only_answers() -> None:
    parts = await parts_of(ScriptedEngine(Script(reasoning="so: ", answer="yes"), thinks=False))
    assert not any(isinstance(part, ReasoningDelta) for part in parts)
    last = parts[-1]
    assert isinstance(last, Finished)
    assert (last.text, last.reasoning) == ("so: yes", "")
