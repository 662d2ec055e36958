"""Decode and prefill of a ZAYA1-VL checkpoint on a GPU, against mlx-vlm's language model in the same run.

    python benchmarks/random_checkpoint.py FOLDER --size full
    python benchmarks/full_size.py FOLDER [--peer SITE] [--kv-bits 8] [--rows-and-context 1x1024 64xmixed ...]
                                   [--prompts 1x4096 16x1024 ...]

SITE is a folder with mlx_vlm in it (`pip install --no-deps --target SITE mlx-vlm==0.7.10`). Milliseconds of the median
step: ours of the whole engine, rows of different prompts, `mixed` from 512 to 8,192 tokens; the peer's of its model
with mlx-lm's batch cache and sampler, one step ahead likewise, of rows of one length. Then prompts, tokens a second:
the peer's are one pass, whose logits must fit. Each is measured twice, and the second counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import complete, engine_on, median, mlx_vlm_model, prompt_of, report
from mlx import core as mx

from engine.api import GenerationRequest, Message, SamplingParams
from engine.mlx.batch import DecodeBatch

TOP_P = {"T = 1": 1.0, "top-p 0.95": 0.95}
STEPS, WARM = 64, 10
SHORTEST, LONGEST = 512, 8192
MOST_PEER_TOKENS = 32_768
"""Tokens of prompts in one pass of the peer's: it makes logits of each, in bfloat16 17 GB then."""


@dataclass(frozen=True)
class Case:
    name: str
    contexts: list[int]

    @classmethod
    def read(cls, text: str) -> Case:
        """`ROWSxCONTEXT`, of which the second may be `mixed`."""
        rows, context = text.split("x", 1)
        if context != "mixed":
            return cls(f"{rows} x {context}", [int(context)] * int(rows))
        apart = (LONGEST - SHORTEST) / (int(rows) - 1)
        return cls(f"{rows} mixed", [round(SHORTEST + apart * i) for i in range(int(rows))])

    @property
    def equal(self) -> bool:
        return len(set(self.contexts)) == 1


def requests(contexts: list[int], new: int, top_p: float, first: int = 7) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            id=str(i),
            messages=(Message(role="user", text=" ".join(map(str, prompt_of(context, first=first + i)))),),
            sampling=SamplingParams(seed=i, max_tokens=new, top_p=top_p),
        )
        for i, context in enumerate(contexts)
    ]


def note(found: dict[str, float], name: str, value: float) -> None:
    """Each figure at once: a run that is cut off has shown what it has."""
    found[name] = value
    print(f"{name}: {value:.2f}", file=sys.stderr, flush=True)


def ours(folder: Path, cases: list[Case], prompts: list[Case], kv_bits: int | None) -> dict[str, float]:
    engine, found, times = engine_on(folder, kv_bits=kv_bits), {}, list[tuple[float, int]]()
    original = DecodeBatch.step

    def step(self: DecodeBatch) -> list[Any]:
        started, rows = time.perf_counter(), len(self.rows)
        finished = original(self)
        times.append((time.perf_counter() - started, rows))
        return finished

    DecodeBatch.step = step  # type: ignore[method-assign]
    for case in cases:
        rows = len(case.contexts)
        for name, top_p in TOP_P.items():
            for _ in range(2):
                times.clear()
                # Those that start first go on while the prompts of the others are computed.
                complete(engine, requests(case.contexts, STEPS + 2 * rows, top_p))
            full = [seconds for seconds, count in times if count == rows]
            note(found, f"{case.name}, {name}", 1000 * median(full[WARM:-2]))
    for case in prompts:
        for turn in range(2):
            started = time.perf_counter()
            complete(engine, requests(case.contexts, 1, 1.0, first=100 * (turn + 1)))
            note(found, f"prompts {case.name}", sum(case.contexts) / (time.perf_counter() - started))
    DecodeBatch.step = original  # type: ignore[method-assign]
    engine.close()
    return found


def peers(model: Any, cases: list[Case], prompts: list[Case]) -> dict[str, float]:
    from mlx_lm.sample_utils import make_sampler

    found = {}
    for case in cases:
        if not case.equal:
            continue
        rows, context = len(case.contexts), case.contexts[0]
        for name, top_p in TOP_P.items():
            sampler, cache = make_sampler(temp=1.0, top_p=top_p), batch_of(model, rows, context)
            tokens, times = mx.array([5] * rows), []
            for _ in range(STEPS):
                started = time.perf_counter()
                logits = model(tokens[:, None], cache=cache).logits[:, -1].astype(mx.float32)
                drawn = sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
                mx.async_eval(drawn)
                tokens.tolist()
                tokens = drawn
                times.append(time.perf_counter() - started)
            note(found, f"{case.name}, {name}", 1000 * median(times[WARM:]))
    for case in prompts:
        if sum(case.contexts) > MOST_PEER_TOKENS:
            continue
        ids = mx.array([prompt_of(context, first=7 + i) for i, context in enumerate(case.contexts)])
        for _ in range(2):
            started, cache = time.perf_counter(), model.make_cache()
            mx.eval(model(ids, cache=cache).logits[:, -1], [layer.state for layer in cache])
            note(found, f"prompts {case.name}", ids.size / (time.perf_counter() - started))
    return found


def batch_of(model: Any, rows: int, context: int) -> list[Any]:
    """Caches of so many rows: at most four prompts are computed, and repeated."""
    from mlx_lm.models.cache import BatchKVCache
    from mlx_vlm.models.cache import ArraysCache, CacheList

    prompts = min(rows, 4)
    cache = model.make_cache()
    model(mx.array([prompt_of(context, first=7 + i) for i in range(prompts)]), cache=cache)
    batch = []
    for layer in cache:
        kv, states = layer.caches
        keys, values = (mx.repeat(x, rows // prompts, axis=0) for x in kv.state[:2])
        many = BatchKVCache([0] * rows)
        many.keys, many.values, many._idx, many.offset = keys, values, context, mx.array([context] * rows)
        others = ArraysCache(2)
        others.cache = [mx.repeat(x, rows // prompts, axis=0) for x in states.state]
        batch.append(CacheList(many, others))
    mx.eval([layer.state for layer in batch])
    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, help="a folder with mlx_vlm in it")
    parser.add_argument("--rows-and-context", nargs="*", default=["1x1024", "16x1024", "64x1024", "64x8192"])
    parser.add_argument("--prompts", nargs="*", default=["1x4096", "16x1024"])
    parser.add_argument("--kv-bits", type=int, choices=(8,), help="of our keys and values")
    args = parser.parse_args()
    cases, prompts = ([Case.read(text) for text in texts] for texts in (args.rows_and_context, args.prompts))
    mine = ours(args.folder, cases, prompts, args.kv_bits)
    theirs = peers(mlx_vlm_model(args.folder, args.peer).language_model, cases, prompts) if args.peer else {}
    table = []
    for what, value in mine.items():
        row: dict[str, Any] = {"what": what, "ours": value}
        if what in theirs:
            ratio = value / theirs[what] if what.startswith("prompts") else theirs[what] / value
            row |= {"mlx-vlm": theirs[what], "times as fast": ratio}
        table.append(row)
    report("full size: ms a step, prompt tokens/s", table, folder=args.folder.name)


if __name__ == "__main__":
    main()
