"""Reading prompts: tokens a second of the engine, of the model alone, and the memory that it takes.

    python benchmarks/prefill.py [--model DIR] [--prompts 1x1024 16x64 16x256] [--rounds 5] [--kv-bits 8]

From the requests to the first token of each, prompts all different; short ones share a pass. `model alone` is the same
model in passes of --chunk tokens, one prompt after the other, without an engine around it: what sharing gives, and
what the engine takes. They take turns, and the median counts. Memory is what MLX held at most beyond the weights and
the prompts' caches.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from common import NANO, IdTokenizer, complete, median, prompt_of, report, request

from engine.api import ModelInfo
from engine.backend import load_mlx
from engine.families.zaya.family import FAMILY
from engine.files.folder import ModelFolder
from engine.mlx.engine import LoadedModel, MLXEngine


def seconds_and_peak(engine: MLXEngine, prompts: list[list[int]]) -> tuple[float, int]:
    import mlx.core as mx

    mx.reset_peak_memory()
    started = time.perf_counter()
    done = complete(engine, [request(str(i), prompt, 1) for i, prompt in enumerate(prompts)])
    seconds = time.perf_counter() - started
    assert len(done) == len(prompts)
    return seconds, mx.get_peak_memory()


def alone(model: Any, chunk: int, prompts: list[list[int]]) -> float:
    import mlx.core as mx

    started = time.perf_counter()
    for prompt in prompts:
        caches = model.make_cache()
        for at in range(0, len(prompt), chunk):
            logits = model(mx.array([prompt[at : at + chunk]]), caches)[:, -1]
            mx.async_eval([cache.state for cache in caches])
        mx.eval(logits, [cache.state for cache in caches])
    return time.perf_counter() - started


def measure(engine: MLXEngine, model: Any, chunk: int, rows: int, tokens: int, rounds: int) -> dict[str, Any]:
    mine, bare, peaks = [], [], []
    for turn in range(rounds + 1):
        prompts = [prompt_of(tokens, first=6 + (turn * rows + i) % 80) for i in range(rows)]
        prompts = [[*prompt[:1], 6 + turn % 80, *prompt[2:]] for prompt in prompts]  # none is known from before
        seconds, peak = seconds_and_peak(engine, prompts)
        peer = alone(model, chunk, prompts)
        if turn > 0:  # the first turn warms up
            mine.append(seconds)
            bare.append(peer)
            peaks.append(peak)
    held = model.weight_bytes + rows * model.cache_bytes(tokens)
    return {
        "prompts": rows, "tokens": tokens, "tok/s": rows * tokens / median(mine),
        "model alone tok/s": rows * tokens / median(bare),
        "times": median([other / own for own, other in zip(mine, bare, strict=True)]),
        "MB more at most": (max(peaks) - held) / 1e6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO, help="folder of a ZAYA1 checkpoint (default: nano)")
    parser.add_argument("--prompts", nargs="+", default=["1x1024", "16x64", "16x256"], metavar="NUMBERxTOKENS")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of a pass of the model alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kv-bits", type=int, choices=(8,))
    args = parser.parse_args()
    load_mlx()
    model = FAMILY.load(ModelFolder(args.model), kv_bits=args.kv_bits)
    engine = MLXEngine(lambda: LoadedModel(model, IdTokenizer(), ModelInfo(name=args.model.name, thinks=False)))
    cases = [(int(rows), int(tokens)) for rows, tokens in (case.split("x") for case in args.prompts)]
    table = [measure(engine, model, args.chunk, rows, tokens, args.rounds) for rows, tokens in cases]
    engine.close()
    report("prefill", table, model=args.model.name, chunk=args.chunk)


if __name__ == "__main__":
    main()
