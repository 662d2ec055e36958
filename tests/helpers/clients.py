"""Clients of agents in processes of their own, against a real server; none reaches beyond loopback.

Whatever would go elsewhere meets a proxy that remembers it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import served_process

QUIET = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""Without these, importing is enough for some to ask the network."""


class Elsewhere:
    """A proxy that lets nothing through, and counts who asked."""

    def __init__(self, listener: socket.socket) -> None:
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener

    def listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # it was closed
                return
            with connection:
                connection.settimeout(5)
                self.asked.append(connection.recv(200).decode(errors="replace").partition("\r\n")[0])


@contextmanager
def nothing_beyond_loopback() -> Iterator[Elsewhere]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere = Elsewhere(listener)
        thread = threading.Thread(target=elsewhere.listen)
        thread.start()
        yield elsewhere
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert elsewhere.asked == []


@contextmanager
def clients_environment(home: Path) -> Iterator[dict[str, str]]:
    """The environment of clients, without a way to the network; afterwards, none must have asked for one."""
    with nothing_beyond_loopback() as elsewhere:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), elsewhere.url)
        own = {"NO_PROXY": "127.0.0.1", "HOME": str(home), "DSPY_CACHEDIR": str(home), "PATH": "/usr/bin:/bin"}
        yield {**QUIET, **proxies, **own}


@contextmanager
def playing(script: Path, folder: Path) -> Iterator[str]:
    """The URL of the API of a server whose model `play` plays a script."""
    with served_process("--model", f"play=scripted:{script}", "--runs", folder / "runs", cwd=folder) as (_, url):
        yield f"{url}/v1"
