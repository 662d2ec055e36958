"""Tokens a second of the engine, against its peers on the same weights, in one run.

    python benchmarks/decode.py [--model DIR] [--peer-python PYTHON]

Peers: mlx-lm's BatchGenerator running the very same model object and BLAS, and, given an interpreter that has torch,
transformers' `generate` in float32. Everyone draws at temperature 1, B rows of one prompt, as many tokens each. The
contestants take turns; medians and the medians of the paired ratios are shown. The whole call is timed, the prompt
included. Last, memory over many steps: it must grow by the KV cache alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import NANO, complete, engine_on, median, prompt_of, report, request


def ours(folder: Path) -> Callable[[int, list[int], int], float]:
    engine = engine_on(folder)

    def run(rows: int, prompt: list[int], new_tokens: int) -> float:
        started = time.perf_counter()
        done = complete(engine, [request(str(i), prompt, new_tokens, seed=i) for i in range(rows)])
        seconds = time.perf_counter() - started
        assert all(c.usage.completion_tokens == new_tokens for c in done)
        return seconds

    return run


def mlx_lm_batch(folder: Path) -> Callable[[int, list[int], int], float]:
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    from engine.families.zaya.weights import load

    model, _ = load(folder)

    def run(rows: int, prompt: list[int], new_tokens: int) -> float:
        mx.random.seed(0)
        started = time.perf_counter()
        generator = BatchGenerator(model, max_tokens=new_tokens, sampler=make_sampler(temp=1.0))
        generator.insert([prompt] * rows, [new_tokens] * rows)
        made = 0
        while made < rows * new_tokens:
            made += len(generator.next_generated())
        seconds = time.perf_counter() - started
        generator.close()
        return seconds

    return run


def transformers(folder: Path, python: str) -> Callable[[int, list[int], int], float]:
    peer = Path(__file__).parent / "peers" / "transformers_generate.py"
    process = subprocess.Popen(
        [python, str(peer), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    print("transformers peer:", process.stdout.readline().strip(), file=sys.stderr)

    def run(rows: int, prompt: list[int], new_tokens: int) -> float:
        process.stdin.write(json.dumps({"prompt": prompt, "rows": rows, "new_tokens": new_tokens}) + "\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline())["seconds"])

    return run


def race(contestants: dict[str, Any], rows: int, prompt: list[int], new_tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of each, and our speed over each peer's, from turns taken one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            taken = run(rows, prompt, new_tokens)
            if turn > 0:  # the first turn warms up
                seconds[name].append(taken)
    row: dict[str, Any] = {"B": rows, "prompt": len(prompt), "new": new_tokens}
    for name, taken in seconds.items():
        row[f"{name} tok/s"] = rows * new_tokens / median(taken)
    for name, taken in seconds.items():
        if name != "ours":
            row[f"ours/{name}"] = median([b / a for a, b in zip(seconds["ours"], taken, strict=True)])
    return row


def steady(folder: Path, steps: int) -> dict[str, Any]:
    """Active memory beyond the KV cache, at a third of the steps and at the end: the same, if nothing leaks."""
    import mlx.core as mx

    from engine.mlx.batch import DecodeBatch

    engine = engine_on(folder)
    marks: list[int] = []
    step = DecodeBatch.step

    def watching(self: DecodeBatch) -> list[Any]:
        finished = step(self)
        if self.rows and len(self.rows[0].token_ids) in (steps // 3, steps - 2):
            mx.synchronize()
            marks.append(mx.get_active_memory() - sum(cache.nbytes for cache in self._caches))
        return finished

    DecodeBatch.step = watching  # type: ignore[method-assign]
    started = time.perf_counter()
    complete(engine, [request(str(i), prompt_of(16), steps, seed=i) for i in range(2)])
    seconds = time.perf_counter() - started
    DecodeBatch.step = step  # type: ignore[method-assign]
    engine.close()
    return {"steps": steps, "ms/step": 1000 * seconds / steps, "MB at 1/3": marks[0] / 1e6, "MB at end": marks[1] / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO, help="folder of a ZAYA1 checkpoint (default: nano)")
    parser.add_argument("--peer-python", help="an interpreter with torch and transformers, for that peer")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15_000, help="of the memory check; 0 leaves it out")
    args = parser.parse_args()
    contestants: dict[str, Any] = {"ours": ours(args.model), "mlx-lm": mlx_lm_batch(args.model)}
    if args.peer_python:
        contestants["transformers"] = transformers(args.model, args.peer_python)
    rows = [race(contestants, b, prompt_of(args.prompt), args.tokens, args.rounds) for b in args.rows]
    if args.steps:
        report("memory", [steady(args.model, args.steps)])
    report("decode", rows, model=args.model.name)


if __name__ == "__main__":
    main()
