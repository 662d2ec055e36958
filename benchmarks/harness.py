"""What the harness costs: milliseconds a candidate beside the engine's own, and how memory grows with the problems.

    python benchmarks/harness.py [--problems 500 5000] [--n 8] [--t 1]

The scripted engine stands in for a model: it writes the same short texts alone and inside an evaluation, and what an
evaluation takes longer is the harness (prompts, run folders, scores, results). Each size runs in a process of its
own, so that its peak memory is its own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from engine.api import GenerationRequest, Message, SamplingParams
from engine.scripted import Script, ScriptedEngine
from evals import Benchmark, Question, evaluate

TEXT = "So far so good; now the next step follows from the one before. "
BUDGETS = {"beta": 512, "tau": 128, "answer_budget": 64}


class Forgetful(ScriptedEngine):
    """Keeps no list of what it was asked: only the harness's own memory is to be seen."""

    def _admit(self, requests: Any) -> Any:
        rows = super()._admit(requests)
        self.requests.clear()
        return rows


def script(request: GenerationRequest) -> Script:
    seed = request.sampling.seed
    return Script(f"{seed}: {TEXT * 4}", rf"The answer is \boxed{{{seed % 3}}}.")


def problems(count: int) -> Benchmark:
    def questions() -> Iterator[Question]:
        for i in range(count):
            yield Question(id=f"problem-{i}", problem=f"What is {i} modulo 3?", gold=i % 3)

    return Benchmark(name="modulo", metric="integer", questions=questions)


async def alone(count: int, n: int, rounds: int) -> None:
    """The engine's own part: the same candidates without a harness."""
    engine = Forgetful(script)
    sampling = SamplingParams(reasoning_budget=BUDGETS["beta"], answer_budget=BUDGETS["answer_budget"])
    for i in range(count * rounds):
        message = Message(role="user", text=f"What is {i} modulo 3?")
        requests = [
            GenerationRequest(id=str(j), messages=(message,), sampling=sampling.model_copy(update={"seed": i * n + j}))
            for j in range(n)
        ]
        async with engine.generate(requests) as stream:
            async for _ in stream:
                pass


def measure(count: int, n: int, t: int) -> dict[str, float]:
    """One size, in this process."""
    candidates = count * n * (t + 1)
    began, used = time.perf_counter(), time.process_time()
    anyio.run(alone, count, n, t + 1)
    engine_s, engine_cpu_s = time.perf_counter() - began, time.process_time() - used
    with tempfile.TemporaryDirectory() as folder:

        async def whole() -> None:
            await evaluate(problems(count), Forgetful(script), out=Path(folder) / "out", n=n, c=2, t=t, **BUDGETS)

        began, used = time.perf_counter(), time.process_time()
        anyio.run(whole)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - used
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on a Mac
    return {
        "problems": count,
        "candidates": candidates,
        "engine_ms": engine_s / candidates * 1e3,
        "added_ms": (wall_s - engine_s) / candidates * 1e3,
        "added_cpu_ms": (cpu_s - engine_cpu_s) / candidates * 1e3,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
    }


def main() -> None:
    """Measure each size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--t", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.problems[0], options.n, options.t)))
        return
    rows = []
    for count in options.problems:
        words = [__file__, "--here", "--problems", str(count), "--n", str(options.n), "--t", str(options.t)]
        done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{key} {value:,.3f}".removesuffix(".000") for key, value in rows[-1].items()), flush=True)
    growth = rows[-1]["peak_mb"] - rows[0]["peak_mb"]
    facts = {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "harness", "rows": rows, "peak_growth_mb": growth, **facts}))


if __name__ == "__main__":
    main()
