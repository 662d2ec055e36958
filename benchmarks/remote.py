"""What the client of remote models costs, beside a bare client on a real server, and how many tokens a second it reads.

    python benchmarks/remote.py mlx [--rows 16] [--tokens 256] [--rounds 5]
    python benchmarks/remote.py stub [--rows 256] [--tokens 800] [--tokens-per-s 20000]

`mlx` starts mlx-lm's own server with the built-in model and asks it for the same number of completions, greedily, in
turns: through the engine, and through a bare asyncio client that sends the same request and reads lines. The ratio of
their tokens a second is the overhead. `stub` has the engine read many streams of a stub server in another process, on a
core of its own, and compares each text with what the server had to write. Both print one JSON line last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import anyio
from common import median, report
from real_servers import export_nano, mlx_lm_server
from stub_server.running import started
from stub_server.writing import Writer, decode

from engine.api import Completion, GenerationRequest, Message, SamplingParams, TokenChunk
from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai

STUB = Writer(endless=True, context=10**6)


def requests_of(rows: int, tokens: int, turn: int) -> list[GenerationRequest]:
    """Puzzles that no turn repeats: what a server has cached helps nobody."""
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens)
    return [
        GenerationRequest(
            id=str(i),
            messages=(Message(role="user", text=f"Use {turn + 3}, {i + 2}, 7, 5 and 2 once each to make {90 + i}."),),
            sampling=sampling,
        )
        for i in range(rows)
    ]


async def by_engine(engine: OpenAIEngine, asked: list[GenerationRequest]) -> int:
    """Tokens that came."""
    async with engine.generate(asked) as stream:
        return sum([event.usage.completion_tokens async for event in stream if isinstance(event, Completion)])


async def by_hand(url: str, model: str, asked: list[GenerationRequest]) -> int:
    """The same through a client that does nothing but read, a connection each."""
    parts = urlsplit(url)

    async def one(request: GenerationRequest) -> int:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": request.messages[0].text}],
            "temperature": 0.0,
            "max_tokens": request.sampling.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        data = json.dumps(body).encode()
        head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        for _ in range(20):  # the server's line of connections is short
            try:
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                tokens = 0
                async for line in reader:
                    if line.startswith(b"data: {"):
                        usage = json.loads(line[6:]).get("usage")
                        tokens = usage["completion_tokens"] if usage else tokens
                writer.close()
            except ConnectionError:
                continue
            return tokens
        raise ConnectionError(url)

    return sum(await asyncio.gather(*map(one, asked)))


def against_bare(rows: int, tokens: int, rounds: int) -> None:
    """The engine and the bare client take turns; the first turn of each is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        nano = export_nano(Path(folder) / "nano")
        with mlx_lm_server(nano) as url:
            engine = open_openai(str(nano), base_url=url, tokenizer=nano)
            turns: dict[str, Callable[[list[GenerationRequest]], Awaitable[int]]] = {
                "engine": lambda asked: by_engine(engine, asked),
                "bare": lambda asked: by_hand(url, str(nano), asked),
            }
            speeds: dict[str, list[float]] = {name: [] for name in turns}
            used: dict[str, list[float]] = {name: [] for name in turns}
            for turn in range(rounds + 1):
                order = list(turns) if turn % 2 else list(reversed(turns))
                for place, name in enumerate(order):
                    asked = requests_of(rows, tokens, 2 * turn + place)
                    began, cpu = time.perf_counter(), time.process_time()
                    came = asyncio.run(_awaited(turns[name], asked))
                    speeds[name].append(came / (time.perf_counter() - began))
                    used[name].append((time.process_time() - cpu) / came * 1e6)
            anyio.run(engine.aclose)
    ratio = median([ours / bare for ours, bare in zip(speeds["engine"][1:], speeds["bare"][1:], strict=True)])
    row = {"rows": rows, "tokens": tokens, "engine tok/s": median(speeds["engine"][1:])}
    row |= {"bare tok/s": median(speeds["bare"][1:]), "engine us/token": median(used["engine"][1:])}
    row |= {"bare us/token": median(used["bare"][1:]), "ratio": ratio, "overhead %": 100 * (1 - ratio)}
    report("client overhead", [row], load=os.getloadavg()[0])


async def _awaited(turn: Callable[[list[GenerationRequest]], Awaitable[int]], asked: list[GenerationRequest]) -> int:
    return await turn(asked)


def many_streams(rows: int, tokens: int, tokens_per_s: float) -> None:
    """All streams at once, on one core; what came must be what the stub had to write, to the letter."""
    words = ("--endless", "--context", STUB.context, "--tokens-per-s", tokens_per_s)
    with started(*words) as url:
        engine = open_openai("tiny", base_url=url, max_rows=rows)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        asked = requests_of(rows, tokens, 0)
        began, cpu = time.perf_counter(), time.process_time()
        texts, ends, chunks = anyio.run(_read_all, engine, asked)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        anyio.run(engine.aclose)
    lost = 0
    for request in asked:
        prompt = STUB.prompt_ids([("user", request.messages[0].text)], thinking=True, continues=False)
        drawn = STUB.tokens(prompt, 0)
        ids = [next(drawn) for _ in range(tokens)]
        lost += (ends[request.id].token_ids, texts[request.id]) != (tuple(ids), decode(ids))
    row: dict[str, Any] = {"rows": rows, "tokens": rows * tokens, "asked tok/s": tokens_per_s}
    row |= {"tok/s": rows * tokens / wall_s, "us/token": cpu_s / (rows * tokens) * 1e6, "core %": 100 * cpu_s / wall_s}
    row |= {"chunks": chunks, "wrong": lost, "retried": sum(len(end.interruptions) for end in ends.values())}
    row["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("many streams", [row], load=os.getloadavg()[0])
    assert not lost


async def _read_all(
    engine: OpenAIEngine, asked: list[GenerationRequest]
) -> tuple[dict[str, str], dict[str, Completion], int]:
    texts = {request.id: "" for request in asked}
    ends: dict[str, Completion] = {}
    chunks = 0
    async with engine.generate(asked) as stream:
        async for event in stream:
            if isinstance(event, TokenChunk):
                texts[event.request_id] += event.text
                chunks += 1
            elif isinstance(event, Completion):
                ends[event.request_id] = event
            else:
                raise RuntimeError(f"no event for that: {event}")
    return texts, ends, chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mlx", "stub"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens-per-s", type=float, default=20_000.0)
    options = parser.parse_args()
    if options.what == "mlx":
        against_bare(options.rows or 16, options.tokens or 256, options.rounds)
    else:
        many_streams(options.rows or 256, options.tokens or 800, options.tokens_per_s)


if __name__ == "__main__":
    main()
