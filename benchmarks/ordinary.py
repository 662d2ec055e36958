"""An ordinary model of mlx-lm on the engine, against mlx-lm's BatchGenerator on the same weights, in one run.

    python benchmarks/ordinary.py [--size qwen|tiny] [--prompts 128] [--prompt 900] [--tokens 80] [--rows 16 64 128]

The shape of Qwen2.5-0.5B with random weights in bfloat16 (`tiny` is for trying it out). First all prompts, no two the
same, drawn at temperature 0.7: seconds in all. Then a step of decoding, with so many rows of equal age: the median, and
where our thread spends it, in ms: building the step's graph, handing it to the device, waiting for the tokens of the
step before, telling them to their rows, and between two steps. If it hardly waits, the device waits for it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from common import IdTokenizer, complete, median, prompt_of, report
from mlx import core as mx
from mlx.utils import tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models import qwen2
from mlx_lm.sample_utils import make_sampler

from engine.api import GenerationRequest, Message, ModelInfo, SamplingParams
from engine.families.mlx_lm.batching import adapted
from engine.mlx.batch import DecodeBatch
from engine.mlx.engine import LoadedModel, MLXEngine
from engine.mlx.row import Row

SIZES = {
    "qwen": qwen2.ModelArgs(
        model_type="qwen2", hidden_size=896, num_hidden_layers=24, intermediate_size=4864, num_attention_heads=14,
        num_key_value_heads=2, rms_norm_eps=1e-6, vocab_size=151936, rope_theta=1e6, tie_word_embeddings=True,
    ),
    "tiny": qwen2.ModelArgs(
        model_type="qwen2", hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-6, vocab_size=512, tie_word_embeddings=True,
    ),
}  # fmt: skip
TEMPERATURE = 0.7


def random_model(size: str) -> qwen2.Model:
    mx.random.seed(0)
    model = qwen2.Model(SIZES[size])
    model.update(tree_map(lambda x: (0.02 * mx.random.normal(x.shape)).astype(mx.bfloat16), model.parameters()))
    mx.eval(model.parameters())
    return model


def requests(prompts: list[list[int]], tokens: int) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            id=str(i),
            messages=(Message(role="user", text=" ".join(map(str, prompt))),),
            sampling=SamplingParams(seed=i, max_tokens=tokens, temperature=TEMPERATURE),
        )
        for i, prompt in enumerate(prompts)
    ]


@contextmanager
def timed(owner: Any, name: str, seconds: list[float], counts: Callable[[Any], bool]) -> Iterator[None]:
    """Note how long each call of a method takes, where its owner says that it counts."""
    original = getattr(owner, name)

    def call(self: Any, *arguments: Any) -> Any:
        counted, started = counts(self), time.perf_counter()
        result = original(self, *arguments)
        if counted:
            seconds.append(time.perf_counter() - started)
        return result

    setattr(owner, name, call)
    yield
    setattr(owner, name, original)


class Watch:
    """Notes when the parts of a step of the engine's begin, while it is open."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._marks: list[float] = []
        self._ended = 0.0
        self.parts: dict[str, list[float]] = {name: [] for name in ("build", "hand", "wait", "tell", "between")}

    def __enter__(self) -> Watch:
        self._originals = DecodeBatch.step, mx.async_eval, Row.accept
        DecodeBatch.step, mx.async_eval, Row.accept = self._step(), self._hand(), self._accept()
        return self

    def __exit__(self, *_: object) -> None:
        DecodeBatch.step, mx.async_eval, Row.accept = self._originals

    def medians(self) -> dict[str, float]:
        return {name: 1000 * median(seconds) for name, seconds in self.parts.items() if seconds}

    def _step(self) -> Callable[[DecodeBatch], Any]:
        def step(batch: DecodeBatch) -> Any:
            full = len(batch.rows) == self._rows
            self._marks = [time.perf_counter()]
            result = self._originals[0](batch)
            ended = time.perf_counter()
            if full and len(self._marks) == 4:
                ends = [*self._marks[1:], ended]
                for name, start, end in zip(self.parts, self._marks, ends, strict=False):
                    self.parts[name].append(end - start)
                self.parts["between"].append(self._marks[0] - self._ended)
            self._ended = ended
            return result

        return step

    def _hand(self) -> Callable[..., None]:
        def hand(*arrays: Any) -> None:
            started = time.perf_counter()
            self._originals[1](*arrays)
            if len(self._marks) == 1:
                self._marks += [started, time.perf_counter()]

        return hand

    def _accept(self) -> Callable[..., None]:
        def accept(row: Row, token: int, **more: Any) -> None:
            if len(self._marks) == 3:
                self._marks.append(time.perf_counter())
            self._originals[2](row, token, **more)

        return accept


def ours(engine: MLXEngine, prompts: list[list[int]], tokens: int) -> tuple[float, float, dict[str, float]]:
    """Seconds in all, of the median step with all rows, and of its parts."""
    steps: list[float] = []
    watch = Watch(len(prompts))
    with watch, timed(DecodeBatch, "step", steps, lambda batch: len(batch.rows) == len(prompts)):
        started = time.perf_counter()
        done = complete(engine, requests(prompts, tokens))
        seconds = time.perf_counter() - started
    assert all(c.usage.completion_tokens == tokens for c in done)
    return seconds, median(steps) if steps else float("nan"), watch.medians()


def theirs(model: qwen2.Model, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
    generator = BatchGenerator(
        model, max_tokens=tokens, sampler=make_sampler(temp=TEMPERATURE), completion_batch_size=len(prompts)
    )
    generator.insert(prompts, [tokens] * len(prompts))
    steps: list[float] = []
    made, started = 0, time.perf_counter()
    while made < len(prompts) * tokens:
        before = time.perf_counter()
        new = len(generator.next_generated())
        if new == len(prompts):
            steps.append(time.perf_counter() - before)
        made += new
    seconds = time.perf_counter() - started
    generator.close()
    return seconds, median(steps) if steps else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="qwen")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=900)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64, 128])
    args = parser.parse_args()
    engine = MLXEngine(
        lambda: LoadedModel(adapted(random_model(args.size), "qwen2"), IdTokenizer(), ModelInfo(name="qwen2")),
        max_rows=max(args.prompts, *args.rows),
    )
    model = random_model(args.size)
    table = []
    for rows, length in [(args.prompts, args.prompt), *((rows, args.prompt) for rows in args.rows)]:
        prompts = [prompt_of(length - i % 32, first=7 + i) for i in range(rows)]
        for _ in range(2):  # the first warms up
            mine, peers = ours(engine, prompts, args.tokens), theirs(model, prompts, args.tokens)
        table.append(
            {
                "prompts": rows, "tokens": length, "new": args.tokens, "ours s": mine[0], "mlx-lm s": peers[0],
                "mlx-lm/ours": peers[0] / mine[0], "ours ms/step": 1000 * mine[1], "mlx-lm ms/step": 1000 * peers[1],
                **mine[2],
            }
        )  # fmt: skip
        print(table[-1], flush=True)
    engine.close()
    report("an ordinary model", table, size=args.size)


if __name__ == "__main__":
    main()
