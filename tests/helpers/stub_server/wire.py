"""HTTP/1.1 over a plain socket, as much as a stub server needs: so that it can also break it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection; None if it was closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = first.split(" ", 2)
    path = urlsplit(target).path  # of a whole URL, if the client takes this for a proxy
    return Asked(method, path, headers, json.loads(body) if body else None)


class Reply:
    """What goes back: one whole answer, or a head and then chunks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def left(self) -> bool:
        """Whether the other side has gone away."""
        return self._reader.at_eof() or self._writer.is_closing()

    def whole(self, status: int, body: Any, **headers: str) -> None:
        """An answer of JSON; of a text, as a page."""
        page = isinstance(body, str)
        data = body.encode() if page else b"" if body is None else json.dumps(body).encode()
        kind = "text/html" if page else "application/json"
        self._head(status, **{"Content-Type": kind, "Content-Length": str(len(data)), **headers})
        self._writer.write(data)

    def begin_stream(self) -> None:
        self._head(200, **{"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})

    def send(self, event: bytes) -> None:
        """One event of a stream, in a chunk of its own."""
        self._writer.write(b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event))

    def end_stream(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    async def drain(self) -> None:
        await self._writer.drain()

    async def until_left(self) -> None:
        """Wait for the other side to go away."""
        while await self._reader.read(1024):
            pass

    def break_off(self) -> None:
        """Close the connection as a process that dies does."""
        self._writer.transport.abort()

    def _head(self, status: int, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}", *(f"{name}: {headers[name]}" for name in headers)]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
