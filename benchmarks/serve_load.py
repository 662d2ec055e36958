"""`rsa serve` under load: many clients at once, its speed against the engine's alone, and its memory over a while.

python benchmarks/serve_load.py [--clients 200] [--spread 10] [--tokens 48] [--rounds 5] [--soak SECONDS]

Everything is asked of a real process on loopback that serves `nano`. Clients are written on bare sockets: 200 of a real
library would take more of a small machine than the server does.

clients   all begin at the same moment, and each reads a stream to its end; then as many begin one after the other. An
          answer is lost if its stream breaks off, or has no `finish_reason` or no `[DONE]`. `first byte`: of the body,
          a chunk of the stream, since the connection was asked for.
speed     16 completions of one request, as one stream, against the same requests on an engine in this process, turn
          about; the tokens must be the same. `loss` is how much slower the server is; the processor's seconds tell
          that, too, where a busy machine makes the clock a poor witness.
soak      streams, runs, clients that leave and requests that are wrong, for so many seconds; the server's memory is
          read from `/metrics` all the while.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream
from common import report

from engine.api import Completion, GenerationRequest, Message, SamplingParams
from rsa.compose import open_engine
from rsa.settings.suitability import AS_TRAINED

PROBLEMS = [f"Use {a}, {b}, {a + 3} and 2 once each to make 24." for a in range(2, 8) for b in range(3, 9)]
URL = re.compile(r"http://\S+")
ROWS = 16
SAMPLE_S = 5.0
CPU = "process_cpu_seconds_total"
CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Answer:
    """What came back. `first_s`: of the body's first byte, since the request was sent."""

    status: int = 0
    first_s: float = 0.0
    seconds: float = 0.0
    body: bytes = b""

    @property
    def whole(self) -> bool:
        return self.status == 200 and b"[DONE]" in self.body and b'"finish_reason":"' in self.body


@contextmanager
def server(folder: str, *words: str) -> Iterator[str]:
    """A server in a process of its own; its URL. Its log goes to a file there."""
    log = Path(folder) / "log"
    command = [sys.executable, "-m", "rsa", "serve", "--port", "0", "--runs", f"{folder}/runs", *words]
    with log.open("w") as file, subprocess.Popen(command, stderr=file, stdin=subprocess.DEVNULL) as process:
        try:
            while not (found := URL.search(log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield found[0].rstrip('"')
        finally:
            process.terminate()


async def ask(url: str, path: str, body: Any = None, *, leave_after: int | None = None) -> Answer:
    """One request on a connection of its own, read to its end, or left after so many bytes."""
    parts = urlsplit(url)
    content = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    answer = Answer()
    began = time.perf_counter()
    async with await anyio.connect_tcp(parts.hostname or "", parts.port or 80) as stream:
        await stream.send(head.encode() + content)
        async for piece in pieces(stream):
            answer.body += piece
            if not answer.first_s and b"\r\n\r\n" in answer.body and not answer.body.endswith(b"\r\n\r\n"):
                answer.first_s = time.perf_counter() - began
            if leave_after is not None and len(answer.body) > leave_after:
                break
    answer.seconds = time.perf_counter() - began
    status, _, answer.body = answer.body.partition(b"\r\n\r\n")
    answer.status = int(status.split()[1]) if status else 0
    return answer


async def pieces(stream: SocketStream) -> Any:
    while True:
        try:
            yield await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return


def chat(problem: str, tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": problem}]
    return {"model": "nano", "messages": messages, "stream": True, "max_completion_tokens": tokens, **more}


# ---- many clients ------------------------------------------------------------------------------------------------


async def many_clients(url: str, clients: int, spread_s: float, tokens: int) -> list[dict[str, Any]]:
    """Clients that all begin at once, then as many that begin one after the other; a row of the table for each."""
    rows = []
    for wave, over_s in enumerate((0.0, spread_s)):
        answers: list[Answer] = []

        async def one(number: int, answers: list[Answer] = answers, wave: int = wave, over_s: float = over_s) -> None:
            await anyio.sleep(over_s * number / clients)
            body = chat(PROBLEMS[number % len(PROBLEMS)], tokens, seed=number + 1000 * wave)
            answers.append(await ask(url, CHAT, body))

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(clients):
                group.start_soon(one, number)
        seconds = time.perf_counter() - began
        first = sorted(answer.first_s * 1000 for answer in answers)
        rows.append(
            {
                "begin within, s": over_s,
                "clients": clients,
                "lost": sum(not answer.whole for answer in answers),
                "first byte, ms: median": statistics.median(first),
                "95th percentile": first[int(0.95 * (len(first) - 1))],
                "largest": first[-1],
                "seconds": seconds,
                "tokens/s": clients * tokens / seconds,
            }
        )
    return rows


async def few_clients(url: str, requests: int) -> dict[str, Any]:
    """The first byte of a stream on a server that has nothing else to do."""
    first = []
    for number in range(requests):
        answer = await ask(url, CHAT, chat(PROBLEMS[number], 16, seed=number))
        assert answer.whole, answer
        first.append(answer.first_s * 1000)
    return {"requests": requests, "first byte, ms: median": statistics.median(first), "largest": max(first)}


# ---- the server against the engine -------------------------------------------------------------------------------


async def speed(url: str, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """The same 16 completions by both, turn about; the first turn of each is not counted."""
    engine = open_engine("nano")
    rows = []
    try:
        for turn in range(rounds + 1):
            problem, seed = PROBLEMS[turn % len(PROBLEMS)], 100 * turn
            began, before = time.perf_counter(), time.process_time()
            alone = await completions(engine, problem, tokens, seed)
            alone_s, alone_cpu_s = time.perf_counter() - began, time.process_time() - before
            used = await gauge(url, CPU)
            body = chat(problem, tokens, seed=seed, n=ROWS, stream_options={"include_usage": True})
            answer = await ask(url, CHAT, body)
            assert answer.whole, answer
            used = await gauge(url, CPU) - used
            generated = sum(each.usage.completion_tokens for each in alone)
            assert usage_of(answer)["completion_tokens"] == generated, "not the same tokens"
            if turn:
                ours, theirs = generated / alone_s, generated / answer.seconds
                row = {"round": turn, "tokens": generated, "engine, tokens/s": ours, "server": theirs}
                rows.append({**row, "loss": 1 - theirs / ours, "engine, CPU s": alone_cpu_s, "server, CPU s": used})
    finally:
        await engine.aclose()
    return rows


async def completions(engine: Any, problem: str, tokens: int, seed: int) -> list[Completion]:
    drawn = AS_TRAINED.model_dump()
    requests = [
        GenerationRequest(
            id=str(index),
            messages=(Message(role="user", text=problem),),
            sampling=SamplingParams(**drawn, seed=seed + index, max_tokens=tokens),
        )
        for index in range(ROWS)
    ]
    async with engine.generate(requests) as stream:
        return [event async for event in stream if isinstance(event, Completion)]


def usage_of(answer: Answer) -> dict[str, int]:
    """The usage that the last chunks of a stream tell."""
    chunks = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    return next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))


# ---- a while of everything ---------------------------------------------------------------------------------------


async def one_of_all_kinds(url: str, draw: random.Random) -> str:
    """What a user does, and how it went, in a word."""
    problem = draw.choice(PROBLEMS)
    match draw.choice(("stream", "run", "leaves", "wrong", "page")):
        case "stream":
            answer = await ask(url, CHAT, chat(problem, 48, seed=draw.randrange(10**6)))
            return "streams" if answer.whole else "lost streams"
        case "run":
            settings = {"n": 4, "c": 2, "t": 1, "beta": 64, "tau": 32}
            answer = await ask(url, CHAT, {**chat(problem, 2000), "model": "nano:rsa", "rsa": settings})
            return "runs" if answer.whole else "lost runs"
        case "leaves":
            await ask(url, CHAT, chat(problem, 256), leave_after=draw.randrange(200, 2000))
            return "clients that left"
        case "wrong":
            answer = await ask(url, CHAT, chat(problem, -1))
            return "refused" if answer.status == 400 else "not refused"
        case _:
            answer = await ask(url, "/page/runs")
            return "lists" if answer.status == 200 else "lost lists"


async def soak(url: str, seconds: float, users: int) -> dict[str, Any]:
    """What users of all kinds do for a while; the server's memory over the time."""
    began = time.monotonic()
    done: Counter[str] = Counter()
    memory: list[tuple[float, float]] = []

    async def user(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() - began < seconds:
            done[await one_of_all_kinds(url, draw)] += 1

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            memory.append((time.monotonic() - began, await gauge(url, "process_resident_memory_bytes") / 1e6))
            await anyio.sleep(SAMPLE_S)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        for number in range(users):
            group.start_soon(user, number)
    later = [(at, size) for at, size in memory if at >= seconds / 4]
    slope = statistics.linear_regression(*zip(*later, strict=True)).slope if len(later) > 2 else float("nan")
    return {
        "seconds": seconds,
        **dict(sorted(done.items())),
        "memory, MB: at a quarter": statistics.fmean(size for _, size in later[:5]),
        "at the end": statistics.fmean(size for _, size in later[-5:]),
        "MB a minute": slope * 60,
        **{name: await gauge(url, name) for name in ("rsa_rows", "rsa_queue", "rsa_slots_working")},
    }


async def gauge(url: str, name: str) -> float:
    text = (await ask(url, "/metrics")).body.decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


# ---- the program -------------------------------------------------------------------------------------------------


async def run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, server(folder, "--concurrent", str(args.clients)) as url:
        await ask(url, CHAT, chat(PROBLEMS[0], 16))  # opens the model
        if args.soak:
            report("serve: soak", [await soak(url, args.soak, args.users)], users=args.users)
            return
        report("serve: one client at a time", [await few_clients(url, 20)])
        rows = await many_clients(url, args.clients, args.spread, args.tokens)
        report("serve: many clients", rows, tokens=args.tokens)
        found = await speed(url, 4 * args.tokens, args.rounds)
        report("serve: speed", found, rows_at_once=ROWS, median_loss=statistics.median(row["loss"] for row in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument(
        "--spread", type=float, default=10.0, help="seconds over which the second lot of clients begins"
    )
    parser.add_argument("--tokens", type=int, default=48, help="of each completion, at most")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison with the engine")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds; nothing else is measured then")
    parser.add_argument("--users", type=int, default=8, help="of the soak")
    anyio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
