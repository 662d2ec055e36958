"""Responses of the past: told again as events, or taken up where their events end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsa.serve.responses.events import Event
from rsa.serve.responses.response import Response, ResponseUsage
from rsa.serve.responses.writer import ResponseWriter

_NOTHING = {
    "status": "in_progress",
    "output": (),
    "usage": None,
    "rsa": None,
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
}
"""What a response is before anything was done."""


def recalled(response: Response, events: Iterable[Event]) -> ResponseWriter:
    """The writer of a response whose `events` an earlier process has told."""
    writer = ResponseWriter(response.model_copy(update=_NOTHING))
    for event in events:
        writer.recall(event)
    return writer


def replayed(response: Response) -> list[Event]:
    """The events that a response which has ended might have had, each text in one piece, numbered from 0."""
    writer = ResponseWriter(response.model_copy(update=_NOTHING))
    events = writer.begin()
    for item in response.output:
        if item.type == "function_call":
            events += writer.tool_calls([_Call(item.call_id, item.name, item.arguments)])
        else:
            tell = writer.reasoning if item.type == "reasoning" else writer.answer
            parts = item.summary if item.type == "reasoning" else item.content
            events += tell("".join(part.text for part in parts)) + writer.close(item.status)
    return [*events, *_ending(writer, response)]


def _ending(writer: ResponseWriter, response: Response) -> list[Event]:
    if response.status == "failed" and response.error is not None:
        return writer.fail(response.error.code, response.error.message)
    if response.status == "cancelled":
        return writer.cancel()
    return writer.finish(
        at=response.completed_at or response.created_at,
        usage=response.usage or ResponseUsage(),
        incomplete=response.incomplete_details.reason if response.incomplete_details is not None else None,
        rsa=response.rsa,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """A call as it stands in a response."""

    id: str
    name: str
    arguments: str
