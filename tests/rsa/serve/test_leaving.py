"""Whoever asked goes away: what was worked on for them ends, and nothing else does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from serving import Serving, chat_body, serving

from engine.scripted import Script, ScriptedEngine

# Not the same words again and again: a candidate that repeats itself is cut off.
ENDLESS = Script(reasoning=" ".join(str(number) for number in range(20_000)), never_ends=True, tokens_per_step=1)
RUN = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 1, "c": 2, "beta": 10**9}}
pytestmark = pytest.mark.anyio


class Watched:
    """Engines that were opened, of which a test looks at the last."""

    def __init__(self, script: Callable[[Any], Script] | Script) -> None:
        self.script = script
        self.opened: list[ScriptedEngine] = []

    def __call__(self) -> ScriptedEngine:
        self.opened.append(ScriptedEngine(self.script))
        return self.opened[-1]

    @property
    def engine(self) -> ScriptedEngine:
        return self.opened[-1]

    async def until(self, active: int) -> None:
        """Wait until so many rows are there."""
        with anyio.fail_after(30):
            while not self.opened or self.engine.active != active:
                await anyio.lowlevel.checkpoint()


def ask(server: Serving, **fields: Any) -> socket.socket:
    """A request over a socket of one's own."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(chat_body("Think.", **fields)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_socket_that_closes_frees_its_rows(tmp_path: Path, stream: bool, fields: dict[str, Any]) -> None:
    watched = Watched(ENDLESS)
    rows = 3 if fields else 1
    async with serving(watched, tmp_path) as server:
        leaving = ask(server, stream=stream, **fields)
        staying = ask(server, stream=stream, **fields)
        await watched.until(2 * rows)
        leaving.close()
        await watched.until(rows)
        steps = watched.engine.steps
        while watched.engine.steps < steps + 10:  # the other one goes on
            await anyio.lowlevel.checkpoint()
        assert watched.engine.active == rows
        staying.close()
        await watched.until(0)
        assert [each["state"] for each in (await server.client.get("/v1/runs")).json()["data"]] == (
            ["cancelled", "cancelled"] if fields else []
        )
