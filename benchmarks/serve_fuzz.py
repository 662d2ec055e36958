"""A server of models under hostile requests: it may refuse them, and must neither die nor lose its form.

    python benchmarks/serve_fuzz.py [--requests 100000] [--seed 1] [--clients 16] [--show 20]

A real `rsa serve` on loopback, whose model plays a script, gets so many requests of `hostile`, several at a time, over
sockets of their own. Each answer must be whole, with a status below 500; a status of 400 and above has OpenAI's form of
an error, which names a field wherever the request was a JSON object. At the end the server must be the process that was
started, answer as it did at first, and have written no traceback. The last line is JSON; the exit code is 1 if anything
is amiss. ^C ends it early, with what was sent until then.

The model that plays a script keeps every request that it ever got, so that the server's memory grows with their bodies.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from hostile import Hostile, hostile, of_json

PLAY = r"""
from engine.script import Script

def script(request):
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    return Script("2 and 2 make 4", call if request.tools else "It is \\boxed{4}.")
"""
WITHIN_S = 60.0
"""A request must be answered in this time, on a machine where several clients and the server share two cores."""
RIGHT = of_json("right", "/v1/responses", {"model": "play", "input": "?"})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
URL = re.compile(r"http://\S+")


class Fuzz:
    """The requests that are still to be sent, and what came of those that were."""

    def __init__(self, host: str, port: int, seed: int, requests: int) -> None:
        self.host, self.port, self.left = host, port, requests
        self.requests = hostile(seed)
        self.sent = Counter[str]()
        self.statuses = Counter[str]()
        self.amiss: list[dict[str, str]] = []

    async def client(self) -> None:
        """Send one request after the other, until there are no more."""
        while self.left > 0:
            self.left -= 1
            await self.try_one(next(self.requests))

    def stop(self, *_: object) -> None:
        """Send no more, and judge what was sent."""
        self.left = 0

    async def try_one(self, request: Hostile) -> None:
        self.sent[request.how] += 1
        try:
            with anyio.fail_after(WITHIN_S):
                answer = await self.exchange(request)
        except TimeoutError:
            self.fault(request, "no answer in time", b"")
        except OSError as error:
            if request.spoken and request.leaves is None:
                self.fault(request, f"connection: {error}", b"")
        else:
            self.judge(request, answer)

    async def exchange(self, request: Hostile) -> bytes:
        async with await anyio.connect_tcp(self.host, self.port) as stream:
            await stream.send(request.data)
            if not request.spoken:
                await stream.send_eof()
            answer = b""
            while request.leaves is None or len(answer) < request.leaves:
                try:
                    answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    break
            return answer.removeprefix(CONTINUE)

    def judge(self, request: Hostile, answer: bytes) -> None:
        """Note what is wrong with an answer."""
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[9:12].decode(errors="replace")
        self.statuses[status or "none"] += 1
        if status >= "500" and status.isdigit():
            self.fault(request, "a fault of the server", answer)
        if request.leaves is not None or not request.spoken:
            return
        if not status.isdigit():
            self.fault(request, "no answer", answer)
        elif status >= "400" and b" HEAD " not in b" " + request.data[:5]:
            wrong = _fault_in_error(request, body)
            if wrong:
                self.fault(request, wrong, answer)
        elif b"text/event-stream" in head and b"data: [DONE]" not in body:
            self.fault(request, "a stream without its end", answer)

    def fault(self, request: Hostile, what: str, answer: bytes) -> None:
        """Keep what is needed to see it again."""
        sent = request.data[:2000].decode(errors="backslashreplace")
        self.amiss.append(
            {"what": what, "how": request.how, "sent": sent, "answer": answer[:600].decode(errors="replace")}
        )


def _fault_in_error(request: Hostile, body: bytes) -> str | None:
    """What is wrong with the body of an error, if anything is."""
    try:
        error = json.loads(body)["error"]
        message, param = error["message"], error["param"]
    except (ValueError, KeyError, TypeError):
        return "an error in another form"
    if {*error} != {"message", "type", "param", "code"} or not isinstance(message, str) or not message:
        return "an error in another form"
    if "\n" in message or "Traceback" in message:
        return "an error of more than a line"
    if request.json is not None and not isinstance(param, str):
        return "an error that names no field"
    return None


def judged_at_the_end(fuzz: Fuzz, server: subprocess.Popen[str], log: Path, first: bytes) -> dict[str, Any]:
    """What must hold of the server afterwards."""
    told = log.read_text(errors="replace")
    last = anyio.run(fuzz.exchange, RIGHT)
    ids = re.compile(rb'"(?:id|created_at|completed_at)":(?:"[^"]*"|\d+)|_[0-9a-f]{32}|date: [^\r]*')
    return {
        "alive": server.poll() is None,
        "answers as at first": ids.sub(b"", last) == ids.sub(b"", first),
        "tracebacks": told.count("Traceback (most recent call last)"),
    }


def memory_mb(process: subprocess.Popen[str]) -> int:
    """Of a process, where the system says it in /proc."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


async def run_all(fuzz: Fuzz, clients: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(fuzz.client)


@contextmanager
def served(folder: Path, play: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A server whose model `play` plays a script, its URL, and what it writes; leaving the block kills it."""
    (folder / "play.py").write_text(play)
    words = ["serve", "--port", "0", "--model", "play=scripted:play.py", "--runs", "runs"]
    path = folder / "log"
    with path.open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "rsa", *words], cwd=folder, stderr=log, text=True)
    try:
        while not (found := URL.search(path.read_text())):
            if server.poll() is not None:
                raise SystemExit(path.read_text())
            time.sleep(0.05)
        yield server, found[0], path
    finally:
        server.kill()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--show", type=int, default=20, help="faults that are printed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(Path(name), PLAY) as (server, found, log):
        url = urlsplit(found)
        fuzz = Fuzz(str(url.hostname), int(url.port or 0), asked.seed, asked.requests)
        first = anyio.run(fuzz.exchange, RIGHT)
        signal.signal(signal.SIGINT, fuzz.stop)
        before, began = memory_mb(server), time.perf_counter()
        anyio.run(run_all, fuzz, asked.clients)
        seconds, after = time.perf_counter() - began, memory_mb(server)
        ended = judged_at_the_end(fuzz, server, log, first)
        told = log.read_text(errors="replace")
    for fault in fuzz.amiss[: asked.show]:
        print(json.dumps(fault, indent=1))
    if ended["tracebacks"]:
        print(told[max(told.find("Traceback") - 500, 0) :][:6000])
    well = not fuzz.amiss and ended["alive"] and ended["answers as at first"] and not ended["tracebacks"]
    sent = fuzz.sent.total()
    row = {
        "requests": sent,
        "amiss": len(fuzz.amiss),
        **ended,
        "kinds": dict(sorted(fuzz.sent.items())),
        "statuses": dict(sorted(fuzz.statuses.items())),
        "memory_mb": [before, after],
        "requests/s": round(sent / seconds, 1),
    }
    print(
        json.dumps(
            {"python": platform.python_version(), "cpus": os.cpu_count(), "seed": asked.seed, "well": well, **row}
        )
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
