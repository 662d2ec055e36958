"""A response while it is written, and its events for any number of followers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import anyio

from rsa.news import News
from rsa.serve.responses.events import Event
from rsa.serve.responses.response import Response
from rsa.serve.responses.writer import ResponseWriter


@dataclass(frozen=True, slots=True)
class Line:
    """An event as it is sent."""

    type: str
    json: str

    @classmethod
    def of(cls, event: Event) -> Line:
        return cls(event.type, event.model_dump_json())


class LiveResponse:
    """A response and all that was told of it; the n-th line is the event of the number n.

    scope      of the task that writes it.
    run_id     of the run that answers, if it is one.
    error      what it failed with, if it did.
    cancelled  somebody asked that it be cancelled; `deleted`: that it be forgotten.
    """

    def __init__(self, writer: ResponseWriter, lines: Iterable[Line] = ()) -> None:
        self.writer = writer
        self.error: Exception | None = None
        self.scope = anyio.CancelScope()
        self.run_id: str | None = None
        self.cancelled = self.deleted = False
        self._lines = list(lines)
        self._ended = anyio.Event()
        self._news = News()

    @property
    def response(self) -> Response:
        return self.writer.response

    def cancel(self) -> None:
        """Somebody does not want it any more; what was written of it stays."""
        self.cancelled = True
        self.scope.cancel()

    def leave(self) -> None:
        """Who asked for it has gone, and nobody else knows of it."""
        self.deleted = True
        self.scope.cancel()

    def tell(self, events: Iterable[Event]) -> Sequence[Line]:
        """More events, as they will be sent."""
        lines = [Line.of(event) for event in events]
        self._lines += lines
        self._news.tell()
        return lines

    def end(self, error: Exception | None = None) -> None:
        """Nothing more is told."""
        self.error = error
        self._ended.set()
        self._news.tell()

    async def over(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    async def whole(self) -> Response:
        """The response at its end. Raises what it failed with."""
        await self.over()
        if self.error is not None:
            raise self.error
        return self.response

    async def follow(self, after: int = -1) -> AsyncIterator[Line]:
        """The events with a number above `after`, until the last one."""
        position = max(after + 1, 0)
        while True:
            news = self._news.next
            while position < len(self._lines):
                yield self._lines[position]
                position += 1
            if self._ended.is_set():
                return
            await news.wait()
