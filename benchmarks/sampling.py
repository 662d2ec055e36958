"""Milliseconds to draw a token for each row, against mlx-lm's sampler on the same logits.

    python benchmarks/sampling.py [--vocab 262272] [--rows 1 16 64] [--spread 3]

Ours is what the engine uses on this machine; where that is kernels, the plain path is timed beside it. Logits are
float32, normal, of that spread. mlx-lm's sampler takes log-probabilities, which its generation makes of the logits
before: that is timed with it. Draws of a contestant are launched together, so that what is measured is the device;
contestants take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from common import median, report

from engine.api import SamplingParams
from engine.backend import load_mlx, on_cpu

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "T=1": {},
    "top-p 0.95": {"top_p": 0.95},
    "top-k 50": {"top_k": 50},
    "top-k 20, top-p 0.95": {"top_k": 20, "top_p": 0.95},
    "min-p 0.05": {"min_p": 0.05},
}
Draw = Callable[[int], Any]


def ours(rows: list[SamplingParams], logits: Any, *, plain: bool = False) -> Draw:
    from engine.mlx.sampler import BatchSampler

    with patch.dict(os.environ, {"RSA_KERNELS": "0"} if plain else {}):
        sampler = BatchSampler(rows)
    return lambda draw: tuple(sampler(logits, [draw] * len(rows))[:2])


def mlx_lm(settings: dict[str, Any], logits: Any) -> Draw:
    import mlx.core as mx
    from mlx_lm.sample_utils import make_sampler

    temperature = settings.get("temperature", 1.0)
    filters = {name: value for name, value in settings.items() if name != "temperature"}
    sampler = make_sampler(temp=temperature, **filters)
    return lambda _: sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


def milliseconds(contestants: Sequence[Draw], draws: int, turns: int) -> list[float]:
    """The median time of one draw of each."""
    import mlx.core as mx

    taken: list[list[float]] = [[] for _ in contestants]
    for turn in range(turns + 1):
        for draw, times in zip(contestants, taken, strict=True):
            started = time.perf_counter()
            mx.eval([draw(turn * draws + i) for i in range(draws)])
            if turn > 0:  # the first compiles
                times.append((time.perf_counter() - started) / draws * 1e3)
    return [median(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=262_272)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--spread", type=float, default=3.0)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    mx = load_mlx()
    from engine.mlx.kernels import launch

    table = []
    for count in args.rows:
        logits = mx.random.normal((count, args.vocab), key=mx.random.key(0)) * args.spread
        mx.eval(logits)
        for name, settings in SETTINGS.items():
            rows = [SamplingParams(seed=i, **settings) for i in range(count)]
            contestants = [ours(rows, logits), mlx_lm(settings, logits)]
            if launch.wanted():
                contestants.append(ours(rows, logits, plain=True))
            times = milliseconds(contestants, draws=1 if on_cpu() else 20, turns=args.turns)
            plain = {"plain ms": times[2]} if launch.wanted() else {}
            table.append({
                "rows": count, "settings": name, "ours ms": times[0], **plain, "mlx-lm ms": times[1],
                "mlx-lm / ours": times[1] / times[0],
            })  # fmt: skip
    report("sampling", table, vocab=args.vocab, spread=args.spread, kernels=launch.wanted())


if __name__ == "__main__":
    main()
