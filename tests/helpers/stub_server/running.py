"""Stub servers for tests: on a thread of this process, or in a process of their own that can be killed."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes
from stub_server.server import StubServer

HELPERS = Path(__file__).parents[1]


class Running:
    """A server on a thread. `url` stays the same when it dies and comes back."""

    def __init__(self, server: StubServer, loop: asyncio.AbstractEventLoop, scheme: str) -> None:
        self.server, self._loop, self._scheme = server, loop, scheme
        self.come_back()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server.port}/v1"

    def die(self) -> None:
        """Break every connection and refuse new ones, until it comes back."""
        asyncio.run_coroutine_threadsafe(self.server.die(), self._loop).result()

    def come_back(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.listen(), self._loop).result()


@contextmanager
def running(server: StubServer, *, scheme: str = "http") -> Iterator[Running]:
    """A server that listens while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stub-server")
    thread.start()
    running = Running(server, loop, scheme)
    try:
        yield running
    finally:
        asyncio.run_coroutine_threadsafe(server.end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def started(*words: object) -> Iterator[str]:
    """The URL of a server in a process of its own, which dies at the end; `words` are for `stub_server.program`."""
    command = [sys.executable, "-m", "stub_server.program", *words]
    with processes.started(command, env={**os.environ, "PYTHONPATH": str(HELPERS)}) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read() if process.stderr else ""
        yield url
