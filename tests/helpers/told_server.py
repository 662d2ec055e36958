"""A server that answers as it is told, in place of the network: an httpx2 transport."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

MODEL = "told"
URL = "http://told/v1"


@dataclass(frozen=True)
class Told:
    """An answer: `events` of a stream, each an object, a raw line, or an error that breaks it; or a status and a body.

    whole  the events are one answer, and no stream.
    """

    events: Sequence[Any] = ()
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False


def chunk(text: str = "", *, reasoning: str = "", field: str = "reasoning", **more: Any) -> dict[str, Any]:
    """A chunk of a stream of chat completions. more: of its choice, or `usage`, `prompt_token_ids`."""
    beside: dict[str, Any] = {name: more.pop(name) for name in ("usage", "prompt_token_ids") if name in more}
    delta = {**({"content": text} if text else {}), **({field: reasoning} if reasoning else {})}
    return {"choices": [{"index": 0, "delta": delta, **more}], **beside}


def end(why: str = "stop") -> dict[str, Any]:
    return chunk(finish_reason=why)


def said(*texts: str, why: str = "stop") -> Told:
    """A stream of texts that ends well."""
    return Told([*(chunk(text) for text in texts), end(why), "[DONE]"])


class Stream(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    def __init__(self, events: Sequence[Any]) -> None:
        self.events = events

    def parts(self) -> Iterator[bytes]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        return self.parts()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts():
            yield part


class ToldServer(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Gives `answer(path, body)` to each request for a completion, and lists its model; all else is 404.

    Attributes:
        bodies   of the requests for completions, with their path and their URL's host, in order.
        headers  of all requests.
    """

    def __init__(self, answer: Callable[[str, dict[str, Any]], Told | Exception]) -> None:
        self.answer = answer
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.hosts: list[str] = []
        self.headers: list[httpx2.Headers] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self.respond(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return self.respond(request)

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        self.headers.append(request.headers)
        if request.url.path.endswith("/models"):
            return httpx2.Response(200, json={"data": [{"id": MODEL, "owned_by": "told"}]})
        path = request.url.path.removeprefix("/v1")
        body = json.loads(request.content) if request.content else {}
        if path in ("/chat/completions", "/completions"):
            self.bodies.append((path, body))
            self.hosts.append(request.url.host)
        told = self.answer(path, body)
        if isinstance(told, Exception):
            raise told
        if told.status != 200 or told.body is not None:
            return httpx2.Response(told.status, json=told.body, headers=dict(told.headers))
        if told.whole:
            return httpx2.Response(200, json=told.events[0])
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Stream(told.events))
