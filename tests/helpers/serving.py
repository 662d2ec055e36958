"""A server on loopback for tests: in the test's own event loop, where its engine can be watched, or a process."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import processes
from starlette.applications import Starlette

from engine.api import Engine
from rsa.compose import open_in_thread
from rsa.serve.app import create_app
from rsa.serve.models import Served
from rsa.serve.running import Server, listen, url_of
from rsa.serve.runs import RunHandle
from rsa.serve.service import Service
from rsa.serve.settings import ServedModel, ServeSettings

SCRIPTED = ServedModel(name="scripted", opens="scripted:x")
URL = re.compile(r"http://\S+")


class QuickServer(Server):
    """Ends when the test does: uvicorn looks ten times a second whether it is to, and pauses on the way out."""

    def __init__(self, app: Starlette, settings: ServeSettings) -> None:
        super().__init__(app, settings, lambda _: self.up.set())
        self.up, self.leaving = anyio.Event(), anyio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        for listener in self.servers:
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        await until(lambda: not state.connections and not state.tasks)
        await self.lifespan.shutdown()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server in this event loop, and a client of it."""

    url: str
    client: httpx2.AsyncClient
    service: Service

    async def post(self, path: str, body: Any) -> httpx2.Response:
        return await self.client.post(path, json=body)

    async def chat(self, text: str = "What is 2 + 2?", **fields: Any) -> dict[str, Any]:
        """The completion that a question gets."""
        response = await self.post("/v1/chat/completions", chat_body(text, **fields))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def chat_of(self, fields: dict[str, Any]) -> None:
        """A question, for a task that nobody waits for; how it ends is not looked at."""
        await self.post("/v1/chat/completions", chat_body("What is 2 + 2?", **fields))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; the test's time limit ends a wait in vain."""
        while not condition():
            await anyio.lowlevel.checkpoint()

    async def run_that_runs(self) -> RunHandle:
        """The one run there is, once it has begun."""
        await self.until(lambda: bool(self.service.runs.live))
        (handle,) = self.service.runs.live
        await handle.begun()
        return handle

    async def chat_chunks(self, text: str = "What is 2 + 2?", **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a stream, without its end."""
        body = chat_body(text, stream=True, **fields)
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            return [json.loads(data) async for data in event_data(response) if data != "[DONE]"]


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}


async def event_data(response: httpx2.Response) -> AsyncIterator[str]:
    """What stands after `data:` in a stream whose events have one line each."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


@asynccontextmanager
async def serving(
    make_engine: Callable[[], Engine],
    runs: Path,
    *,
    models: Sequence[ServedModel] = (),
    create: Callable[[ServeSettings, Served], Starlette] = create_app,
    **settings: Any,
) -> AsyncIterator[Serving]:
    """A server of the model `scripted`, whose engine `make_engine` makes whenever one is opened, and of others."""

    async def open_engine(opens: str, **options: Any) -> Engine:
        return make_engine() if opens == SCRIPTED.opens else await open_in_thread(opens, **options)

    chosen = ServeSettings(models=(SCRIPTED, *models), runs=runs, **settings)
    app = create(chosen, Served(chosen.models, open_engine=open_engine))
    with listen("127.0.0.1", 0) as listener:
        server = QuickServer(app, chosen)
        async with anyio.create_task_group() as group:
            group.start_soon(server._serve, [listener])
            await server.up.wait()
            url = url_of(listener)
            # There is nothing to verify, and reading the list of authorities takes longer than most tests.
            async with httpx2.AsyncClient(base_url=url, timeout=60, verify=False) as client:
                yield Serving(url, client, app.state.service)
            server.leaving.set()


@contextmanager
def served_process(*words: object, cwd: Path, **environment: str) -> Iterator[tuple[Popen[str], str]]:
    """`rsa serve` in a process of its own on a free port, and its URL; leaving the block kills it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RSA_", "HF_", "OPENAI_"))}
    env = {**kept, "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-m", "rsa", "serve", "--port", "0", *words]
    with processes.started(command, cwd=cwd, env=env) as process:
        assert process.stderr is not None
        said = deque[str](maxlen=1000)
        url = None
        for line in process.stderr:
            said.append(line)
            if found := URL.search(line):
                url = found[0]
                break
        assert url is not None, "".join(said)
        # A pipe that nobody reads would fill up with lines of its log, and stop the server.
        reader = threading.Thread(target=said.extend, args=(process.stderr,))
        reader.start()
        try:
            yield process, url
        finally:
            process.kill()
            reader.join()


@asynccontextmanager
async def endless_requests(server: Serving, number: int) -> AsyncIterator[None]:
    """So many requests that are being worked on, or wait; all of them are left at the end."""

    async def ask() -> None:
        body = chat_body("What is 2 + 2?", stream=True)
        async with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            async for _ in response.aiter_lines():
                pass

    slots = server.service.slots
    async with anyio.create_task_group() as group:
        before = slots.working + slots.waiting
        for _ in range(number):
            group.start_soon(ask)
        most = min(before + number, slots.most)
        await until(lambda: slots.working == most and slots.working + slots.waiting == before + number)
        yield
        group.cancel_scope.cancel()
    await until(lambda: slots.working + slots.waiting == before)


async def until(condition: Callable[[], bool]) -> None:
    """Let others work until a condition holds; the test's time limit ends it."""
    while not condition():
        await anyio.lowlevel.checkpoint()


def assert_error(response: httpx2.Response, status: int, code: str) -> str:
    """What an error in OpenAI's form says."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return str(error["message"])
