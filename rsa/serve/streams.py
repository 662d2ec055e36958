"""Responses that notice who leaves: event streams, and answers that are waited for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from rsa.serve.answering import Answering

T = TypeVar("T")
KEEP_ALIVE = "keep-alive"
DONE = ServerSentEvent(data="[DONE]", sep="\n")
"""The end of a stream of chat completions."""

# A stream must end when its answer does, or when the server's grace is over, which `rsa.serve.running` sees to; by
# default sse-starlette ends all streams as soon as the server is asked to end.
AppStatus.enable_automatic_graceful_drain = False


def event(data: Any, *, name: str | None = None, number: int | None = None) -> ServerSentEvent:
    """An event of a stream: `data` as JSON, or a text as it is."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return ServerSentEvent(data=text, event=name, id=None if number is None else str(number), sep="\n")


class EventStream(EventSourceResponse):
    """A stream of events, with a comment at least every `keep_alive_s`. Whatever happens to it, `leave` is called."""

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], *, keep_alive_s: float, leave: Callable[[], None] | None = None
    ) -> None:
        super().__init__(
            events,
            ping=keep_alive_s,
            ping_message_factory=lambda: ServerSentEvent(comment=KEEP_ALIVE, sep="\n"),
            sep="\n",
        )
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._leave is not None:
                self._leave()


async def begun_soon(answering: Answering, within_s: float) -> None:
    """Wait a little for an answer to begin. Raises what hinders it, if that shows in time; then it may still be an HTTP
    status, and is an event of the stream afterwards."""
    with anyio.move_on_after(within_s):
        await answering.begun()


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, for as long as the client waits for it.

    Raises starlette.requests.ClientDisconnect, with the work cancelled, when the client goes away.
    """
    results: list[T] = []
    error: Exception | None = None

    async def watch(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        try:  # an error leaves by hand: out of the group it would come wrapped
            results.append(await work)
        except Exception as trouble:
            error = trouble
        group.cancel_scope.cancel()
    if error is not None:
        raise error
    if not results:
        raise ClientDisconnect
    return results[0]
