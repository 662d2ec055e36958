"""What a model folder holds and lacks, told from its small files and the headers of its weights; nothing large is read.

It is for folders that are not whole, too: half downloaded, half converted, or with tensors that do not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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
from engine.files.folder import ModelFolder

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

    layout     the name of a `Layout`; layout_title: its title.
    problems   what keeps it from being loaded, one sentence each; none: it should load.
    """

    path: str
    layout: str | None
    layout_title: str | None
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


class Layout(NamedTuple):
    """Where the files of a model come from: a name for programs, and a few words for people."""

    name: str
    title: str


class Describer(Protocol):
    """What a family knows of its models' files: see `engine.families.family.Family`."""

    def layers(self, folder: ModelFolder) -> int | None: ...
    def layout(self, folder: ModelFolder, tensors: Mapping[str, TensorInfo]) -> Layout | None: ...
    def problems(self, folder: ModelFolder, files: list[Path]) -> list[str]: ...


def describe(folder: ModelFolder, family: Describer) -> ModelReport:
    """Look at a folder, whose model is of that family. Raises ModelError if it is none."""
    path = folder.path
    if not path.is_dir():
        raise ModelError(f"{path} is not a folder; a model is a folder with config.json and *.safetensors")
    problems: list[str] = []
    config = _config(folder, problems)
    files, tensors = _weights(path, problems)
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        problems.append(f"no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there")
    problems += _unreadable(path)
    if config:
        problems += family.problems(folder, files)
    text = config.get("text_config")
    sizes = {**(text if isinstance(text, dict) else {}), **config}
    parts = _parts(config, tensors)
    layout = family.layout(folder, tensors) if config else None
    return ModelReport(
        path=str(path),
        layout=layout and layout.name,
        layout_title=layout and layout.title,
        model_type=_word(config.get("model_type")),
        layers=family.layers(folder) if config else None,
        experts=_number(sizes, "num_experts", "num_local_experts", "n_routed_experts"),
        hidden_size=_number(sizes, "hidden_size"),
        vocabulary=_number(sizes, "vocab_size"),
        context_tokens=_number(sizes, "max_position_embeddings"),
        sees=isinstance(config.get("vision_config"), dict) if config else None,
        thinks=_thinks(path),
        parameters=sum(part.parameters for part in parts),
        nbytes=sum(file.stat().st_size for file in files),
        files=len(files),
        parts=parts,
        problems=tuple(problems),
    )


def _config(folder: ModelFolder, problems: list[str]) -> dict[str, Any]:
    if not (folder.path / CONFIG).is_file():
        unfinished = (folder.path / RECORD).is_file()
        problems.append(
            "an unfinished conversion: the same `rsa convert` goes on with it" if unfinished else f"no {CONFIG}"
        )
        return {}
    try:
        return folder.config
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


def _number(sizes: Mapping[str, Any], *names: str) -> int | None:
    found = next((sizes[name] for name in names if name in sizes), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None
