"""Tools at `/v1/chat/completions`: offered, called, answered; of the model itself and of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import Serving, serving

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa.serve.settings import models_served

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
XML = (
    "I look it up.\n<zyphra_tool_call>\n<function=weather>\n<parameter=city>\nParis<br>\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</zyphra_tool_call>\n"
    '<tool_call>\n{"name": "now"}\n</tool_call>'
)
RSA: dict[str, Any] = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 1, "c": 2}, "seed": 5}


def script(request: GenerationRequest) -> Script:
    """It calls tools if it has any, and says what came of it."""
    result = next((message.text for message in request.messages if message.role == "tool"), None)
    if result is not None:
        return Script("so it is", f"\n\nIt says {result}.")
    return Script("hm", f"\n\n{XML}" if request.tools else "\n\nNo tools.")


def engine() -> ScriptedEngine:
    return ScriptedEngine(script, tokens_per_step=3)


def called(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]


@pytest.mark.parametrize("fields", [{}, {"n": 2}, RSA], ids=["one", "two", "run"])
async def test_calls_are_taken_out_of_the_text(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(engine, tmp_path) as server:
        found = await server.chat(tools=TOOLS, **fields)
    ids = set()
    for choice in found["choices"]:
        message = choice["message"]
        assert (message["content"], choice["finish_reason"]) == ("I look it up.", "tool_calls")
        assert called(message) == [("weather", {"city": "Paris<br>", "days": 3}), ("now", {})]
        assert all(call["type"] == "function" for call in message["tool_calls"])
        ids |= {call["id"] for call in message["tool_calls"]}
    assert len(ids) == 2 * len(found["choices"])
    if "rsa" in found:
        assert found["rsa"]["votes"] == [
            {"answer": 'weather(city="Paris<br>", days=3); now()', "count": 3, "of": 3, "share": 1.0}
        ]


@pytest.mark.parametrize("fields", [{}, {"n": 2}, RSA], ids=["one", "two", "run"])
async def test_a_stream_has_the_calls_of_a_whole_answer(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(engine, tmp_path) as server:
        whole = await server.chat(tools=TOOLS, **fields)
        chunks = await server.chat_chunks(tools=TOOLS, **fields)
    for choice in whole["choices"]:
        mine = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        deltas = [each["delta"] for each in mine]
        assert "".join(delta.get("content") or "" for delta in deltas) == choice["message"]["content"]
        calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
        assert [call["index"] for call in calls] == [0, 1]
        assert called({"tool_calls": calls}) == called(choice["message"])
        assert [each["finish_reason"] for each in mine if each["finish_reason"]] == ["tool_calls"]


async def conversation(server: Serving, **fields: Any) -> dict[str, Any]:
    """The answer to the results of all calls."""
    asked = [{"role": "user", "content": "Is it warm?"}]
    message = (await server.chat(tools=TOOLS, messages=asked, **fields))["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"{call['function']['name']}: 21"}
        for call in message["tool_calls"]
    ]
    found = await server.chat(tools=TOOLS, messages=[*asked, message, *results], **fields)
    told: dict[str, Any] = found["choices"][0]
    return told


@pytest.mark.parametrize("fields", [{}, RSA], ids=["model", "run"])
async def test_results_of_calls_are_read(tmp_path: Path, fields: dict[str, Any]) -> None:
    opened: list[ScriptedEngine] = []

    def watched() -> ScriptedEngine:
        opened.append(engine())
        return opened[-1]

    async with serving(watched, tmp_path) as server:
        choice = await conversation(server, **fields)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It says weather: 21.", "stop")
    assert "tool_calls" not in choice["message"]
    messages = opened[0].requests[-1].messages
    assert [message.role for message in messages[:4]] == ["user", "assistant", "tool", "tool"]
    assert [call.id for call in messages[1].calls] == [message.answers for message in messages[2:4]]
    assert [tool.name for tool in opened[0].requests[-1].tools] == ["weather", "now"]


async def test_tools_that_are_not_to_be_called_are_not_told_of(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        without: list[dict[str, Any]] = [{"tool_choice": "none", "tools": TOOLS}, {"tools": []}, {}]
        for fields in without:
            message = (await server.chat(**fields))["choices"][0]["message"]
            assert (message["content"], "tool_calls" in message) == ("No tools.", False)
        assert "tool_calls" in (await server.chat(tools=TOOLS, tool_choice="auto"))["choices"][0]["message"]


@pytest.mark.parametrize("fields", [{}, RSA], ids=["model", "run"])
async def test_without_parallel_calls_the_first_one_is_returned(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(engine, tmp_path) as server:
        whole = await server.chat(tools=TOOLS, parallel_tool_calls=False, **fields)
        chunks = await server.chat_chunks(tools=TOOLS, parallel_tool_calls=False, **fields)
    streamed = [call for chunk in chunks for each in chunk["choices"] for call in each["delta"].get("tool_calls", [])]
    for message in (whole["choices"][0]["message"], {"tool_calls": streamed}):
        assert [name for name, _ in called(message)] == ["weather"]


async def test_arguments_that_votes_leave_out(tmp_path: Path) -> None:
    def of_its_own(request: GenerationRequest) -> Script:
        days = request.sampling.seed % 1000
        return Script("hm", f'<tool_call>\n{{"name": "weather", "arguments": {{"days": {days}}}}}\n</tool_call>')

    async with serving(lambda: ScriptedEngine(of_its_own), tmp_path) as server:
        apart = await server.chat(tools=TOOLS, **RSA)
        joined = await server.chat(tools=TOOLS, **{**RSA, "rsa": {**RSA["rsa"], "uncompared": ["weather.days"]}})
    assert [vote["count"] for vote in apart["rsa"]["votes"]] == [1, 1, 1]
    assert [vote["count"] for vote in joined["rsa"]["votes"]] == [3]


async def test_calls_come_through_a_server_behind_a_server(tmp_path: Path) -> None:
    """Our client of servers takes calls from one that has taken them out of the text."""
    async with serving(engine, tmp_path / "behind") as behind:
        (far,) = models_served(["far=openai:scripted"], {"base_url": [f"{behind.url}/v1"]})
        async with serving(engine, tmp_path / "before", models=[far]) as server:
            for fields in ({}, RSA):
                choice = await conversation(server, **{**fields, "model": "far"})
                assert (choice["message"]["content"], choice["finish_reason"]) == ("It says weather: 21.", "stop")
                message = (await server.chat(tools=TOOLS, **{**fields, "model": "far"}))["choices"][0]["message"]
                assert message["content"] == "I look it up."
                assert called(message) == [("weather", {"city": "Paris<br>", "days": 3}), ("now", {})]


NAMED = {"type": "function", "function": {"name": "now"}}


@pytest.mark.parametrize("fields", [{}, RSA], ids=["model", "run"])
async def test_an_answer_without_a_call_that_is_required_is_an_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The first question is answered with a call, the second one without."""
    body = {"model": "scripted", "tools": TOOLS, "tool_choice": "required", **fields}
    plain = Script("hm", "No call.")
    async with serving(
        lambda: ScriptedEngine(lambda r: plain if "SILENT" in r.messages[0].text else script(r)), tmp_path
    ) as server:
        found = await server.chat("Call!", **{**body, "tool_choice": NAMED})
        assert [name for name, _ in called(found["choices"][0]["message"])] == ["now"], "it is told of no other"
        messages = [{"role": "user", "content": "SILENT"}]
        whole, streamed = [
            await server.post("/v1/chat/completions", {**body, "messages": messages, "stream": stream})
            for stream in (False, True)
        ]
    assert whole.status_code == 422
    for response in (whole, streamed):
        error = told_error(response)
        assert (error["param"], error["code"]) == ("tool_choice", "no_tool_call")


def told_error(response: httpx2.Response) -> dict[str, Any]:
    """The error of a response: its body, or the last event of a stream that had begun before it was known."""
    told = response.text
    if response.status_code == 200:
        *_, told = (line for line in told.splitlines() if line.startswith("data: {"))
    error: dict[str, Any] = json.loads(told.removeprefix("data: "))["error"]
    return error


async def test_where_a_call_is_required_calls_alone_are_voted_on(tmp_path: Path) -> None:
    def mostly_silent(request: GenerationRequest) -> Script:
        calls = request.id.endswith("c02")
        return Script("hm", '<tool_call>\n{"name": "now"}\n</tool_call>' if calls else "No call.")

    async with serving(lambda: ScriptedEngine(mostly_silent), tmp_path) as server:
        auto, required = [await server.chat(tools=TOOLS, tool_choice=each, **RSA) for each in ("auto", "required")]
    assert auto["choices"][0]["message"]["content"] == "No call."
    message = required["choices"][0]["message"]
    assert ([name for name, _ in called(message)], message["content"]) == (["now"], None)


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **fields}}]}


def turns(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}, *messages], "tools": TOOLS}


def call(arguments: Any = "{}", **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "now", "arguments": arguments}, **fields}


ASSISTANT = {"role": "assistant", "content": None}
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (function(parameters={"type": "strnig"}), "tools[0].function.parameters", "its type is 'strnig'"),
    (function(parameters={"properties": {"a": 5}}), "tools[0].function.parameters", "at properties/a"),
    (function(parameters=[1]), "tools[0].function.parameters", ""),
    (function(parameters={"$ref": 5}), "tools[0].function.parameters", ""),
    (function(name=""), "tools[0].function.name", "no name that can be called"),
    (function(name="a b"), "tools[0].function.name", "no name that can be called"),
    (function(name=5), "tools[0].function.name", ""),
    (function(description=5), "tools[0].function.description", ""),
    (function(parametrs={}), "tools[0].function.parametrs", ""),
    ({"tools": [*TOOLS, TOOLS[1]]}, "tools[2].function.name", "tools[1].function has the name 'now', too"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", ""),
    ({"tools": "weather"}, "tools", ""),
    ({"tools": [function(name=f"f{i}")["tools"][0] for i in range(129)]}, "tools", "128 at most"),
    ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice", "should be 'auto', 'none', 'required' or"),
    ({"tools": TOOLS, "tool_choice": {"type": "custom", "name": "now"}}, "tool_choice", "should be 'auto'"),
    ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice", "names 'now', which is not"),
    ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "tool_choice = 'any'"),
    ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls", ""),
    (turns({"role": "tool", "content": "21"}), "messages[1].tool_call_id", "says which call it answers"),
    (turns({"role": "tool", "content": "21", "tool_call_id": "c9"}), "messages[1].tool_call_id", "the call 'c9'"),
    (turns({"role": "user", "content": "a", "tool_call_id": "c1"}), "messages[1].tool_call_id", "role 'tool'"),
    (turns({"role": "user", "content": "a", "tool_calls": [call()]}), "messages[1].tool_calls", "only an assistant"),
    (turns({**ASSISTANT, "tool_calls": [call()]}), "messages", "ends with a turn of the assistant"),
    (turns({**ASSISTANT, "tool_calls": [call("{")]}), "messages[1].tool_calls[0].function.arguments", "JSON object"),
    (turns({**ASSISTANT, "tool_calls": [call({})]}), "messages[1].tool_calls[0].function.arguments", ""),
    (turns({**ASSISTANT, "tool_calls": [call(type="custom")]}), "messages[1].tool_calls[0].type", ""),
    (turns({**ASSISTANT, "tool_calls": [call(id="")]}), "messages[1].tool_calls[0].id", ""),
]


async def test_what_is_no_tool_or_no_call_is_refused_by_its_field(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        for fields, param, words in FAULTS:
            for model in ("scripted", "scripted:rsa"):
                body = {"messages": [{"role": "user", "content": "x"}], **fields, "model": model}
                response = await server.post("/v1/chat/completions", body)
                error = response.json()["error"]
                assert (response.status_code, error["param"]) == (400, param), error
                assert words in error["message"]
                assert "\n" not in error["message"]


@pytest.mark.parametrize("fields", [{}, RSA], ids=["model", "run"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_calls_no_tools_says_so(tmp_path: Path, fields: dict[str, Any], stream: bool) -> None:
    async with serving(lambda: ScriptedEngine(script, tools=False), tmp_path) as server:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "stream": stream}
        response = await server.post("/v1/chat/completions", {**body, **fields})
    error = told_error(response)
    assert error["param"] == "tools"
    assert "calls no tools: use a model whose chat template has a place for them" in error["message"]
