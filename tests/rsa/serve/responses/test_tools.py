"""Tools at `/v1/responses`: offered, called, answered; of the model itself and of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from open_responses import CREATE, Json, check_response, check_stream, events_of, text_of
from serving import Serving, serving

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "name": "weather", "description": "Of a city.", "parameters": SCHEMA, "strict": True},
    {"type": "function", "name": "now"},
]
CALLS = """I look it up.
<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>
<tool_call>{"name": "now", "arguments": {}}</tool_call>"""
RUN: Json = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 1, "c": 2}, "seed": 5}
QUESTION = "How is the weather in Paris?"
BODY = {"model": "scripted", "input": QUESTION, "tools": TOOLS}


def script(request: GenerationRequest) -> Script:
    """It calls tools if it has any, and says what came of it."""
    results = [message.text for message in request.messages if message.role == "tool"]
    if results:
        return Script("so it is", f"It says {' and '.join(results)}.")
    return Script("hm", CALLS if request.tools else "No tools.")


def engine() -> ScriptedEngine:
    return ScriptedEngine(script)


async def ask(server: Serving, **fields: Any) -> Json:
    response = await server.post(CREATE, {**BODY, **fields})
    assert response.status_code == 200, response.text
    found: Json = check_stream(events_of(response.text)) if fields.get("stream") else response.json()
    check_response(found)
    return found


def called(response: Json) -> list[tuple[str, Any]]:
    return [
        (item["name"], json.loads(item["arguments"])) for item in response["output"] if item["type"] == "function_call"
    ]


def said(response: Json) -> str:
    return "".join(text_of(item) for item in response["output"] if item["type"] == "message")


def results_of(response: Json) -> list[Json]:
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [
        {"type": "function_call_output", "call_id": call["call_id"], "output": f"{call['name']} is fine"}
        for call in calls
    ]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_calls_are_items(tmp_path: Path, fields: Json, stream: bool) -> None:
    async with serving(engine, tmp_path) as server:
        found = await ask(server, stream=stream, **fields)
    assert found["status"] == "completed"
    assert called(found) == [("weather", {"city": "Paris"}), ("now", {})]
    assert said(found).strip() == "I look it up."
    assert [tool["name"] for tool in found["tools"]] == ["weather", "now"]


@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_results_come_back_after_a_response(tmp_path: Path, fields: Json) -> None:
    async with serving(engine, tmp_path) as server:
        first = await ask(server, **fields)
        second = await ask(server, input=results_of(first), previous_response_id=first["id"], **fields)
    assert said(second) == "It says weather is fine and now is fine."


async def test_results_come_back_with_all_items(tmp_path: Path) -> None:
    engines = [engine()]
    async with serving(lambda: engines[0], tmp_path) as server:
        first = await ask(server)
        question = {"role": "user", "content": QUESTION}
        second = await ask(server, input=[question, *first["output"], *results_of(first)])
    assert said(second) == "It says weather is fine and now is fine."
    (_, assistant, *results) = engines[0].requests[-1].messages
    assert assistant.text.strip() == "I look it up."
    assert [call.id for call in assistant.calls] == [result.answers for result in results]


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ("auto", ["weather", "now"]),
        ("none", []),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "now"}]}, ["now"]),
        ({"type": "allowed_tools", "mode": "none", "tools": [{"type": "function", "name": "now"}]}, []),
    ],
    ids=["auto", "none", "allowed", "allowed-none"],
)
async def test_a_choice_of_tools_says_which_the_model_is_told_of(tmp_path: Path, choice: Any, calls: list[str]) -> None:
    engines = [engine()]
    async with serving(lambda: engines[0], tmp_path) as server:
        found = (await server.post(CREATE, {**BODY, "tool_choice": choice})).json()
    assert [tool.name for tool in engines[0].requests[0].tools] == calls
    assert found["tool_choice"] == (choice if isinstance(choice, str) else {"mode": "auto", **choice})


async def test_one_call_alone_where_several_are_not_wanted(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await ask(server, parallel_tool_calls=False)
    assert called(found) == [("weather", {"city": "Paris"})]
