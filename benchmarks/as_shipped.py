"""The engine on a CPU against mlx-lm's BatchGenerator as people have it, without the BLAS that the engine brings.

    python benchmarks/as_shipped.py [--model nano llama FOLDER ...] [--rows 16] [--prompt 64] [--tokens 64] [--rounds 5]

`llama` is a model of 100 million random parameters in that architecture, which is written and removed again. The peer
has a process of its own (benchmarks/peers/mlx_lm_batch.py), idle while the engine runs. They take turns, and each pair
gives a ratio: their median counts, since load comes and goes. Everyone draws at temperature 1; the whole call is timed,
prompts included: each row has its own, of a few tokens more or less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import NANO, IdTokenizer, complete, median, prompt_of, report, request

from engine.api import ModelInfo
from engine.families import family_of
from engine.files.folder import ModelFolder
from engine.mlx.engine import LoadedModel, MLXEngine

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2048,
    "num_attention_heads": 12, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "vocab_size": 32000,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip
"""The configuration of a model of 100 million parameters."""

Run = Callable[[list[list[int]], int], float]


def write_llama(folder: Path) -> int:
    """Random weights in float32, in which CPUs compute; returns how many."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.models.llama import Model, ModelArgs

    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(LLAMA))
    weights = tree_map(lambda x: 0.02 * mx.random.normal(x.shape) + (x.ndim == 1), model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(weights)), metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return sum(x.size for _, x in tree_flatten(weights))


@contextmanager
def ours(folder: Path) -> Iterator[Run]:
    files = ModelFolder(folder)
    engine = MLXEngine(
        lambda: LoadedModel(family_of(files).load(files), IdTokenizer(), ModelInfo(name=folder.name, thinks=False))
    )

    def run(prompts: list[list[int]], new: int) -> float:
        started = time.perf_counter()
        done = complete(engine, [request(str(i), prompt, new, seed=i) for i, prompt in enumerate(prompts)])
        seconds = time.perf_counter() - started
        assert all(completion.usage.completion_tokens == new for completion in done)
        return seconds

    yield run
    engine.close()


@contextmanager
def peer(folder: Path) -> Iterator[Run]:
    program = Path(__file__).parent / "peers" / "mlx_lm_batch.py"
    with subprocess.Popen(
        [sys.executable, str(program), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        told, says = process.stdin, process.stdout
        assert told is not None
        assert says is not None
        says.readline()  # it has loaded the model

        def run(prompts: list[list[int]], new: int) -> float:
            told.write(json.dumps({"prompts": prompts, "new_tokens": new}) + "\n")
            told.flush()
            return float(json.loads(says.readline())["seconds"])

        yield run
        told.close()


def race(name: str, folder: Path, rows: int, prompt: int, new: int, rounds: int) -> dict[str, Any]:
    prompts = [prompt_of(prompt - i % 8, first=7 + i) for i in range(rows)]
    with ours(folder) as mine, peer(folder) as theirs:
        turns = [(mine(prompts, new), theirs(prompts, new)) for _ in range(rounds + 1)][1:]  # the first warms up
    ratios = sorted(other / own for own, other in turns)
    return {
        "model": name, "B": rows, "prompt": prompt, "new": new,
        "ours tok/s": rows * new / median([own for own, _ in turns]),
        "mlx-lm tok/s": rows * new / median([other for _, other in turns]),
        "times": median(ratios), "least": ratios[0], "most": ratios[-1],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["nano", "llama"])
    parser.add_argument("--rows", type=int, nargs="+", default=[16])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = []
    for name in args.model:
        with tempfile.TemporaryDirectory() as made:
            folder = NANO if name == "nano" else Path(made if name == "llama" else name)
            if name == "llama":
                print(f"llama: {write_llama(folder):,} parameters", file=sys.stderr)
            for rows in args.rows:
                table.append(race(name, folder, rows, args.prompt, args.tokens, args.rounds))
                print(table[-1], file=sys.stderr, flush=True)
    report("as shipped", table)


if __name__ == "__main__":
    main()
