"""One evaluation on one, two, four GPUs of a machine: tokens/s, what they differ in, and what the host does meanwhile.

    python benchmarks/devices.py chain --model nano [--counts 1 2 4] [--kill 4] [--out DIR] [SETTINGS OF A RUN]

What is not known here goes to `rsa.RSAConfig`: `--n 16 --beta 1k`. `--kill` measures so many once more and kills one
of their engines (SIGKILL) when half of the problems are done. A first evaluation of two problems compiles
kernels and is not counted. Columns:

    tokens/s  all tokens, from the first engine that runs to the last problem; `full`: in the best stretch of a fifth of
              that time, when every engine had work
    ratio     of tokens/s to those of one GPU; `full` ratio likewise
    differ    candidates whose tokens are not those of one GPU
    driver    share of one core that this process took; `workers`: cores that the engines' processes took, each
    GB        the largest memory of this process, and of one engine's

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from common import report

from evals import evaluate
from evals.events import EvalEvent, EvalStarted, PlaceLost, RunEnded
from evals.workers.devices import Devices
from evals.workers.processes import Processes
from rsa import read_events

SAMPLE_S = 0.5
WRITTEN = ("candidates.jsonl", "results.json")


class Watch:
    """Sees an evaluation's events, and samples its tokens while it runs."""

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.started: EvalStarted | None = None
        self.began = self.ended = 0.0
        self.done = 0
        self.lost: list[str] = []
        self.samples: list[tuple[float, int]] = []

    def see(self, event: EvalEvent) -> None:
        now = time.perf_counter()
        match event:
            case EvalStarted():
                self.started, self.began = event, now
            case RunEnded():
                self.done, self.ended = self.done + 1, now
                if self.done == self.kill_at:
                    os.kill(engines()[0], signal.SIGKILL)
            case PlaceLost():
                self.lost.append(event.name)
            case _:
                pass

    async def sample(self) -> None:
        while True:
            if self.started is not None:
                self.samples.append((time.perf_counter(), self.started.meter.tokens))
            await anyio.sleep(SAMPLE_S)

    def full_tokens_per_s(self) -> float:
        """In the best window of a fifth of the time."""
        window, best = (self.ended - self.began) / 5, 0.0
        recent: deque[tuple[float, int]] = deque()
        for now, tokens in self.samples:
            recent.append((now, tokens))
            while now - recent[0][0] > window:
                recent.popleft()
            if now - recent[0][0] > window / 2:
                best = max(best, (tokens - recent[0][1]) / (now - recent[0][0]))
        return best


def engines() -> list[int]:
    """The processes of this one's workers."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"evals.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def measured(args: argparse.Namespace, settings: dict[str, Any], count: int, out: Path, kill: bool) -> Watch:
    limit = args.limit if out.name != "warm" else 2 * count
    watch = Watch(limit // 2 if kill else None)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.sample)
        await evaluate(
            args.benchmark, args.model, args.method, out=out, limit=limit, on_event=watch.see,
            in_flight=args.in_flight, executor=Processes(Devices.read(str(count))), **settings,
        )  # fmt: skip
        group.cancel_scope.cancel()
    return watch


def row_of(
    watch: Watch, host: dict[str, float], alone: dict[str, Any] | None, out: Path, first: Path
) -> dict[str, Any]:
    assert watch.started is not None
    wall_s = watch.ended - watch.began
    written = candidates(out)
    generated = sum(map(len, written.values()))
    row: dict[str, Any] = {"GPUs": watch.started.places, "wall s": wall_s, "tokens": generated}
    row |= {"tokens/s": generated / wall_s, "full": watch.full_tokens_per_s()}
    base = alone or row
    row |= {"ratio": row["tokens/s"] / base["tokens/s"], "full ratio": row["full"] / base["full"]}
    others = candidates(first)
    differ = [key for key, tokens in written.items() if others.get(key) != tokens]
    row |= {"candidates": len(written), "differ": len(differ), "in round 0": sum(key[1] == 0 for key in differ)}
    row["same bytes"] = all((out / name).read_bytes() == (first / name).read_bytes() for name in WRITTEN)
    return {**row, **host, "lost": len(watch.lost)}


def candidates(folder: Path) -> dict[tuple[str, int, int], tuple[int, ...]]:
    """By run, round and index: the tokens of each."""
    return {
        (run.name, event.candidate.round, event.candidate.index): event.candidate.completion.token_ids
        for run in (folder / "runs").iterdir()
        for event in read_events(run)
        if event.type == "candidate_finished" and event.candidate.completion is not None
    }


def host_load(before: Sequence[float], wall_s: float, count: int) -> dict[str, float]:
    """`before`: processor seconds of this process and of its children that have ended."""
    now = processor_s()
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "driver": (now[0] - before[0]) / wall_s,
        "workers": (now[1] - before[1]) / wall_s / count,
        "driver GB": own.ru_maxrss / 1e6,
        "engine GB": children.ru_maxrss / 1e6,
    }


def processor_s() -> tuple[float, float]:
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("benchmark", help="a name or a TOML file")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--method", default="rsa")
    parser.add_argument("--counts", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--limit", type=int, default=200, help="problems")
    parser.add_argument("--in-flight", type=int, help="problems at once in each engine")
    parser.add_argument("--kill", type=int, metavar="COUNT", help="so many GPUs, and one engine is killed")
    parser.add_argument("--out", type=Path, help="results folders are kept there; rows of earlier calls count, too")
    parser.add_argument("--no-warming", action="store_true", help="kernels were compiled before")
    args, others = parser.parse_known_args()
    settings = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(others[::2], others[1::2], strict=True)
    }
    out = args.out or Path(tempfile.mkdtemp(prefix="rsa-devices-"))
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    if not args.no_warming:
        anyio.run(measured, args, settings, max([*args.counts, args.kill or 1]), out / "warm", False)
    for count, kill in [*((count, False) for count in args.counts), *([(args.kill, True)] if args.kill else [])]:
        folder, before, began = out / f"{count}{'-killed' if kill else ''}", processor_s(), time.perf_counter()
        watch = anyio.run(measured, args, settings, count, folder, kill)
        host = host_load(before, time.perf_counter() - began, count)
        first = rows[0] if rows else None
        rows.append(row_of(watch, host, first, folder, out / str(first["GPUs"] if first else count)))
        folder.with_suffix(".json").write_text(json.dumps(rows[-1]))
        print(rows[-1], flush=True)
    report("devices", rows, model=args.model, benchmark=args.benchmark, **settings)


if __name__ == "__main__":
    main()
