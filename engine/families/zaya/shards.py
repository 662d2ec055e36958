"""What a conversion writes, and into which file: decided from names and shapes alone, so that it can be decided again.

Attention and experts are quantised as asked, embeddings and head to 8 bits; everything else stays float: router,
convolutions, temperatures, norms, residual scales, balancing biases, vision-LoRA, vision tower. They are few bytes,
and routing hangs on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from engine.errors import ModelError, RequestError
from engine.families.zaya.tensors import FLOAT32
from engine.files.checkpoint import read_header
from engine.mlx.quantised import GROUP_SIZES, Scheme

DTYPES = {"bf16": mx.bfloat16, "f16": mx.float16, "f32": mx.float32}
EMBEDDINGS = ("model.embed_tokens", "lm_head")
QUANTISED = re.compile(r"\.self_attn\.(qkv|o_proj)$|\.switch_mlp\.(gate_up_proj|down_proj)$")

_EMBEDDING_BITS, _EMBEDDING_GROUP = 8, 64
_SHARD_BYTES = 1 << 30
"""The size of a shard, unless one matrix alone has more: a shard is what is in memory, and what a crash can cost."""
_CODE_BYTES, _SHARED_EXPONENT_BYTES = 4, 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked for: the code of attention and experts, and the type of the other large tensors and of all
    scales (`bf16`, `f16`, `f32`; None: as stored)."""

    scheme: Scheme
    dtype: str | None = None

    def check(self) -> None:
        """Raise RequestError if there is no such code or type."""
        self.scheme.check()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise RequestError(f"type {self.dtype!r} is none of {', '.join(DTYPES)}")

    def dtype_of(self, name: str, stored: mx.Dtype) -> mx.Dtype:
        """Type of a float parameter in the result, and of the scales if it is quantised."""
        return stored if self.dtype is None or FLOAT32.search(name) else DTYPES[self.dtype]

    def scheme_of(self, path: str, shape: tuple[int, ...]) -> Scheme | None:
        """The code of a module's matrix; None: it stays float."""
        if not is_quantisable(path):
            return None
        wanted = self.scheme
        if path in EMBEDDINGS:
            wanted = Scheme(_EMBEDDING_BITS, min(wanted.group_size, _EMBEDDING_GROUP))
        sizes = [size for size in GROUP_SIZES[wanted.mode] if size <= wanted.group_size and shape[-1] % size == 0]
        return Scheme(wanted.bits, max(sizes), wanted.mode) if sizes else None


def is_quantisable(path: str) -> bool:
    """Whether a module may be quantised at all."""
    return path in EMBEDDINGS or QUANTISED.search(path) is not None


@dataclass(frozen=True, slots=True)
class Item:
    """A parameter of the result. name: that of the float it is made of; shapes: of what is written of it."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    nbytes: int
    scheme: Scheme | None

    @property
    def path(self) -> str:
        """Of its module, where it is a matrix."""
        return self.name.removesuffix(".weight")


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the result."""

    name: str
    items: tuple[Item, ...]

    @property
    def nbytes(self) -> int:
        return sum(item.nbytes for item in self.items)

    def is_whole(self, folder: Path) -> bool:
        """Whether the file is there with all its tensors."""
        expected = {name: shape for item in self.items for name, shape in item.shapes.items()}
        try:
            return expected == {name: info.shape for name, info in read_header(folder / self.name).items()}
        except ModelError:  # not there, or cut off
            return False


def plan(weights: Mapping[str, mx.array], settings: Settings) -> list[Shard]:
    """The files of the result, from all parameters as floats. Raises ModelError if none of them can be quantised."""
    groups: list[list[Item]] = [[]]
    held = 0
    for item in _items(weights, settings):
        if groups[-1] and held + item.nbytes > _SHARD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(item)
        held += item.nbytes
    if not any(item.scheme for group in groups for item in group):
        raise ModelError("nothing in this model can be quantised: no matrix has a width that a group size divides")
    return [Shard(name, tuple(group)) for name, group in zip(_names(len(groups)), groups, strict=True)]


def _items(weights: Mapping[str, mx.array], settings: Settings) -> Iterator[Item]:
    for name in sorted(weights, key=_by_layer):
        x = weights[name]
        shape, path = tuple(x.shape), name.removesuffix(".weight")
        width = settings.dtype_of(name, x.dtype).size
        scheme = settings.scheme_of(path, shape)
        if scheme is None:
            yield Item(name, {name: shape}, math.prod(shape) * width, None)
            continue
        parts = scheme.shapes(shape)
        sizes = {"weight": _CODE_BYTES, "scales": width if scheme.has_biases else _SHARED_EXPONENT_BYTES}
        nbytes = sum(math.prod(part) * sizes.get(kind, width) for kind, part in parts.items())
        yield Item(name, {f"{path}.{kind}": part for kind, part in parts.items()}, nbytes, scheme)


def _by_layer(name: str) -> tuple[int, str]:
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1), name


def _names(count: int) -> Iterable[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
