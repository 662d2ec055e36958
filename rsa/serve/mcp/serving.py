"""A server of the protocol: over standard input and output for one client, or over HTTP for many."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

from rsa.serve.app import guard
from rsa.serve.mcp.solving import Solving
from rsa.serve.mcp.tasks import Tasks
from rsa.serve.models import Served
from rsa.serve.running import Server, folder_of_runs, listen
from rsa.serve.service import Service
from rsa.serve.settings import ServeSettings

PATH = "/mcp"
"""The path of its URL over HTTP."""
_GUARDED = TransportSecuritySettings(enable_dns_rebinding_protection=False)
"""What the SDK would look at, hosts and origins, is `rsa.serve.guard`'s."""
_INSTRUCTIONS = (
    "`solve` thinks about one hard problem for long, with many attempts in parallel. Give it the whole problem in "
    "words. Models here: {models}."
)


@asynccontextmanager
async def mcp_server(service: Service, *, files: bool) -> AsyncIterator[MCPServer[Any]]:
    """A server of the runs of a service, which must be entered. `files`: see `Solving`."""
    solving = Solving(service, files=files)
    tool = Tool.from_function(
        solving.solve,
        title="Solve a hard problem",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async with anyio.create_task_group() as group:
        yield MCPServer(
            "markovian-rsa",
            version=metadata.version("markovian-rsa"),
            instructions=_INSTRUCTIONS.format(models=", ".join(service.served.models)),
            tools=[tool],
            extensions=[Tasks(service.runs, solving, tool, group)],
            log_level="WARNING",
        )
        group.cancel_scope.cancel()


async def serve_stdio(settings: ServeSettings) -> None:
    """Serve the client at standard input and output, until it closes them; a signal ends the process in order."""
    async with (
        Service(settings) as service,
        mcp_server(service, files=True) as server,
        anyio.create_task_group() as group,
    ):
        group.start_soon(_end_by_signal, service)
        await server.run_stdio_async()
        group.cancel_scope.cancel()


async def _end_by_signal(service: Service) -> None:
    """Runs are interrupted, and that is written. Then the process is gone: a thread of the SDK waits for the client's
    next line, and nothing can tell it not to."""
    wanted = [
        each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN
    ]
    with anyio.open_signal_receiver(*wanted) as signals:
        async for number in signals:
            live = service.runs.live
            service.interrupt()
            for handle in live:
                await handle.over()
            os._exit(128 + number)


def serve_http(settings: ServeSettings, tell: Callable[[str], None]) -> signal.Signals | None:
    """Serve clients over HTTP until a signal says otherwise, and give that signal. `tell` is given the URL.

    Raises what `rsa.serve.running.run` raises.
    """
    with folder_of_runs(settings.runs), listen(settings.host, settings.port) as listener:
        server = Server(create_mcp_app(settings), settings, lambda url: tell(url + PATH))
        anyio.run(server.serve, [listener])
        return server.signal


def create_mcp_app(settings: ServeSettings, served: Served | None = None) -> Starlette:
    """The application over HTTP; see `rsa.serve.app.create_app`."""
    service = Service(settings, served)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service, mcp_server(service, files=False) as server:
            inner = server.streamable_http_app(streamable_http_path=PATH, transport_security=_GUARDED)
            app.router.routes.extend(inner.router.routes)
            async with inner.router.lifespan_context(inner):
                yield

    app = Starlette(lifespan=lifespan, middleware=[guard(settings)])
    app.state.service = service
    return app
