"""A whole run of Markovian RSA: tokens a second that count, and how full the batch was on the way.

    python benchmarks/whole_run.py [--model nano] [--n 16] [--c 4] [--t 2] [--beta 512] [--tau 128] [--problems 1]
                                   [--kv-bits 8]

Everything counts, from the first prompt to the last vote: prompts, waiting for the slowest of a round, comparing
answers. Useful tokens are those of candidates' completions; tokens that a row drew beyond its end, or computed again,
are not. `batch full` is the share of the time of all steps in which as many rows decoded as there are candidates in the
runs at hand, `rows` how many did on average, over time; `decoding` and `reading` are shares of the whole time. With
--problems, so many runs share the engine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from common import report

from engine.mlx.batch import DecodeBatch
from engine.mlx.prefill import Prefiller
from rsa import MarkovianRSA, RunResult
from rsa.compose import open_engine

PROBLEM = "Use 3, 7, 5 and {} once each to make 24."


@dataclass
class Watch:
    """Seconds of decoding by rows that decoded, and of reading prompts."""

    steps: list[tuple[int, float]] = field(default_factory=list)
    reading_s: float = 0.0


@contextmanager
def watched() -> Iterator[Watch]:
    watch, step, advance = Watch(), DecodeBatch.step, Prefiller.advance

    def timed_step(this: DecodeBatch) -> Any:
        rows, started = len(this.rows), time.perf_counter()
        ended = step(this)
        watch.steps.append((rows, time.perf_counter() - started))
        return ended

    def timed_advance(this: Prefiller, *prefills: Any, **how: Any) -> Any:
        started = time.perf_counter()
        caches = advance(this, *prefills, **how)
        watch.reading_s += time.perf_counter() - started
        return caches

    DecodeBatch.step, Prefiller.advance = timed_step, timed_advance  # type: ignore[method-assign]
    yield watch
    DecodeBatch.step, Prefiller.advance = step, advance  # type: ignore[method-assign]


async def solve_all(rsa: MarkovianRSA, problems: int, seed: int) -> list[RunResult]:
    results: list[RunResult] = []

    async def solve(number: int) -> None:
        results.append(await rsa.solve(PROBLEM.format(2 + number % 8), seed=seed + number))

    async with anyio.create_task_group() as tasks:
        for number in range(problems):
            tasks.start_soon(solve, number)
    return results


def measure(rsa: MarkovianRSA, problems: int, candidates: int, seed: int) -> dict[str, Any]:
    with watched() as watch:
        started = time.perf_counter()
        results = anyio.run(solve_all, rsa, problems, seed)
        seconds = time.perf_counter() - started
    useful = sum(result.usage.completion_tokens for result in results)
    prompts = sum(result.usage.prompt_tokens for result in results)
    decoding = sum(spent for _, spent in watch.steps)
    return {
        "runs": problems, "rows at most": candidates, "seconds": seconds,
        "tokens": useful, "useful tok/s": useful / seconds,
        "prompt tokens": prompts, "steps": len(watch.steps), "ms/step": 1000 * decoding / len(watch.steps),
        "batch full": sum(spent for rows, spent in watch.steps if rows >= candidates) / decoding,
        "rows": sum(rows * spent for rows, spent in watch.steps) / decoding,
        "decoding": decoding / seconds, "reading": watch.reading_s / seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a name, a folder or a hub id")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--c", type=int, default=4)
    parser.add_argument("--t", type=int, default=2)
    parser.add_argument("--beta", type=int, default=512)
    parser.add_argument("--tau", type=int, default=128)
    parser.add_argument("--answer-budget", type=int, default=64)
    parser.add_argument("--problems", type=int, nargs="+", default=[1])
    parser.add_argument("--kv-bits", type=int, choices=(8,))
    args = parser.parse_args()
    engine = open_engine(args.model, **({"kv_bits": args.kv_bits} if args.kv_bits else {}))
    settings = {name: getattr(args, name) for name in ("n", "c", "t", "beta", "tau", "answer_budget")}
    rsa = MarkovianRSA(engine, **settings)
    table = []
    for problems in args.problems:
        measure(rsa, problems, problems * args.n, seed=10_000)  # warms up
        table.append(measure(rsa, problems, min(problems * args.n, engine.model.max_rows or 10**9), seed=0))
    anyio.run(engine.aclose)
    report("a whole run", table, model=engine.model.name, kv_bits=args.kv_bits, **settings)


if __name__ == "__main__":
    main()
