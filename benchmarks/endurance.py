"""Many steps of decoding while rows join and leave: memory, the graph of a step and its time stay what they were.

    python benchmarks/endurance.py [--model DIR] [--steps 40000] [--rows 8] [--kv-bits 8]

Runs the scheduler by hand on a ZAYA1 checkpoint (nano, or one that benchmarks/random_checkpoint.py wrote). Prompts and
completions have lengths drawn from a seed; whoever ends is replaced, so that rows of any age decode together. The run
is told in tenths, all from the same draws: median milliseconds of a step, tokens a second, what MLX holds beyond
weights and caches at the end of the tenth and what it held at most, the caches over what their rows' tokens need (in
the median step), the process, and the operations that one step hands to the device. The last line says whether memory
and graph were flat from the second tenth on: the first warms up.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from common import NANO, IdTokenizer, median, prompt_of, report, request, resident_mb

from engine.backend import load_mlx
from engine.families.zaya.family import FAMILY
from engine.families.zaya.model import Model
from engine.files.folder import ModelFolder
from engine.mlx.row import Row
from engine.mlx.scheduler import Scheduler

PARTS = 10
MOST_MB_MORE = 2.0
"""Megabytes that MLX may hold more at the end of the last tenth than of the second."""
KV_BYTES = 2 << 30


@dataclass
class Load:
    """Requests without end: as many rows as are wanted, with lengths from a generator of its own."""

    scheduler: Scheduler
    rows: int
    prompt: tuple[int, int]
    new: tuple[int, int]
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    submitted: int = 0
    running: list[Row] = field(default_factory=list)
    tokenizer: IdTokenizer = field(default_factory=IdTokenizer)

    def refill(self) -> None:
        self.running = [row for row in self.running if row.finish_reason is None]
        while len(self.running) < self.rows:
            prompt = prompt_of(self.draw.randint(*self.prompt), first=6 + self.submitted % 80)
            asked = request(str(self.submitted), prompt, self.draw.randint(*self.new), seed=self.submitted)
            row = Row(asked, prompt, self.tokenizer, emit=lambda _: None)
            self.running.append(row)
            self.submitted += 1
            self.scheduler.submit([row])


@contextmanager
def counted_graph(counts: list[int]) -> Iterator[None]:
    """While this is open, what is handed to the device is counted, before it is: operations, a number a hand-over."""
    import mlx.core as mx

    original = mx.async_eval

    def counting(*outputs: Any) -> None:
        dot = StringIO()
        mx.export_to_dot(dot, *_arrays(outputs))
        counts.append(dot.getvalue().count('label ="'))
        original(*outputs)

    mx.async_eval = counting
    yield
    mx.async_eval = original


def _arrays(tree: Any) -> list[Any]:
    if isinstance(tree, list | tuple):
        return [array for part in tree for array in _arrays(part)]
    return [tree]


def endure(load: Load, steps: int, model: Model) -> list[dict[str, Any]]:
    import mlx.core as mx

    weights = model.weight_bytes

    def beyond(held: int) -> float:
        prefixes = load.scheduler._prefiller.prefixes.nbytes
        return (held - weights - load.scheduler._batch.nbytes - prefixes) / 1e6

    table = []
    for part in range(PARTS):
        times, shares, tokens, most, began = list[float](), list[float](), 0, 0.0, time.perf_counter()
        for _ in range(steps // PARTS):
            load.refill()
            mx.reset_peak_memory()
            started = time.perf_counter()
            load.scheduler.step()
            times.append(time.perf_counter() - started)
            batch = load.scheduler._batch
            tokens += len(batch.rows)
            if batch.rows:
                shares.append(batch.nbytes / sum(model.cache_bytes(row.length) for row in batch.rows))
            most = max(most, beyond(mx.get_peak_memory()))
        mx.synchronize()
        held = beyond(mx.get_active_memory())
        table.append(
            {
                "steps to": (part + 1) * (steps // PARTS), "ms/step": 1000 * median(times),
                "tokens/s": tokens / (time.perf_counter() - began), "MB held": held, "MB at most": most,
                "caches/needed": median(shares), "process MB": resident_mb(), "operations/step": operations(load),
            }
        )  # fmt: skip
        print(table[-1], file=sys.stderr, flush=True)
    return table


def operations(load: Load) -> int:
    """Of one step in which rows only decode, as many as there are to be."""
    for _ in range(1000):
        load.refill()
        before, counts = list(load.scheduler._batch.rows), list[int]()
        waiting = load.scheduler._queue
        if not waiting and len(before) == load.rows:
            with counted_graph(counts):
                load.scheduler.step()
            return sum(counts)
        load.scheduler.step()
    return -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO, help="folder of a ZAYA1 checkpoint (default: nano)")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, nargs=2, default=(8, 200), metavar=("LEAST", "MOST"))
    parser.add_argument("--tokens", type=int, nargs=2, default=(20, 400), metavar=("LEAST", "MOST"))
    parser.add_argument("--kv-bits", type=int, choices=(8,))
    args = parser.parse_args()
    load_mlx()
    model = FAMILY.load(ModelFolder(args.model), kv_bits=args.kv_bits)
    scheduler = Scheduler(model, max_rows=args.rows, kv_bytes=KV_BYTES, prefill_chunk=512, context_tokens=None)
    load = Load(scheduler, args.rows, tuple(args.prompt), tuple(args.tokens))
    table = endure(load, args.steps, model)
    warm = table[1:]
    early, late = (max(row["operations/step"] for row in half) for half in (table[: len(table) // 2], warm))
    grown = warm[-1]["MB held"] - warm[0]["MB held"]
    report(
        "endurance", table, model=args.model.name, joined=load.submitted, notes=list(model.notes),
        times_slower=warm[-1]["ms/step"] / warm[0]["ms/step"],
        memory_flat=grown < MOST_MB_MORE, graph_flat=late <= early,
    )  # fmt: skip


if __name__ == "__main__":
    main()
