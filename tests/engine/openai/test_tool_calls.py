"""Tools behind a server: what it is sent, and its calls, which are put back into the text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from told_server import MODEL, URL, Told, ToldServer, chunk, end

from engine.api import Completion, EngineEvent, GenerationRequest, Message, Restarted, SamplingParams, Tool, ToolCall
from engine.openai.calls import Calls
from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai
from engine.openai.wire import CallPart, WireError, read_answer

pytestmark = pytest.mark.anyio

ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "number"}}})
TALK = (
    Message(role="user", text="1 + 2?"),
    Message(role="assistant", text="", calls=(ToolCall(id="c1", name="add", arguments='{"a": 1}'),)),
    Message(role="tool", text="3", answers="c1"),
)


class Server:
    """A server that counts tools, and then gives its answers in turn."""

    def __init__(self, *, counts: bool = True, thinks: bool = False) -> None:
        self.counts, self.thinks = counts, thinks
        self.answers: list[Told | Exception] = []

    def __call__(self, path: str, body: dict[str, Any]) -> Told | Exception:
        if path != "/chat/completions":
            return Told(status=404)
        if self.answers:
            return self.answers.pop(0)
        tokens = 9 + (20 if self.counts and body.get("tools") else 0)
        reasoning = [chunk(reasoning="hm")] if self.thinks else []
        return Told([*reasoning, chunk("OK"), end(), chunk(usage={"prompt_tokens": tokens, "completion_tokens": 1})])


def opened(server: Server) -> tuple[OpenAIEngine, ToldServer]:
    told = ToldServer(server)
    engine = open_openai(MODEL, base_url=URL, transport=told, backoff_s=0.0, max_retries=2)
    told.bodies.clear()
    return engine, told


def calls(*parts: tuple[int, str, str], **more: Any) -> dict[str, Any]:
    """A chunk with parts of calls: index, name, arguments."""
    told = [
        {"index": index, **({"id": f"x{index}", "type": "function"} if name else {}),
         "function": {**({"name": name} if name else {}), "arguments": arguments}}
        for index, name, arguments in parts
    ]  # fmt: skip
    return {"choices": [{"index": 0, "delta": {"tool_calls": told}, **more}]}


async def answered(engine: OpenAIEngine, messages: tuple[Message, ...] = TALK) -> list[EngineEvent]:
    sampling = SamplingParams(reasoning_budget=400, answer_budget=400)
    request = GenerationRequest(id="a", messages=messages, sampling=sampling, tools=(ADD,))
    async with engine.generate([request]) as stream:
        return [event async for event in stream]


async def test_a_server_is_sent_tools_calls_and_results() -> None:
    server = Server()
    engine, told = opened(server)
    await answered(engine)
    (_, body), *_ = told.bodies
    assert body["tools"] == [ADD.declared]
    assert body["messages"][1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    ]
    assert body["messages"][2] == {"role": "tool", "content": "3", "tool_call_id": "c1"}


@pytest.mark.parametrize(("counts", "takes"), [(True, True), (False, False)])
async def test_whether_it_takes_tools_is_found_out(counts: bool, takes: bool) -> None:
    engine, _ = opened(Server(counts=counts))
    assert (engine.model.tools, engine.model.details["tools"]) == (takes, takes)


@pytest.mark.parametrize("thinks", [True, False])
async def test_its_calls_are_put_back_into_the_text(thinks: bool) -> None:
    server = Server(thinks=thinks)
    engine, _ = opened(server)
    begun = [chunk(reasoning="hm")] if thinks else []
    server.answers = [
        Told([*begun, chunk("Let me add.\n"), calls((0, "add", "")), calls((0, "", '{"a": '), (1, "add", '{"a": 2')),
              calls((0, "", "1}"), (1, "", ', "b": "é"}')), end("tool_calls"), "[DONE]"])
    ]  # fmt: skip
    *_, last = await answered(engine)
    assert isinstance(last, Completion)
    said, *spelled = last.text.split("<tool_call>\n")
    assert said == "Let me add.\n"
    assert [json.loads(each.partition("\n</tool_call>")[0]) for each in spelled] == [
        {"name": "add", "arguments": {"a": 1}},
        {"name": "add", "arguments": {"a": 2, "b": "é"}},
    ]
    assert (last.finish_reason, last.approximate, last.reasoning if thinks else "hm") == ("stop", True, "hm")


async def test_a_call_that_is_cut_off_stays_open() -> None:
    server = Server(thinks=True)
    engine, _ = opened(server)
    server.answers = [Told([chunk(reasoning="hm"), calls((0, "add", '{"a": 1')), end("length"), "[DONE]"])]
    *_, last = await answered(engine)
    assert isinstance(last, Completion)
    assert last.text == '<tool_call>\n{"name": "add", "arguments": {"a": 1'
    assert last.finish_reason == "length"


async def test_an_answer_that_may_call_begins_again_where_it_breaks() -> None:
    import httpx2

    server = Server(thinks=True)
    engine, _ = opened(server)
    text = "a text that is longer than what would be progress, so that it would go on"
    broken = Told([chunk(reasoning="hm"), chunk(text), calls((0, "add", '{"a"')), httpx2.ReadError("gone")])
    server.answers = [broken, Told([chunk(reasoning="hm"), calls((0, "add", '{"a": 7}')), end("tool_calls"), "[DONE]"])]
    events = await answered(engine)
    assert any(isinstance(event, Restarted) for event in events)
    last = events[-1]
    assert isinstance(last, Completion)
    assert last.text == '<tool_call>\n{"name": "add", "arguments": {"a": 7}}\n</tool_call>'


def test_arguments_that_are_no_json_are_kept_as_a_text() -> None:
    found = Calls()
    found.take([CallPart(0, "add", "{oops")])
    assert json.loads(found.spelled(whole=True)[len("<tool_call>\n") : -len("\n</tool_call>")]) == {
        "name": "add",
        "arguments": "{oops",
    }
    assert Calls().spelled(whole=True) == Calls().spelled(whole=False) == ""


@pytest.mark.parametrize("told", [5, [5], [{"function": 5}], [{"function": {"name": 5}}]])
def test_calls_that_are_none_are_faults_of_the_server(told: Any) -> None:
    with pytest.raises(WireError, match="the server sent"):
        read_answer({"choices": [{"delta": {"tool_calls": told}}]})


def test_a_whole_answer_numbers_its_calls_by_place() -> None:
    told = [{"id": "x", "function": {"name": name, "arguments": {"a": 1}}} for name in ("add", "sub")]
    delta = read_answer({"choices": [{"message": {"content": None, "tool_calls": told}}]})
    assert delta.calls == (CallPart(0, "add", '{"a": 1}'), CallPart(1, "sub", '{"a": 1}'))
