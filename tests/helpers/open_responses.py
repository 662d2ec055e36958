"""What the Open Responses specification and OpenAI's client ask of a response and of its stream, and how both add up.

The records of `openresponses_types` are made from the specification's schema; those of `openai` are what its client
reads. A response or an event of ours must be one of each.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_args

from openai.types import responses as theirs
from openresponses_types import types as spec
from pydantic import BaseModel

Json = dict[str, Any]
CREATE = "/v1/responses"
TERMINAL = ("response.completed", "response.incomplete", "response.failed")


def events_of(text: str) -> list[Json]:
    """The events of a stream's text, which says the type of each twice and ends as the specification has it."""
    *blocks, end, rest = [block for block in text.split("\n\n") if not block.startswith(":")]
    assert (end, rest) == ("data: [DONE]", "")
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def check_response(response: Mapping[str, Any]) -> None:
    """Raises pydantic.ValidationError, naming the field, unless it is a response as both have it."""
    spec.ResponseResource.model_validate(response)
    theirs.Response.model_validate(response)


def check_event(event: Mapping[str, Any]) -> None:
    """Raises pydantic.ValidationError or KeyError unless it is an event as both have it."""
    for kinds in (_kinds_of_the_spec(), _kinds_of_openai()):
        kinds[event["type"]].model_validate(event)


def check_stream(events: list[Json]) -> Json:
    """The response that a stream ends with. Every event has the schema, their numbers count from 0, and what is told
    piece by piece adds up to what is told at the end; otherwise AssertionError or pydantic.ValidationError."""
    for event in events:
        check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    types = [event["type"] for event in events]
    assert types[0] == "response.created"
    assert types[1] in ("response.in_progress", "response.queued")
    assert [position for position, type_ in enumerate(types) if type_ in TERMINAL] == [len(events) - 1]
    last: Json = events[-1]["response"]
    check_response(last)
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}
    assert added_up(events) == last["output"]
    return last


def added_up(events: Iterable[Json]) -> list[Json]:
    """The items that a stream tells of, put together from their pieces: one after the other, each done before the
    next begins."""
    items: list[Json] = []
    current: Json | None = None
    for event in events:
        kind = event["type"].removeprefix("response.")
        if "response" in event:
            assert current is None
            continue
        if kind == "output_item.added":
            assert current is None
            assert event["output_index"] == len(items)
            current = {"item": event["item"], "text": "", "said": None}
            assert event["item"]["status"] == "in_progress"
            continue
        assert current is not None
        assert event["output_index"] == len(items)
        if kind == "output_item.done":
            items.append(_done(current, event["item"]))
            current = None
            continue
        assert event["item_id"] == current["item"]["id"]
        if kind.endswith(".delta"):
            assert current["said"] is None
            current["text"] += event["delta"]
        elif kind.endswith("_text.done"):
            current["said"] = event["text"]
        elif kind == "function_call_arguments.done":
            current["said"] = event["arguments"]
        elif kind.endswith("part.done"):
            assert event["part"]["text"] == current["said"]
        else:
            assert kind in ("reasoning_summary_part.added", "content_part.added"), kind
            assert event["part"]["text"] == current["text"] == ""
    assert current is None
    return items


def _done(current: Json, item: Json) -> Json:
    """The item that was written, which must be the one that began."""
    assert item["id"] == current["item"]["id"]
    assert item["type"] == current["item"]["type"]
    assert current["said"] == current["text"] == text_of(item)
    assert item["status"] in ("completed", "incomplete")
    return item


def text_of(item: Json) -> str:
    """All that an item of an output says."""
    if item["type"] == "function_call":
        return str(item["arguments"])
    return "".join(part["text"] for part in item["summary" if item["type"] == "reasoning" else "content"])


@cache
def _kinds_of_the_spec() -> dict[str, type[BaseModel]]:
    """The specification's events by their type."""
    kinds: dict[str, type[BaseModel]] = {}
    kind: Any
    for name, kind in inspect.getmembers(spec, inspect.isclass):
        if name.endswith("StreamingEvent") and issubclass(kind, BaseModel):
            kinds |= {member.value: kind for member in kind.model_fields["type"].annotation or ()}
    return kinds


@cache
def _kinds_of_openai() -> dict[str, type[BaseModel]]:
    """The events that OpenAI's client reads, by their type."""
    union, _ = get_args(theirs.ResponseStreamEvent)
    kinds: tuple[type[BaseModel], ...] = get_args(union)
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in kinds}
