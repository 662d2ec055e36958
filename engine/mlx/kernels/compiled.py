"""Kernels for CUDA, compiled once on a machine and not once in each process.

MLX compiles a kernel of one's own anew in every process that runs it: half a minute at each start for those of one
model. What it makes of its own kernels it keeps in a folder, and it looks there for the modules of ours too, by their
names. So they are compiled here and put there. As a module's name says what is in it, MLX is given no text with it: it
would go through that whenever it runs the kernel.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from engine.mlx.kernels.preludes import CUDA

Constants = tuple[tuple[str, int | mx.Dtype], ...]

_TYPES = {
    mx.float32: "float", mx.float16: "__half", mx.bfloat16: "__nv_bfloat16", mx.bool_: "bool",
    mx.int8: "signed char", mx.int16: "short", mx.int32: "int", mx.int64: "long long",
    mx.uint8: "unsigned char", mx.uint16: "unsigned short", mx.uint32: "unsigned", mx.uint64: "unsigned long long",
}  # fmt: skip
_NO_TEXT = 0x553E93901E462A6E
"""`std::hash` of an empty string in libstdc++, which ends the name of a module of MLX that is given no text."""


@dataclass(frozen=True)
class Text:
    """What the compiler is given for a kernel: its own text, and the types and sizes that it is for."""

    name: str
    inputs: tuple[tuple[str, mx.Dtype, int], ...]
    """Name, type and number of dimensions of each."""
    outputs: tuple[tuple[str, mx.Dtype], ...]
    constants: Constants
    helpers: str
    body: str

    @property
    def measured(self) -> list[int]:
        """Which inputs the kernel asks the shape of: their lengths are its last arguments, one after the other."""
        return [i for i, (name, _, _) in enumerate(self.inputs) if f"{name}_shape" in self.helpers + self.body]

    def source(self, name: str) -> str:
        """The text of a function of this name."""
        lengths = [(self.inputs[i][0], self.inputs[i][2]) for i in self.measured]
        arguments = [
            *(f"const {_TYPES[dtype]}* {name}" for name, dtype, _ in self.inputs),
            *(f"{_TYPES[dtype]}* {name}" for name, dtype in self.outputs),
            *(f"const int {name}_{i}" for name, dims in lengths for i in range(dims)),
        ]
        lines = [CUDA.header, self.helpers, f'extern "C" __global__ void {name}({", ".join(arguments)}) {{']
        for constant, value in self.constants:
            of = (
                f"constexpr int {constant} = {value}"
                if isinstance(value, int)
                else f"using {constant} = {_TYPES[value]}"
            )
            lines.append(f"  {of};")
        for measured, dims in lengths:
            lines.append(f"  const int {measured}_shape[] = {{{', '.join(f'{measured}_{i}' for i in range(dims))}}};")
        return "\n".join([*lines, CUDA.opening, self.body, "}"])


def run(
    text: Text,
    inputs: Sequence[mx.array],
    *,
    blocks: tuple[int, int, int],
    threads: int,
    outputs: Sequence[tuple[tuple[int, ...], mx.Dtype]],
) -> list[mx.array]:
    """As `launch.Kernel`. Raises what `module` raises."""
    name = module(text)
    x, y, z = blocks
    return mx.fast.precompiled_cuda_kernel(
        name=name,
        compiled_source=b"",
        inputs=list(inputs),
        output_shapes=[shape for shape, _ in outputs],
        output_dtypes=[dtype for _, dtype in outputs],
        scalars=[length for i in text.measured for length in inputs[i].shape],
        grid=(x * threads, y, z),
        threadgroup=(threads, 1, 1),
        ensure_row_contiguous=True,
    )


@cache
def module(text: Text) -> str:
    """The name of a function of this text that is among MLX's modules, where it is put if it is not.

    Raises ImportError where there is no compiler, OSError where the folder cannot be written, RuntimeError if the
    compiler refuses the text.
    """
    arch = architecture()
    digest = hashlib.sha256(f"{arch}\n{text.source('kernel')}".encode()).hexdigest()[:16]
    name = f"{text.name}_{digest}"
    path = folder() / f"{name}_{_NO_TEXT:x}.ptx"
    if not path.exists():
        binary = compiled(text.source(name), arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path.with_suffix(".txt"), f"{name}\t{name}\n".encode())  # before the other: MLX looks for that one first
        _put(path, binary)
    return name


def folder() -> Path:
    """Where MLX keeps what it has compiled."""
    named = os.environ.get("MLX_PTX_CACHE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / "mlx" / version("mlx") / "ptx"


def architecture() -> str:
    """The kind of machine code of the GPU here, as its compiler calls it; `a` is with what that kind alone can do."""
    found = re.fullmatch(r"sm_(\d+)", str(mx.device_info()["architecture"]))
    assert found, "MLX names them so"
    return found[0] + ("a" if int(found[1]) >= 90 else "")


def compiled(source: str, arch: str) -> bytes:
    """Machine code. Raises ImportError without NVIDIA's compiler, RuntimeError with the first fault that it finds."""
    from cuda.core import Program, ProgramOptions
    from cuda.pathfinder import find_nvidia_header_directory

    headers = find_nvidia_header_directory("cudart")
    if headers is None:
        raise ImportError("the headers of CUDA's runtime are not here")
    options = ProgramOptions(arch=arch, include_path=[headers])
    try:
        return bytes(Program(source, "c++", options).compile("cubin").code)
    except Exception as error:  # whose type is no part of cuda-core's face
        raise RuntimeError(_first_fault(str(error))) from error


@cache
def trouble() -> str | None:
    """Why kernels cannot be kept on this machine; None if they can: one is run from there."""
    text = Text(
        "trial", (("x", mx.int32, 1),), (("y", mx.int32),), (("ADDED", 2),), "",
        "y[THREAD] = x[THREAD] + ADDED + x_shape[0];",
    )  # fmt: skip
    try:
        (found,) = run(text, [mx.arange(4, dtype=mx.int32)], blocks=(1, 1, 1), threads=4, outputs=[((4,), mx.int32)])
        right = found.tolist() == [6, 7, 8, 9]
    except Exception as error:  # a compiler, a driver, a folder: whatever they say
        return str(error).splitlines()[0][:200]
    return None if right else "one that was kept gives something else"


def _first_fault(log: str) -> str:
    """The line in a compiler's log that says what it does not take."""
    lines = log.splitlines()
    return next((line for line in lines if ": error:" in line), lines[0] if lines else "no reason was given")


def _put(path: Path, content: bytes) -> None:
    """Whole or not there, whoever else writes it too."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as aside:
        aside.write(content)
    Path(aside.name).chmod(0o644)  # the folder may be shared
    Path(aside.name).replace(path)
