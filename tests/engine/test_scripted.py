"""The scripted engine keeps the promises of `engine.api`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import (
    Completion,
    Engine,
    EngineEvent,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenChunk,
)
from engine.scripted import END, THINK_CLOSE, ByteTokenizer, Script, ScriptedEngine

pytestmark = pytest.mark.anyio
PLAN = Script(reasoning="one two three", answer="four five")


def request(name: str = "a", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        id=name, messages=(Message(role="user", text="hello"),), sampling=SamplingParams(**sampling)
    )


async def play(engine: ScriptedEngine, *requests: GenerationRequest) -> list[EngineEvent]:
    async with engine.generate(requests) as stream:
        return [event async for event in stream]


async def complete(script: Script, *, thinks: bool = True, **sampling: Any) -> Completion:
    last = (await play(ScriptedEngine(script, thinks=thinks), request(**sampling)))[-1]
    assert isinstance(last, Completion)
    return last


async def test_is_an_engine_and_plays_both_sections() -> None:
    engine = ScriptedEngine(PLAN)
    assert isinstance(engine, Engine)
    done = await complete(PLAN)
    assert (done.reasoning, done.text, done.finish_reason) == ("one two three", "four five", "stop")
    assert done.closed
    assert not done.forced
    assert done.token_ids == (*b"one two three", THINK_CLOSE, *b"four five", END)
    assert done.reasoning_ids == tuple(b"one two three")
    assert done.usage.completion_tokens == len(done.token_ids)
    assert done.usage.prompt_tokens == engine.tokenizer.prompt_tokens(request().messages)


async def test_a_model_without_tags_has_one_section() -> None:
    done = await complete(Script(reasoning="abc", answer="def"), thinks=False, answer_budget=0)
    assert done.text == done.reasoning == "abcdef"
    assert not done.closed
    assert (await complete(PLAN, thinks=False, reasoning_budget=3)).finish_reason == "budget"


async def test_raw_tokens_and_strings_are_scripts() -> None:
    done = await complete(Script(token_ids=(65, THINK_CLOSE, 66)))
    assert (done.reasoning, done.text) == ("A", "B")
    engine = ScriptedEngine("<think>why</think>because")
    assert (await play(engine, request()))[-1].text == "because"


@given(text=st.text(max_size=30), step=st.integers(1, 7), stop=st.text(min_size=1, max_size=3))
def test_chunks_add_up_to_the_completion(text: str, step: int, stop: str) -> None:
    async def main() -> None:
        engine = ScriptedEngine(Script(reasoning=text, answer=text), tokens_per_step=step)
        events = await play(engine, request(stop=(stop,)))
        done = events[-1]
        assert isinstance(done, Completion)
        chunks = [event for event in events if isinstance(event, TokenChunk)]
        assert "".join(c.text for c in chunks if c.section == "reasoning") == done.reasoning
        assert "".join(c.text for c in chunks if c.section == "answer") == done.text
        assert stop not in done.reasoning + "\0" + done.text or stop == "\0"
        for chunk in chunks:
            chunk.text.encode()

    anyio.run(main)


async def test_a_script_says_how_likely_its_tokens_are() -> None:
    asked = request(reasoning_budget=3, answer_budget=9).model_copy(update={"likelihoods": True})

    async def told(script: Script) -> tuple[float | None, ...]:
        last = (await play(ScriptedEngine(script), asked))[-1]
        assert isinstance(last, Completion)
        assert last.likelihoods is not None
        return last.likelihoods.log_probabilities

    assert await told(Script("abc", "xy", log_probabilities=(-1.0, -2.0))) == (-1.0, -2.0, -2.0, None, -2.0, -2.0, -2.0)
    first, second, third, tag, *answer = await told(Script("aaa", "xy"))
    assert len({first, second, third}) == 3
    assert (tag, None in answer) == (None, False)
    assert (await told(Script("aab", "xy")))[:2] == (first, second), "by the token and its place"


async def test_rows_take_turns() -> None:
    engine = ScriptedEngine(PLAN, tokens_per_step=1)
    events = await play(engine, request("a"), request("b"))
    order = [event.request_id for event in events if isinstance(event, TokenChunk)]
    assert order[:4] == ["a", "b", "a", "b"]
    assert engine.max_active == 2
    assert engine.active == 0
    assert [r.id for r in engine.requests] == ["a", "b"]


async def test_held_rows_wait_for_release() -> None:
    engine = ScriptedEngine(PLAN, hold=lambda r: r.id == "b")
    seen: list[str] = []

    async def read() -> None:
        async with engine.generate([request("a"), request("b")]) as stream:
            async for event in stream:
                if isinstance(event, Completion):
                    seen.append(event.request_id)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["a"]
        engine.release("b")
    assert seen == ["a", "b"]


@given(text=st.text(max_size=20), start=st.integers(0, 20), length=st.integers(0, 20))
def test_any_part_of_a_text_decodes_to_a_part_of_it(text: str, start: int, length: int) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids[start : start + length]) in text
