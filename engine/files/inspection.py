"""What a model folder holds and lacks, told from its small files and the headers of its weights; nothing large is read.

It is for folders that are not whole, too: half downloaded, half converted, or with tensors that do not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.backend import load_mlx
from engine.errors import EngineError, ModelError
from engine.files.checkpoint import (
    CONFIG,
    RECORD,
    TOKENIZER_FILES,
    TensorInfo,
    add_header,
    find_files,
    listed,
    read_json,
)

LAYOUTS = {
    "vl": "hub checkpoint, ZAYA1-VL",
    "native": "hub checkpoint, ZAYA1 as transformers names it",
    "legacy": "hub checkpoint, ZAYA1 as first released",
    "jang": "community 4-bit bundle (JANG)",
    "ours": "converted by rsa or mlx-lm, ZAYA1",
    "mlx-lm": "converted by mlx-lm",
    "hub": "hub checkpoint of another model",
}
"""The names of the layouts, for people."""

_SMALL_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "generation_config.json",
)
_WORD_BITS = 32
_KINDS = (
    ("vision tower", r"(^|\.)(vision_tower|visual|vision_model)\."),
    ("vision-LoRA", r"\.lora_|_lora\."),
    ("router", r"\.router\.|\.mlp\.gate\."),
    ("experts", r"\.experts\.|\.switch_mlp\."),
    ("embeddings", r"(^|\.)(embed_tokens|lm_head|wte)\."),
    ("other", r"norm|\.conv|\.temp$|_scale$|_bias$|residual_scale|res_scale"),
    ("attention", r"\.(self_attn|attn|attention)\."),
    ("feed-forward", r"\.(mlp|feed_forward|ffn)\."),
)
_THINK_TAGS = ((b'"<think>"', b'"</think>"'), (b'"<|think:start|>"', b'"<|think:end|>"'))
_KIND_ORDER = ("embeddings", "attention", "experts", "feed-forward", "router", "vision-LoRA", "vision tower", "other")


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors of one kind in one code (`BF16`, `4-bit affine, groups of 32`). Scales and biases count as bytes only."""

    kind: str
    code: str
    parameters: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What is known of a model folder; None: its files do not tell.

    layout     a key of `LAYOUTS`.
    problems   what keeps it from being loaded, one sentence each; none: it should load.
    """

    path: str
    layout: str | None
    model_type: str | None
    layers: int | None
    experts: int | None
    hidden_size: int | None
    vocabulary: int | None
    context_tokens: int | None
    sees: bool | None
    thinks: bool | None
    parameters: int
    nbytes: int
    files: int
    parts: tuple[Part, ...]
    problems: tuple[str, ...]


def inspect_model(folder: Path) -> ModelReport:
    """Look at a folder. Raises ModelError if it is none, and BackendError for a ZAYA1 model without a working MLX."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; a model is a folder with config.json and *.safetensors")
    problems: list[str] = []
    config = _config(folder, problems)
    files, tensors = _weights(folder, problems)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        problems.append(f"no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there")
    problems += _unreadable(folder)
    zaya = str(config.get("model_type", "")).startswith("zaya")
    if zaya:
        load_mlx()
    layout = _layout(config, tensors, zaya)
    if zaya:
        problems += _misfits(folder, config, files)
    text = config.get("text_config")
    sizes = {**(text if isinstance(text, dict) else {}), **config}
    parts = _parts(config, tensors)
    return ModelReport(
        path=str(folder),
        layout=layout,
        model_type=_word(config.get("model_type")),
        layers=_layers(config, sizes),
        experts=_number(sizes, "num_experts", "num_local_experts", "n_routed_experts"),
        hidden_size=_number(sizes, "hidden_size"),
        vocabulary=_number(sizes, "vocab_size"),
        context_tokens=_number(sizes, "max_position_embeddings"),
        sees=isinstance(config.get("vision_config"), dict) if config else None,
        thinks=_thinks(folder),
        parameters=sum(part.parameters for part in parts),
        nbytes=sum(file.stat().st_size for file in files),
        files=len(files),
        parts=parts,
        problems=tuple(problems),
    )


def _config(folder: Path, problems: list[str]) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        unfinished = (folder / RECORD).is_file()
        problems.append(
            "an unfinished conversion: the same `rsa convert` goes on with it" if unfinished else f"no {CONFIG}"
        )
        return {}
    try:
        return read_json(folder / CONFIG)
    except ModelError as error:
        problems.append(str(error))
        return {}


def _weights(folder: Path, problems: list[str]) -> tuple[list[Path], dict[str, TensorInfo]]:
    """The weight files that can be read, and their tensors."""
    try:
        files, absent = find_files(folder)
    except ModelError as error:
        problems.append(str(error))
        return [], {}
    if absent:
        problems.append(f"{len(absent)} of {len(files) + len(absent)} weight files are not there: {listed(absent)}")
    elif not files:
        problems.append("no weights: no model*.safetensors is there")
    readable: list[Path] = []
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        try:
            add_header(tensors, file)
            readable.append(file)
        except ModelError as error:
            problems.append(str(error))
    return readable, tensors


def _unreadable(folder: Path) -> list[str]:
    """What is wrong with the small files that loading reads, as far as it can be told without a tokenizer."""
    there = [folder / name for name in _SMALL_FILES if (folder / name).is_file()]
    return [problem for file in there for problem in _complaints(read_json, file)]


def _complaints(look: Callable[..., object], *arguments: object) -> list[str]:
    """What a function complains of, if it does."""
    try:
        look(*arguments)
    except EngineError as error:
        return [str(error)]
    return []


def _layout(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], zaya: bool) -> str | None:
    if not zaya:
        return None if not config else "mlx-lm" if isinstance(config.get("quantization"), dict) else "hub"
    from engine.families.zaya.jang import is_bundle
    from engine.families.zaya.tensors import detect_naming

    if is_bundle(config):
        return "jang"
    try:
        return detect_naming(tensors)
    except ModelError:
        return None


def _misfits(folder: Path, config: dict[str, Any], files: list[Path]) -> list[str]:
    """What loading would say of the configuration, the image processor's settings and the tensors, of which no more
    than the shapes are looked at."""
    from engine.families.zaya.config import ModelArgs
    from engine.families.zaya.weights import build, load_lazily, read_checkpoint
    from engine.vision.preprocess import ImageProcessor

    try:
        args = ModelArgs.from_dict(config)
    except EngineError as error:
        return [str(error)]

    def fit() -> None:
        build(args, read_checkpoint(folder, config, args, load_lazily(files), None), None, keep_quantised=True)

    problems = [] if args.vision is None else _complaints(ImageProcessor.from_folder, folder, args.vision)
    return problems + (_complaints(fit) if files else [])


def _parts(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> tuple[Part, ...]:
    sums: dict[tuple[str, str], list[int]] = {}
    for name, info in tensors.items():
        stem, _, last = name.rpartition(".")
        scales = tensors.get(f"{stem}.scales")
        code, parameters = info.dtype, info.size
        if scales is not None and last in ("weight", "scales", "biases"):
            code, parameters = _code(config, stem, tensors.get(f"{stem}.weight", info), scales)
            parameters = parameters if last == "weight" else 0
        total = sums.setdefault((_kind(name), code), [0, 0])
        total[0] += parameters
        total[1] += info.nbytes
    ordered = sorted(sums.items(), key=lambda item: (_KIND_ORDER.index(item[0][0]), -item[1][1]))
    return tuple(Part(kind, code, parameters, nbytes) for (kind, code), (parameters, nbytes) in ordered)


def _code(config: Mapping[str, Any], path: str, weight: TensorInfo, scales: TensorInfo) -> tuple[str, int]:
    """How a matrix is quantised, and the numbers in it."""
    table = config.get("quantization")
    table = table if isinstance(table, dict) else {}
    entry = table.get(path)
    table = {**table, **entry} if isinstance(entry, dict) else table
    group = table.get("group_size")
    if not isinstance(group, int) or not scales.shape or not scales.shape[-1] * group:
        return "quantised", 0
    width = scales.shape[-1] * group
    bits = weight.shape[-1] * _WORD_BITS // width
    return f"{bits}-bit {table.get('mode', 'affine')}, groups of {group}", math.prod(weight.shape[:-1]) * width


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name)), "other")


def _thinks(folder: Path) -> bool | None:
    """Whether the tokenizer has think tags."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    text = file.read_bytes()
    return any(opening in text and closing in text for opening, closing in _THINK_TAGS)


def _layers(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> int | None:
    count = _number(sizes, "num_hidden_layers")
    # ZAYA1's first release counts attention and experts apart.
    return count // 2 if count and config.get("model_type") == "zaya" and "cca_num_q_heads" in config else count


def _number(sizes: Mapping[str, Any], *names: str) -> int | None:
    found = next((sizes[name] for name in names if name in sizes), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None
