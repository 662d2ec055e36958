"""Thousands of runs on one engine, many at a time and many left on the way: none is lost, and memory comes to a stand.

    python benchmarks/soak.py [--runs 2000] [--wave 50] [--left 0.3] [--backend asyncio|trio] [--trace]

Waves of runs of Markovian RSA share an engine of `nano`. Of each wave a share is left after an event that a generator
draws; every other run must end, in the tokens that it has alone, for which each is played alone before. After each wave
the engine must have no row left, and memory is told: of the process, what the C library holds for it and what of that
is free (glibc), what MLX holds in use and for later, how many objects Python has, and, with `--trace`, how large they
are (it takes twice as long then); at the end, of the process once the C library has given back what is free. Whether
memory is flat is asked from the tenth wave on. The last line is JSON; the exit code is 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
from common import median, report, resident_mb

from engine.bridge import Mailbox
from engine.mlx.engine import MLXEngine
from engine.mlx.scheduler import Scheduler
from rsa import MarkovianRSA, RunResult, open_engine
from rsa.events import RunFinished

SETTINGS: dict[str, Any] = {"n": 2, "c": 2, "t": 1, "beta": 32, "tau": 16, "answer_budget": 16}
PROBLEMS = (
    "Make 24 from the numbers 3, 7, 5, 2.",
    "Start at 4, add 19, multiply by 4, subtract 20, all modulo 97.",
    "Add up these numbers: 48, 93, 120, 7, 31.",
    "Start at 11, multiply by 3, add 5, all modulo 89.",
    "Add up these numbers: 5, 6.",
)
SEEDS = 4
EVENTS = 24
"""A run is left after one of so many events, if it has that many."""
WARM_WAVES = 10
MOST_MB_MORE = 10.0
"""Megabytes that the process may grow by from the first quarter of the warm waves to the last."""
Key = tuple[str, int]


@dataclass
class Soak:
    """The runs so far: how each ended, and what each has to come to."""

    rsa: MarkovianRSA
    draw: random.Random
    left: float
    alone: dict[Key, RunResult] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)

    async def play_alone(self) -> None:
        for problem in PROBLEMS:
            for seed in range(SEEDS):
                self.alone[problem, seed] = await self.rsa.solve(problem, seed=seed)

    async def wave(self, size: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(size):
                key = self.draw.choice(list(self.alone))
                leaves = self.draw.randrange(1, EVENTS) if self.draw.random() < self.left else None
                group.start_soon(self.run, key, leaves)

    async def run(self, key: Key, leaves: int | None) -> None:
        """One run, left after so many events if that is not None."""
        count = 0
        async with self.rsa.stream(key[0], seed=key[1]) as events:
            async for event in events:
                count += 1
                if isinstance(event, RunFinished):
                    same = tokens(event.result) == tokens(self.alone[key])
                    self.ends["as alone" if same else "not as alone"] += 1
                    return
                if count == leaves:
                    self.ends["left"] += 1
                    return
        self.ends["lost"] += 1


def tokens(result: RunResult) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Of each candidate, how it ended, its parents and its tokens."""
    return [
        (each.status, each.parents, each.completion.token_ids if each.completion else ())
        for played in result.rounds
        for each in played.candidates
    ]


class _Allocated(ctypes.Structure):
    """What glibc's `mallinfo2` says, in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keepcost")
    )


def allocated_mb() -> dict[str, float]:
    """What the C library holds: in its arenas and mapped, and how much of the arenas is free; {} without glibc."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return {}
    mallinfo.restype = _Allocated
    told = mallinfo()
    return {"malloc MB": (told.arena + told.hblkhd) / 1e6, "of that free": told.free / 1e6}


def trimmed_mb() -> float:
    """Memory of the process when the C library has given back what is free; nan without glibc."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        return float("nan")
    return resident_mb()


def memory() -> dict[str, float]:
    """What holds memory now, in megabytes."""
    import mlx.core as mx

    gc.collect()
    told = {"process MB": resident_mb(), **allocated_mb()}
    told |= {"MLX MB": mx.get_active_memory() / 1e6, "MLX kept": mx.get_cache_memory() / 1e6}
    if tracemalloc.is_tracing():
        told["Python MB"] = tracemalloc.get_traced_memory()[0] / 1e6
    return told | {"objects": float(len(gc.get_objects()))}


async def engine_state(engine: MLXEngine) -> dict[str, float]:
    """What the worker holds between two steps: whether there is work left, and the beginnings of prompts it keeps."""
    answers: Mailbox[dict[str, float]] = Mailbox()

    def look(scheduler: Scheduler) -> None:
        kept = scheduler._prefiller.prefixes.nbytes / 1e6
        answers.put({"busy": float(not scheduler.idle), "prefixes MB": kept})

    engine.call(look)
    return await answers.get()


async def soak(runs: int, wave: int, left: float) -> tuple[list[dict[str, Any]], Counter[str], float]:
    """What was measured after each wave, how runs ended, and the memory at the end without what is free."""
    engine = await anyio.to_thread.run_sync(open_engine, "nano")
    assert isinstance(engine, MLXEngine)
    table: list[dict[str, Any]] = []
    soaking = Soak(MarkovianRSA(engine, **SETTINGS), random.Random(0), left)
    await soaking.play_alone()
    for number in range(1, runs // wave + 1):
        began = time.perf_counter()
        await soaking.wave(wave)
        seconds = time.perf_counter() - began
        await engine_state(engine)  # rows that were left go at the worker's next step
        table.append({"wave": number, "s": seconds, **memory(), **await engine_state(engine)})
        print(table[-1], file=sys.stderr, flush=True)
    trimmed = trimmed_mb()
    await engine.aclose()
    return table, soaking.ends, trimmed


def grown_mb(table: list[dict[str, Any]]) -> float:
    """How much more the process holds in the last quarter of the warm waves than in the first, in the median."""
    sizes = [row["process MB"] for row in table[WARM_WAVES - 1 :]]
    quarter = max(1, len(sizes) // 4)
    return median(sizes[-quarter:]) - median(sizes[:quarter]) if sizes else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--wave", type=int, default=50, help="runs at the same time")
    parser.add_argument("--left", type=float, default=0.3, help="the share of them that is left on the way")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--trace", action="store_true", help="count Python's objects")
    args = parser.parse_args()
    if args.trace:
        tracemalloc.start()
    table, ends, trimmed = anyio.run(soak, args.runs, args.wave, args.left, backend=args.backend)
    grown = grown_mb(table)
    busy = sum(row["busy"] for row in table)
    amiss = ends["lost"] + ends["not as alone"] + busy > 0 or grown >= MOST_MB_MORE
    report(
        "soak", table, backend=args.backend, ends=dict(ends), waves_with_rows_left=busy, grown_mb=grown,
        process_mb_trimmed=trimmed,
        memory_flat=grown < MOST_MB_MORE,
    )  # fmt: skip
    raise SystemExit(1 if amiss else 0)


if __name__ == "__main__":
    main()
