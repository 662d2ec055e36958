"""Going on with a large run: how long it takes, and which part of that goes into what checks the log.

    python benchmarks/resuming.py [--n 16] [--t 2] [--tokens 40000] [--rounds 5]

A scripted engine writes a run of n candidates in t + 1 rounds, each of so many tokens. Then, in medians of rounds: the
finished run is read again; the run without its end is gone on with, where nothing is left to generate; and of what that
takes, reading the events, and of that, checking their digests. Times are in seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RunResult, read_events
from rsa.digests import unseal, unseal_lines
from rsa.runlog import EVENTS, RESULT, RUN

LETTERS = "abcdefghij klmnopqrstuvwxyz"
"""What candidates are made of; the scripted engine takes a character for a token."""


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--t", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    def script(request: GenerationRequest) -> Script:
        draw = random.Random(request.sampling.seed)
        reasoning = "".join(draw.choices(LETTERS, k=args.tokens))
        return Script(reasoning=reasoning, answer=rf"\boxed{{{draw.randrange(3)}}}")

    sizes = {"n": args.n, "c": min(4, args.n), "t": args.t, "beta": args.tokens + 100, "tau": 4096}

    def go_on() -> RunResult:
        rsa = MarkovianRSA(ScriptedEngine(script, tokens_per_step=512), **sizes, answer_budget=64)
        return rsa.solve_sync("why?", out=folder, resume=True)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        generated_s = seconds(go_on)
        lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
        start = unseal((folder / RUN).read_bytes()).digest
        taken: dict[str, list[float]] = {"finished": [], "all but its end": [], "reading": [], "digests": []}
        for _ in range(args.rounds):
            taken["finished"].append(seconds(go_on))
            (folder / RESULT).unlink()
            (folder / EVENTS).write_bytes(b"".join(lines[:-1]))
            taken["all but its end"].append(seconds(go_on))
            taken["reading"].append(seconds(lambda: read_events(folder)))
            taken["digests"].append(seconds(lambda: list(unseal_lines(lines, start))))
        found: dict[str, Any] = {
            "benchmark": "resuming",
            "candidates": args.n * (args.t + 1),
            "tokens": args.tokens,
            "log, MB": round(sum(map(len, lines)) / 1e6, 1),
            "generated": round(generated_s, 2),
            **{name: round(statistics.median(values), 4) for name, values in taken.items()},
            "machine": platform.machine(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
