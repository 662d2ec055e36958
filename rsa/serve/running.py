"""A server as a process: its socket, and its end in order.

The first SIGTERM or Ctrl-C stops new requests (503) and waits for those that run, `grace_s` at most; what still runs
then is interrupted and can be gone on with. The second one ends the process at once: what runs have logged is on the
disk anyway.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import anyio
import uvicorn
from starlette.applications import Starlette

from rsa.errors import ConfigError, RunFolderError
from rsa.folders import lock_folder, make_folder
from rsa.serve.app import create_app
from rsa.serve.logs import log_to
from rsa.serve.service import Service
from rsa.serve.settings import ServeSettings

CLOSING_S = 5
"""How long clients that were told the end of their answer may take to read it."""
_logger = logging.getLogger("rsa.serve")


class Server(uvicorn.Server):
    """A uvicorn server that ends as this module says.

    tell    is given the URL once requests are answered.
    signal  the one that asked it to end.
    """

    def __init__(self, app: Starlette, settings: ServeSettings, tell: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self.signal: signal.Signals | None = None
        self._service: Service = app.state.service
        self._grace_s = settings.grace_s
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for listener in sockets or ():
                self._tell(url_of(listener))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, and a closed terminal (SIGHUP) too."""
        with super().capture_signals():
            was = signal.getsignal(signal.SIGHUP)
            if threading.current_thread() is not threading.main_thread() or was is signal.SIG_IGN:
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, was)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for an end in order, the second one ends the process."""
        if self.signal is not None:
            os._exit(128 + sig)
        self.signal = signal.Signals(sig)
        self._service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by uvicorn; True: stop listening."""
        if self.signal is not None and not self.should_exit:
            await self._drain()
            self.should_exit = True
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        busy = self._service.busy
        _logger.info("%s: finishing %d requests and runs within %g s", self.signal_name, busy, self._grace_s)
        with anyio.move_on_after(self._grace_s):
            await self._service.idle()
        left = self._service.runs.live
        self._service.interrupt()
        for handle in left:
            await handle.over()
            _logger.warning("run %s was interrupted: it can be resumed", handle.id)

    @property
    def signal_name(self) -> str:
        return "" if self.signal is None else self.signal.name


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ConfigError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        why = os.strerror(number) if number else str(error)
        raise ConfigError(f"cannot listen at {host}, `port` {port} ({why}): choose another one") from None


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def folder_of_runs(folder: Path) -> Iterator[None]:
    """The folder of a server's runs, made if need be, and locked: a second server would go on with the runs of the
    first. Raises RunFolderError, RunLockedError."""
    try:
        make_folder(folder)
        lock = lock_folder(folder)
    except OSError as error:
        raise RunFolderError(f"cannot use {folder} as the folder of `runs`: {error.strerror}") from None
    with lock:
        yield


def run(settings: ServeSettings, tell: Callable[[str], None]) -> signal.Signals | None:
    """Serve until a signal says otherwise, and give that signal. `tell` is given the URL once requests are answered.

    Raises ConfigError where it cannot listen, and what `folder_of_runs` raises.
    """
    log_to()
    with folder_of_runs(settings.runs), listen(settings.host, settings.port) as listener:
        server = Server(create_app(settings), settings, tell)
        anyio.run(server.serve, [listener])
        return server.signal
