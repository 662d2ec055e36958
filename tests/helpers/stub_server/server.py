"""A server that speaks like vLLM, SGLang, llama.cpp or OpenAI, writes letters by the seed, and fails as it is told to.

It reads and writes sockets itself, so that it can cut a stream, send half a chunk, or say nothing. What it has seen and
done stands in `StubServer.seen`, and at GET /stub for whoever is in another process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stub_server.answers import Model, Refused, Work, chat_prompt
from stub_server.faults import BEFORE, SPOILING, WITHIN, Fault, FaultPlan
from stub_server.pace import Pace
from stub_server.shapes import Dialect, dialect
from stub_server.wire import Asked, Reply, read_request
from stub_server.writing import Writer, decode, encode

_TURNS_TO_LET_IN = 3
"""Turns of the loop from a socket's acceptance to its connection: its task, its transport, what it is let in with."""


@dataclass
class Seen:
    """Completions asked for, at work now and at most, given up by clients; events sent; the last requests."""

    asked: int = 0
    active: int = 0
    most: int = 0
    left: int = 0
    events: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    bodies: deque[Any] = field(default_factory=lambda: deque(maxlen=200))

    def counts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "bodies"}


class StubServer:
    """One server, of one dialect and one model.

    model         its name; another is refused.
    key           what must be sent as a bearer's key; None: nothing.
    refused_from  requests for so many tokens are refused: a model that cannot do everything.
    tokens_per_s  of all streams together; None: as fast as it can.
    tls           certificate and key.
    """

    def __init__(
        self,
        speaks: Dialect | str = "vllm",
        writer: Writer | None = None,
        *,
        model: str = "tiny",
        faults: FaultPlan | None = None,
        key: str | None = None,
        refused_from: int | None = None,
        tokens_per_s: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.dialect = dialect(speaks) if isinstance(speaks, str) else speaks
        self.model = Model(model, writer or Writer(), refused_from)
        self.key, self.faults = key, faults or FaultPlan()
        self.seen = Seen()
        self.port = 0
        self._tls = tls
        self._pace = None if tokens_per_s is None else Pace(tokens_per_s)
        self._listening: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)

    # ---- its life

    async def listen(self) -> None:
        """Begin to listen: at a free port at first, at the same one after `die`."""
        self._listening = await asyncio.start_server(self._let_in, "127.0.0.1", self.port, ssl=self._tls, backlog=1024)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Break every connection and refuse new ones.

        asyncio loses a socket that it has accepted and not yet let in when the listener closes: those come in first.
        """
        if self._listening is not None:
            for listener in self._listening.sockets:
                asyncio.get_running_loop().remove_reader(listener)
            for _ in range(_TURNS_TO_LET_IN):
                await asyncio.sleep(0)
            self._listening.close()
        for connection in list(self._connections):
            connection.transport.abort()

    async def end(self) -> None:
        """Die, and leave no task and no socket behind."""
        await self.die()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # sockets are closed a turn after their transports

    def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No coroutine: a connection is known from its first moment, before its task begins."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[writer] = task
        task.add_done_callback(lambda _: self._connections.pop(writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await read_request(reader)) is not None:
                reply = Reply(reader, writer)
                self.seen.paths[asked.path] += 1
                await self._answer(asked, reply)
                with suppress(ConnectionError):
                    await reply.drain()
                if reply.left:
                    break
        finally:
            writer.close()

    # ---- what it is asked

    async def _answer(self, asked: Asked, reply: Reply) -> None:
        try:
            if asked.path == "/stub":
                reply.whole(200, {**self.seen.counts(), "injected": self.faults.injected})
                return
            if self.key is not None and asked.headers.get("authorization") != f"Bearer {self.key}":
                given = asked.headers.get("authorization", "").removeprefix("Bearer ")
                raise Refused(401, f"Incorrect API key provided: {given}.", "invalid_request_error", "invalid_api_key")
            if asked.path in ("/v1/chat/completions", "/v1/completions"):
                await self._complete(asked, reply)
            else:
                reply.whole(200, self._fact(asked))
        except Refused as refused:
            reply.whole(refused.status, self._error(refused.status, str(refused), refused.kind, refused.reason))

    def _error(self, status: int, message: str, kind: str, reason: str | None = None) -> Any:
        return self.dialect.filled("error", message=message, type=kind, code=status, reason=reason)

    def _fact(self, asked: Asked) -> Any:
        """What needs no model: what there is, and tokens."""
        values = {"model": self.model.name, "context": self.model.writer.context}
        shapes = self.dialect.shapes
        if asked.path == "/v1/models":
            return {"object": "list", "data": [self.dialect.filled("model", **values)]}
        if asked.path in shapes["facts"]:
            return self.dialect.filled("facts", **values)[asked.path]
        if shapes["tokenize"] and asked.path == shapes["tokenize"]["path"]:
            ids = self._tokens_of(asked.body)
            return self.dialect.filled("tokenize", ids=ids, count=len(ids), **values)["told"]
        if shapes["detokenize"] and asked.path == shapes["detokenize"]["path"]:
            return self.dialect.filled("detokenize", text=decode(asked.body["tokens"]))["told"]
        raise Refused(404, "Not Found", "NotFoundError")

    def _tokens_of(self, body: Any) -> list[int]:
        if "messages" in body:
            return chat_prompt(self.model.writer, self.dialect, body)
        text: str = body[self.dialect.shapes["tokenize"]["asked"]]
        added = body.get(self.dialect.shapes["tokenize"]["special"], self.dialect.name != "llama.cpp")
        return [*encode("<bos>" if added else ""), *encode(text)]

    # ---- completions

    async def _complete(self, asked: Asked, reply: Reply) -> None:
        self.seen.asked += 1
        self.seen.active += 1
        self.seen.most = max(self.seen.most, self.seen.active)
        self.seen.bodies.append(asked.body)
        try:
            chat = asked.path == "/v1/chat/completions"
            work = Work(self.model, self.dialect, asked.body, chat=chat, number=next(self._numbers))
            fault = self.faults.next()
            if fault is not None and fault.kind in BEFORE and not await self._fails(fault, reply):
                return
            streams = asked.body.get("stream", False) and self.dialect.streaming != "ignored"
            await (self._stream(work, reply, fault) if streams else self._whole(work, reply, fault))
        except ConnectionError:
            self.seen.left += 1
        finally:
            self.seen.active -= 1

    async def _fails(self, fault: Fault, reply: Reply) -> bool:
        """Do what the fault says; whether the answer comes all the same."""
        self.faults.injected[fault.kind] += 1
        match fault.kind:
            case "silence":
                await reply.until_left()
            case "reset":
                reply.break_off()
            case "429":
                body = self.dialect.filled(
                    "error", message="slow down", type="rate_limit", code=429, reason="rate_limit"
                )
                reply.whole(429, body, **{"Retry-After": f"{fault.value:g}"})
            case "500" | "503":
                body = self.dialect.filled(
                    "error", message="it broke", type="InternalServerError", code=500, reason=None
                )
                reply.whole(int(fault.kind), body)
            case "html":
                reply.whole(200, "<html><body>Please log in</body></html>")
            case "empty":
                reply.whole(200, None)
            case "slow":
                await asyncio.sleep(fault.value)
                return True
        return False

    async def _whole(self, work: Work, reply: Reply, fault: Fault | None) -> None:
        pieces = [list(generation.pieces()) for generation in work.generations]
        self.seen.events += 1
        body = work.whole(pieces, fault)
        if fault is not None and fault.kind in WITHIN:
            self.faults.injected[fault.kind] += 1
        match fault and fault.kind:
            case "cut" | "no_end":
                reply.break_off()
            case "stall":
                await reply.until_left()
            case "malformed":
                reply.whole(200, json.dumps(body)[:-20])
            case "error":
                reply.whole(500, self._error(500, "it broke", "InternalServerError"))
            case _:
                reply.whole(200, body)

    async def _stream(self, work: Work, reply: Reply, fault: Fault | None) -> None:
        reply.begin_stream()
        for number, event in enumerate(work.events(fault)):
            if fault is not None and number > fault.value and await self._breaks(fault, reply):
                return
            reply.send(event)
            self.seen.events += 1
            if reply.left:
                raise ConnectionResetError
            await (reply.drain() if self._pace is None else self._pace.tick(self.seen.active))
        if fault is not None and fault.kind in SPOILING:
            self.faults.injected[fault.kind] += 1
        if fault is None or fault.kind != "no_end":
            reply.send(b"[DONE]")
        reply.end_stream()

    async def _breaks(self, fault: Fault, reply: Reply) -> bool:
        """Break a stream off in its midst, if that is the fault; whether it did."""
        if fault.kind not in WITHIN or fault.kind in SPOILING:
            return False
        self.faults.injected[fault.kind] += 1
        match fault.kind:
            case "cut":
                reply.break_off()
            case "stall":
                await reply.until_left()
            case "malformed":
                reply.send(b'{"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"cont')
                reply.end_stream()
            case "error":
                error = self.dialect.filled(
                    "error", message="it broke", type="InternalServerError", code=500, reason=None
                )
                reply.send(json.dumps(error).encode())
                reply.end_stream()
        return True
