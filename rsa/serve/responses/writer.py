"""From what is thought, answered and called to the events of a response, and to the response itself.

Nothing here knows the clock or the network: the same calls give the same events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from rsa.serve.responses import events as said
from rsa.serve.responses.events import Event
from rsa.serve.responses.request import Status
from rsa.serve.responses.response import (
    FunctionCall,
    IncompleteDetails,
    OutputItem,
    OutputMessage,
    Reasoning,
    Response,
    ResponseFault,
    ResponseStatus,
    ResponseUsage,
    SummaryText,
    TextPart,
)

EventT = TypeVar("EventT", bound=Event)


class Call(Protocol):
    """A call of a tool; `arguments` is JSON."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> str: ...


class ResponseWriter:
    """One response while it is written. Every method returns the events of what it did, in order.

    An item is added, written and done before the next one is added; its id follows from the response's and its place,
    so that writing the same again gives the same ids.

    response  as it stands; its output has the items that are done.
    number    of the next event.
    index     the place of the next item.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        self.number = self.index = 0
        self._open: _OpenReasoning | _OpenMessage | None = None

    def begin(self) -> list[Event]:
        """The response exists; a `queued` one waits for `start`."""
        events: list[Event] = [self._event(said.Created, response=self.response)]
        if self.response.status == "queued":
            return [*events, self._event(said.Queued, response=self.response)]
        return [*events, self._event(said.InProgress, response=self.response)]

    def start(self) -> list[Event]:
        """It is being worked on: for a queued response, and for one that is taken up again."""
        self._become("in_progress")
        return [self._event(said.InProgress, response=self.response)]

    def reasoning(self, text: str) -> list[Event]:
        """More to read of the thinking."""
        return self._write(_OpenReasoning, text)

    def answer(self, text: str) -> list[Event]:
        """More of the answer's text."""
        return self._write(_OpenMessage, text)

    def tool_calls(self, calls: Iterable[Call]) -> list[Event]:
        """Calls of tools, each whole."""
        events = self.close("completed")
        for call in calls:
            item_id = self._id("fc")
            place = {"item_id": item_id, "output_index": self.index}
            started = FunctionCall(id=item_id, call_id=call.id, name=call.name, arguments="", status="in_progress")
            done = started.model_copy(update={"arguments": call.arguments, "status": "completed"})
            events += [
                self._event(said.ItemAdded, output_index=self.index, item=started),
                self._event(said.ArgumentsDelta, **place, delta=call.arguments),
                self._event(said.ArgumentsDone, **place, name=call.name, arguments=call.arguments),
                self._done(done),
            ]
        return events

    def finish(
        self, *, at: int, usage: ResponseUsage, incomplete: str | None = None, rsa: dict[str, Any] | None = None
    ) -> list[Event]:
        """The end: `incomplete` says why there is no more, if it is not whole. A whole answer without a word is a
        message all the same."""
        ended = None if incomplete is None else IncompleteDetails(reason=incomplete)
        events: list[Event] = []
        if ended is None and not any(item.type != "reasoning" for item in self.response.output):
            events += self._opened(_OpenMessage)[1]
        events += self.close("completed" if ended is None else "incomplete")
        changes = {"usage": usage, "incomplete_details": ended, "rsa": rsa, "completed_at": at}
        if ended is None:
            self._become("completed", **changes)
            return [*events, self._event(said.Completed, response=self.response)]
        self._become("incomplete", **{**changes, "completed_at": None})
        return [*events, self._event(said.Incomplete, response=self.response)]

    def fail(self, code: str, message: str) -> list[Event]:
        """It came to grief; what was written of it stays."""
        events = self.close("incomplete")
        self._become("failed", error=ResponseFault(code=code, message=message))
        return [*events, self._event(said.Failed, response=self.response)]

    def cancel(self) -> list[Event]:
        """Somebody cancelled it; what was written of it stays."""
        events = self.close("incomplete")
        self._become("cancelled")
        return [*events, self._event(said.Incomplete, response=self.response)]

    def void(self) -> list[Event]:
        """It will be worked out anew, because who did so is gone: what was begun of an answer is no part of it."""
        events = self.close("completed" if isinstance(self._open, _OpenReasoning) else "incomplete")
        self._become(
            self.response.status,
            output=tuple(item for item in self.response.output if item.type == "reasoning"),
        )
        return events

    def recall(self, event: Event) -> None:
        """Take an event of an earlier process for one of its own: what follows goes on from there."""
        self.number = event.sequence_number + 1
        match event:
            case said.ItemAdded(item=Reasoning()):
                self._open = _OpenReasoning(event.item.id, event.output_index)
            case said.ItemAdded(item=OutputMessage()):
                self._open = _OpenMessage(event.item.id, event.output_index)
            case said.SummaryDelta() | said.TextDelta() if self._open is not None:
                self._open.pieces.append(event.delta)
            case said.ItemDone():
                self._open = None
                self._keep(event.item)
            case _:
                pass

    def close(self, status: Status) -> list[Event]:
        """The item that goes on, if there is one, goes on no more."""
        item, self._open = self._open, None
        if item is None:
            return []
        return [
            self._event(item.text_done, **item.place, text=item.text),
            self._event(item.part_done, **item.place, part=item.part()),
            self._done(item.ended(status)),
        ]

    def _write(self, kind: type[_OpenReasoning | _OpenMessage], text: str) -> list[Event]:
        if not text:
            return []
        item, events = self._opened(kind)
        item.pieces.append(text)
        return [*events, self._event(item.delta, **item.place, delta=text)]

    def _opened(self, kind: type[_OpenReasoning | _OpenMessage]) -> tuple[_OpenReasoning | _OpenMessage, list[Event]]:
        """The open item, of this kind, and the events of closing another one and opening it."""
        if isinstance(self._open, kind):
            return self._open, []
        events = self.close("completed")
        self._open = item = kind(self._id(kind.prefix), self.index)
        added = self._event(said.ItemAdded, output_index=self.index, item=item.started())
        return item, [*events, added, self._event(item.part_added, **item.place, part=item.part())]

    def _done(self, item: OutputItem) -> Event:
        event = self._event(said.ItemDone, output_index=self.index, item=item)
        self._keep(item)
        return event

    def _keep(self, item: OutputItem) -> None:
        self._become(self.response.status, output=(*self.response.output, item))
        self.index += 1

    def _become(self, status: ResponseStatus, **changes: Any) -> None:
        self.response = self.response.model_copy(update={"status": status, **changes})

    def _event(self, kind: type[EventT], **fields: Any) -> EventT:
        event = kind(sequence_number=self.number, **fields)
        self.number += 1
        return event

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self.response.id.removeprefix('resp_')}_{self.index}"


class _Open:
    """An item that goes on."""

    def __init__(self, item_id: str, index: int) -> None:
        self.place = {"item_id": item_id, "output_index": index}
        self.id = item_id
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _OpenReasoning(_Open):
    prefix = "rs"
    part_added = said.SummaryPartAdded
    delta = said.SummaryDelta
    text_done = said.SummaryDone
    part_done = said.SummaryPartDone

    def part(self) -> SummaryText:
        return SummaryText(text=self.text)

    def started(self) -> OutputItem:
        return Reasoning(id=self.id, status="in_progress")

    def ended(self, status: Status) -> OutputItem:
        return Reasoning(id=self.id, summary=(self.part(),), status=status)


class _OpenMessage(_Open):
    prefix = "msg"
    part_added = said.PartAdded
    delta = said.TextDelta
    text_done = said.TextDone
    part_done = said.PartDone

    def part(self) -> TextPart:
        return TextPart(text=self.text)

    def started(self) -> OutputItem:
        return OutputMessage(id=self.id, status="in_progress")

    def ended(self, status: Status) -> OutputItem:
        return OutputMessage(id=self.id, content=(self.part(),), status=status)
