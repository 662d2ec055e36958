"""Quantised matrices: what they are made of, joined row by row, put into a model, held against their originals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from engine.errors import CheckpointError, ModelError, RequestError
from engine.files.checkpoint import listed

GROUP_SIZES = {"affine": (32, 64, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}
BITS = {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}
_WORD_BITS = 32  # codes are packed into words

# Half a unit in the last place of 1: how far a rounded scale or bias may be off, relative to itself.
_ROUNDING = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}
_LEAST_ROUNDING = {mx.float16: 2.0**-25}
"""How far a scale or bias may be off at least: float16 has no finer numbers than 2^-24, and small matrices have scales
of that size. The other types reach further down than any matrix."""
_MXFP4_STEPS = 2.5
"""The largest deviation of MXFP4 in units of a group's scale 2^e. That is the group's largest number over 6, rounded to
a power of two: the number may be up to 6 sqrt(2) 2^e, and the largest code is 6."""
_SLACK = 1.01  # kernels differ in the last place
_CHUNK_NUMBERS = 1 << 22
"""Numbers compared at a time: 16 MB in float32."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a matrix is quantised: bits of a number, numbers that share a scale, and MLX's name for the code."""

    bits: int
    group_size: int
    mode: str = "affine"

    def check(self) -> Scheme:
        """Itself; raises RequestError if MLX has no such code."""
        if self.mode not in BITS:
            raise RequestError(f"quantisation mode {self.mode!r} is none of {', '.join(BITS)}")
        if self.bits not in BITS[self.mode] or self.group_size not in GROUP_SIZES[self.mode]:
            raise RequestError(
                f"no {self.mode} quantisation has {self.bits} bits in groups of {self.group_size}: there are "
                f"{_alternatives(BITS[self.mode])} bits and groups of {_alternatives(GROUP_SIZES[self.mode])}"
            )
        return self

    @property
    def has_biases(self) -> bool:
        return self.mode == "affine"

    def as_config(self) -> dict[str, Any]:
        """The entry of `quantization` in mlx-lm's `config.json`."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the parts of a matrix [..., out, in]."""
        *rows, width = shape
        parts = {"weight": (*rows, width * self.bits // _WORD_BITS), "scales": (*rows, width // self.group_size)}
        return {**parts, "biases": parts["scales"]} if self.has_biases else parts

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.mode}, groups of {self.group_size}"


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """A quantised matrix [..., out, in]; weight [..., out, in * bits / 32] packed, scales and biases
    [..., out, in / group_size]. Biases are None except in affine codes."""

    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    scheme: Scheme

    @classmethod
    def of(cls, matrix: mx.array, scheme: Scheme) -> Quantised:
        """Quantise [..., out, in]; scales and biases get the matrix's type."""
        weight, scales, *biases = mx.quantize(matrix, scheme.group_size, scheme.bits, mode=scheme.mode)
        return cls(weight, scales, biases[0] if biases else None, scheme)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.scales.shape[:-1], self.scales.shape[-1] * self.scheme.group_size)

    def dequantised(self, dtype: mx.Dtype | None = None) -> mx.array:
        """[..., out, in] in a type (None: that of the scales), computed in it."""
        own = self if dtype is None else self.cast(dtype)
        scheme = self.scheme
        return mx.dequantize(
            own.weight, own.scales, own.biases, scheme.group_size, scheme.bits, scheme.mode, dtype=dtype
        )

    def cast(self, dtype: mx.Dtype) -> Quantised:
        """The same with scales and biases of another type; codes whose scales are no floats stay as they are."""
        if self.biases is None:
            return self
        return Quantised(self.weight, self.scales.astype(dtype), self.biases.astype(dtype), self.scheme)

    def tensors(self, path: str) -> dict[str, mx.array]:
        """Its parts under the names that mlx-lm gives them in the module at `path`."""
        parts = {f"{path}.weight": self.weight, f"{path}.scales": self.scales}
        return parts if self.biases is None else {**parts, f"{path}.biases": self.biases}


def take(tensors: dict[str, mx.array], quantization: Mapping[str, Any]) -> dict[str, Quantised]:
    """Take all quantised matrices out of `tensors`, by the path of their module.

    quantization is config.json's table. It gives mode and group size, for all modules or under a module's path; the
    bits are those of the shapes, since some converters leave out that their embeddings have others. Nothing is read.
    Raises ModelError for a table that cannot be, CheckpointError for parts that do not fit together.
    """
    paths = [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]
    found = {}
    for path in paths:
        parts = {kind: tensors.pop(f"{path}.{kind}", None) for kind in ("weight", "scales", "biases")}
        entry = quantization.get(path)
        table = {**quantization, **entry} if isinstance(entry, dict) else quantization
        found[path] = _fitting(path, parts, table)
    packed = [name for name, x in tensors.items() if x.dtype == mx.uint32]
    if packed:
        raise CheckpointError(f"The checkpoint is incomplete: codes without their scales, {listed(packed)}")
    return found


def _fitting(path: str, parts: Mapping[str, mx.array | None], table: Mapping[str, Any]) -> Quantised:
    weight, scales, biases = (parts[kind] for kind in ("weight", "scales", "biases"))
    mode, group_size = table.get("mode", "affine"), table.get("group_size")
    if not isinstance(group_size, int) or isinstance(group_size, bool) or mode not in BITS:
        raise ModelError(
            f"config.json: quantization has group_size {group_size!r} and mode {mode!r} for {path}; a whole number and "
            f"one of {', '.join(BITS)} are needed"
        )
    if weight is None or scales is None:
        raise CheckpointError(f"The checkpoint is incomplete: {path}.scales is there without {path}.weight")
    width = scales.shape[-1] * group_size
    scheme = Scheme(weight.shape[-1] * _WORD_BITS // max(width, 1), group_size, mode)
    if scheme.has_biases and biases is None:
        raise CheckpointError(f"The checkpoint is incomplete: {path}.scales is there without {path}.biases")
    found = {"weight": weight, "scales": scales, **({} if biases is None else {"biases": biases})}
    shapes = {kind: tuple(x.shape) for kind, x in found.items()}
    fits = scheme.bits in BITS[mode] and group_size in GROUP_SIZES[mode] and weight.dtype == mx.uint32
    if not fits or shapes != scheme.shapes((*scales.shape[:-1], width)):
        told = ", ".join(f"{kind} {list(shape)}" for kind, shape in shapes.items())
        raise CheckpointError(
            f"The parts of {path} are no {mode} quantisation in groups of {group_size}, as config.json says: {told}, "
            f"{str(weight.dtype).removeprefix('mlx.core.')} codes"
        )
    return Quantised(weight, scales, biases, scheme)


def join(parts: Sequence[Quantised]) -> Quantised | None:
    """Matrices of equal width, one below the other: rows are quantised one by one, so nothing is computed anew.

    None where their schemes or types differ: such matrices have no common code.
    """
    if len({part.scheme for part in parts}) > 1 or len({part.scales.dtype for part in parts}) > 1:
        return None
    biases = [part.biases for part in parts if part.biases is not None]
    return Quantised(
        mx.concatenate([part.weight for part in parts], axis=-2),
        mx.concatenate([part.scales for part in parts], axis=-2),
        mx.concatenate(biases, axis=-2) if biases else None,
        parts[0].scheme,
    )


def install(model: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Put quantised modules at the paths, with placeholder parameters: load the real ones next."""
    nn.quantize(
        model,
        class_predicate=lambda path, _: schemes[path].as_config() if path in schemes else False,
    )


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a quantised matrix is from its original: root mean square of the differences over that of the
    original, and whether each number is as near as the code can bring it."""

    relative: float
    within_bounds: bool


def deviation(original: mx.array, quantised: Quantised) -> Deviation:
    """Compare [..., out, in] with its quantised form, some rows at a time.

    A number may be off by one step of its group, since MLX moves the grid so that zero lies on it, and by what the
    rounding of scale and bias to their type adds. A NaN is out of bounds.
    """
    width = original.shape[-1]
    original = original.reshape(-1, width)
    parts = [None if x is None else x.reshape(-1, x.shape[-1]) for x in _parts(quantised)]
    rows = max(1, _CHUNK_NUMBERS // width)
    difference = total = 0.0
    within = True
    for start in range(0, original.shape[0], rows):
        cut = slice(start, start + rows)
        weight, scales, biases = (None if x is None else x[cut] for x in parts)
        assert weight is not None
        assert scales is not None
        part = Quantised(weight, scales, biases, quantised.scheme)
        exact = original[cut].astype(mx.float32)
        off = mx.abs(part.dequantised(mx.float32) - exact)
        near = mx.all(off.reshape(exact.shape[0], -1, quantised.scheme.group_size) <= _bound(part)[..., None])
        difference += float(mx.sum(off * off))
        total += float(mx.sum(exact * exact))
        within = within and bool(near)
    return Deviation(math.sqrt(difference / total) if total else 0.0, within)


def _parts(quantised: Quantised) -> tuple[mx.array, mx.array, mx.array | None]:
    return quantised.weight, quantised.scales, quantised.biases


def _bound(quantised: Quantised) -> mx.array:
    """The most that a number of each group may be off, [out, in / group_size] float32."""
    if quantised.biases is None:
        return _MXFP4_STEPS * mx.power(2.0, quantised.scales.astype(mx.float32) - 127)  # e8m0: an exponent, biased
    rounding = _ROUNDING[quantised.scales.dtype]
    steps = mx.abs(quantised.scales.astype(mx.float32))
    biases = mx.abs(quantised.biases.astype(mx.float32))
    least = _LEAST_ROUNDING.get(quantised.scales.dtype, 0.0)
    scale_off, bias_off = mx.maximum(steps * rounding, least), mx.maximum(biases * rounding, least)
    return _SLACK * (steps + 2**quantised.scheme.bits * scale_off + bias_off)


def _alternatives(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
