"""What the host does for each token: microseconds of Python, with a model that takes next to no time to compute.

    python benchmarks/host.py [--rows 16 64 128 256] [--tokens 400]

The model draws its next token from a table of its last one. `engine`: streams are read to their end and nothing is
made of what comes. `rsa`: the same rows as candidates of runs of 16, as `MarkovianRSA` plays them. A GPU whose steps
take less than `rows` times this waits for the host. The last line is JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import anyio
import mlx.core as mx
from common import NANO, complete, report, request

from engine.api import ModelInfo
from engine.loader import load_tokenizer
from engine.mlx.engine import LoadedModel, MLXEngine
from engine.mlx.model import StepWeights
from rsa import MarkovianRSA

N = 16


class NoCache:
    """Remembers nothing of any number of rows."""

    nbytes = 0
    state = ()

    def extend(self, other: Any) -> None: ...

    def filter(self, batch_indices: Sequence[int]) -> None: ...


class Table:
    """A model that looks at its last token alone."""

    max_rows = None
    notes = ()
    takes_padding = False
    ragged = True
    weight_bytes = 1
    step_weights = StepWeights(always=1)

    def __init__(self, vocab_size: int, never: Sequence[int]) -> None:
        self.vocab_size = vocab_size
        logits = mx.random.normal((vocab_size, vocab_size), key=mx.random.key(1))
        logits[:, list(never)] = -mx.inf
        self._logits = logits

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        return self._logits[inputs]

    def make_cache(self, rows: int = 1) -> list[NoCache]:
        return [NoCache()]

    def copy_cache(self, caches: Sequence[Any]) -> list[NoCache]:
        return [NoCache()]

    def batch_cache(self, caches: Sequence[Any], places: Sequence[int]) -> list[NoCache]:
        return [NoCache()]

    def cache_bytes(self, tokens: int) -> int:
        return tokens


def engine_of_nothing(rows: int) -> MLXEngine:
    def load() -> LoadedModel:
        tokenizer = load_tokenizer(NANO)
        vocab = 320
        plain = [token for token in range(vocab) if tokenizer.decode_exactly([token]).isascii()]
        never = {*range(vocab), *tokenizer.end_ids} - {*plain} | {*tokenizer.end_ids, *tokenizer.think_close}
        return LoadedModel(Table(vocab, sorted(never)), tokenizer, ModelInfo(name="table", context_tokens=1 << 20))

    return MLXEngine(load, max_rows=rows, kv_bytes=1 << 40)


def of_the_engine(rows: int, tokens: int) -> float:
    """Three times as many requests as rows, of lengths from half to one and a half of `tokens`: rows come and go."""
    engine = engine_of_nothing(rows)
    lengths = [tokens // 2 + tokens * ((37 * i) % 101) // 101 for i in range(3 * rows)]
    requests = [request(str(i), [7, 8, 9], length, seed=i) for i, length in enumerate(lengths)]
    complete(engine, requests[:rows])
    began = time.process_time()
    complete(engine, requests)
    took_s = time.process_time() - began
    engine.close()
    return took_s / sum(lengths) * 1e6


def of_rsa(rows: int, tokens: int) -> float:
    engine = engine_of_nothing(rows)
    rsa = MarkovianRSA(engine, n=N, t=0, beta=tokens, tau=16, answer_budget=1, force_answer=False)

    async def runs() -> None:
        async with anyio.create_task_group() as group:
            for number in range(rows // N):
                group.start_soon(partial(rsa.solve, f"Problem {number}", seed=number))

    for _ in range(2):
        began = time.process_time()
        anyio.run(runs)
    engine.close()
    return (time.process_time() - began) / rows / tokens * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--tokens", type=int, default=400)
    args = parser.parse_args()
    rows = []
    for count in args.rows:
        rows.append(
            {"rows": count, "engine us": of_the_engine(count, args.tokens), "rsa us": of_rsa(count, args.tokens)}
        )
    report("host", rows, tokens=args.tokens)


if __name__ == "__main__":
    main()
