"""The cases of the Open Responses compliance suite, restated, against a real server: of a model and of a run on it.

Each answer has the specification's schema, and so has each event of a stream (`open_responses`).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from open_responses import CREATE, Json, check_response, check_stream, events_of
from PIL import Image
from serving import served_process

PLAY = r"""
from engine.script import Script

CALL = '<tool_call>{"name": "get_weather", "arguments": {"location": "San Francisco, CA"}}</tool_call>'

def script(request):
    seen = sum(len(message.images) for message in request.messages)
    roles = ", ".join(message.role for message in request.messages)
    return Script(reasoning="What did they ask?", answer=CALL if request.tools else f"Read {roles}; {seen} images.")
"""


def picture() -> str:
    """A small red square, as the data: URL of a PNG file."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def message(role: str, content: Any) -> Json:
    return {"type": "message", "role": role, "content": content}


WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place, now",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "A city and its state"}},
        "required": ["location"],
    },
}
ASKS_FOR_WEATHER = message("user", "How is the weather in San Francisco?")


@dataclass(frozen=True)
class Case:
    """A request, and what its answer must have: text of a message, an item of a type, events of a stream."""

    input: list[Json]
    more: Json = field(default_factory=dict)
    stream: bool = False
    item: str = "message"
    text: str = ""
    events: tuple[str, ...] = ()


CASES = {
    "basic": Case([message("user", "Say hello in three words.")], text="Read user; 0 images."),
    "streaming": Case([message("user", "Count to five.")], stream=True, events=("response.output_text.delta",)),
    "system": Case(
        [message("system", "Speak as a pirate does."), message("user", "Say hello.")],
        text="Read system, user; 0 images.",
    ),
    "tool call": Case([ASKS_FOR_WEATHER], {"tools": [WEATHER]}, item="function_call"),
    "tool call, streaming": Case(
        [ASKS_FOR_WEATHER],
        {"tools": [WEATHER]},
        stream=True,
        item="function_call",
        events=("response.function_call_arguments.delta", "response.function_call_arguments.done"),
    ),
    "image": Case(
        [
            message(
                "user",
                [
                    {"type": "input_text", "text": "What is in this picture?"},
                    {"type": "input_image", "image_url": picture()},
                ],
            )
        ],
        text="Read user; 1 images.",
    ),
    "several turns": Case(
        [
            message("user", "My name is Alice."),
            message("assistant", "Hello Alice! What can I do for you?"),
            message("user", "What is my name?"),
        ],
        text="Read user, assistant, user; 0 images.",
    ),
}
MODELS: dict[str, Json] = {
    "model": {"model": "play"},
    "run": {"model": "play:rsa", "rsa": {"n": 3, "t": 1, "c": 2}},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("compliance")
    (folder / "play.py").write_text(PLAY)
    with served_process("--model", "play=scripted:play.py", "--runs", "runs", cwd=folder) as (_, url):
        yield url


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_the_suites_case(url: str, case: str, model: str) -> None:
    wanted = CASES[case]
    body = {**MODELS[model], "input": wanted.input, **wanted.more, "stream": wanted.stream}
    answer = httpx2.post(url + CREATE, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text) if wanted.stream else []
    found = check_stream(events) if wanted.stream else answer.json()
    check_response(found)
    assert found["status"] == "completed"
    (item,) = [item for item in found["output"] if item["type"] == wanted.item]
    if wanted.text:
        assert item["content"][0]["text"] == wanted.text
    assert {*wanted.events} <= {event["type"] for event in events}
