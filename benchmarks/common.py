"""What the benchmarks share: an engine that is driven with token ids, and a table with one JSON line last."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from engine.api import Completion, Engine, GenerationRequest, Message, ModelInfo, SamplingParams, Tool
from engine.backend import blas_info, on_cpu
from engine.families.zaya.family import FAMILY
from engine.files.folder import ModelFolder
from engine.loader import NANO
from engine.mlx.engine import LoadedModel, MLXEngine
from engine.mlx.tokenizer import ChatTokenizer

__all__ = [
    "NANO",
    "complete",
    "engine_on",
    "machine",
    "median",
    "mlx_vlm_model",
    "prompt_of",
    "report",
    "request",
    "resident_mb",
]


class IdTokenizer(ChatTokenizer):
    """Messages are lists of token ids in words; nothing ends a completion but its budget."""

    def __init__(self) -> None:
        self.end_ids = frozenset()
        self.think_open = self.think_close = ()

    def prompt_ids(
        self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        return [int(word) for word in messages[0].text.split()]

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        return "".join(f" {i}" for i in token_ids)


def engine_on(folder: Path, *, kv_bits: int | None = None, **options: Any) -> MLXEngine:
    """An engine on a ZAYA1 checkpoint, without its tokenizer; keys and values in `kv_bits`."""

    def load_model() -> LoadedModel:
        model = FAMILY.load(ModelFolder(folder), kv_bits=kv_bits)
        return LoadedModel(model, IdTokenizer(), ModelInfo(name=folder.name, thinks=False))

    return MLXEngine(load_model, **options)


def mlx_vlm_model(folder: Path, site: Path) -> Any:
    """A ZAYA1-VL checkpoint in mlx-vlm's model, by its own loading; `site` is a folder with mlx_vlm in it, of which
    nothing is imported that the model does not need."""
    import mlx.core as mx

    package = types.ModuleType("mlx_vlm")
    package.__path__ = [str(site / "mlx_vlm")]
    sys.modules["mlx_vlm"] = package
    sys.path.append(str(site))
    from mlx_vlm.models import zaya1_vl  # type: ignore[import-not-found]

    config = zaya1_vl.ModelConfig.from_dict(json.loads((folder / "config.json").read_text()))
    config.text_config = zaya1_vl.TextConfig.from_dict(config.text_config)
    config.vision_config = zaya1_vl.VisionConfig.from_dict(config.vision_config)
    model = zaya1_vl.Model(config)
    weights: dict[str, Any] = {}
    for shard in sorted(folder.glob("model*.safetensors")):
        weights |= mx.load(str(shard))
    for part in (model, model.language_model, model.vision_tower):
        weights = part.sanitize(weights) if hasattr(part, "sanitize") else weights
    if on_cpu():  # MLX gathers products of float32 alone there; ours is float32 there, too
        weights = {name: weight.astype(mx.float32) for name, weight in weights.items()}
    model.load_weights(list(weights.items()))
    mx.eval(model.parameters())
    return model


def prompt_of(tokens: int, first: int = 7) -> list[int]:
    """A prompt of so many tokens, all within any model's vocabulary; `first` makes prompts differ."""
    return [first, *(6 + (i * i + 3 * i) % 80 for i in range(tokens - 1))]


def request(name: str, prompt: list[int], new_tokens: int, *, seed: int = 0) -> GenerationRequest:
    """A request for exactly `new_tokens` tokens, drawn at temperature 1."""
    text = " ".join(map(str, prompt))
    sampling = SamplingParams(seed=seed, max_tokens=new_tokens)
    return GenerationRequest(id=name, messages=(Message(role="user", text=text),), sampling=sampling)


def complete(engine: Engine, requests: list[GenerationRequest]) -> list[Completion]:
    """Run requests to their end, in the order of their ends."""

    async def run() -> list[Completion]:
        async with engine.generate(requests) as stream:
            return [event async for event in stream if isinstance(event, Completion)]

    return anyio.run(run)


def machine() -> dict[str, Any]:
    """Where a figure was taken."""
    import mlx.core as mx

    device = f"CPU, {blas_info().name}" if on_cpu() else str(mx.device_info().get("device_name", "GPU"))
    return {"machine": platform.machine(), "system": platform.system(), "device": device, "mlx": mx.__version__}


def report(title: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print a table of rows and, as the last line, everything as JSON."""
    print(f"\n{title}")
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(json.dumps({"benchmark": title, "rows": rows, **facts, **machine()}))


def resident_mb() -> float:
    """Memory of the process; nan where there is no /proc."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return float("nan")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _cell(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
