"""Runs kernels of `engine.mlx.kernels` on a CPU: their CUDA and their Metal text, compiled by a C++ compiler.

The words of the two languages are in emulator_cuda.h and emulator_metal.h, how threads take turns in
emulator_threads.h. It finds what a GPU would hide: threads that do not meet at a barrier, memory beyond an array, an
order of threads that matters (`backwards`). It cannot find wrong address spaces, or what only a GPU's compiler refuses.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import pytest

from engine.mlx.kernels import launch
from engine.mlx.kernels.launch import Kernel
from engine.mlx.kernels.preludes import CUDA, METAL, Prelude

Text = Literal["cuda", "metal"]
TEXTS: tuple[Text, ...] = ("cuda", "metal")
PLACES = (*TEXTS, pytest.param("gpu", marks=pytest.mark.gpu))
"""Where a test may run kernels: emulated, and on this machine's GPU."""
Array = np.ndarray[Any, Any]

_HERE = Path(__file__).parent
_PRELUDES: dict[Text, Prelude] = {"cuda": CUDA, "metal": METAL}
_SAME = {mx.float32: "float", mx.int32: "int", mx.uint32: "uint32_t", mx.uint8: "uint8_t", mx.bool_: "bool"}
_TYPES: dict[Text, dict[mx.Dtype, str]] = {
    "cuda": {**_SAME, mx.bfloat16: "__nv_bfloat16"},
    "metal": {**_SAME, mx.bfloat16: "bfloat16_t"},
}
_STORED: dict[mx.Dtype, type] = {
    mx.float32: np.float32, mx.bfloat16: np.uint16, mx.int32: np.int32, mx.uint32: np.uint32, mx.uint8: np.uint8,
    mx.bool_: np.bool_,
}  # fmt: skip
_MX = {np.dtype(stored): dtype for dtype, stored in _STORED.items()}
_MESSAGE_BYTES = 512


class KernelError(Exception):
    """A kernel that does not compile, or does what a GPU leaves undefined."""


def run(
    kernel: Kernel,
    inputs: Sequence[Array],
    *,
    blocks: tuple[int, int, int],
    threads: int,
    outputs: Sequence[tuple[tuple[int, ...], mx.Dtype]],
    constants: Mapping[str, int | mx.Dtype],
    text: Text = "cuda",
    backwards: bool = False,
) -> list[Array]:
    """The outputs of a kernel. bfloat16 is its bits, in uint16, on both sides.

    What the kernel writes into an input is written into the given array. Outputs begin as bytes of 0xFF. Threads and
    blocks take turns from first to last, or `backwards`: both must give the same.

    Raises KernelError as above; skips the test on a machine without a C++ compiler.
    """
    made = [_poisoned(shape, dtype) for shape, dtype in outputs]
    shapes = [np.array(x.shape, np.int32) for _, x in _asked(kernel, inputs)]
    arrays = [np.ascontiguousarray(x) for x in inputs] + made + shapes
    source = _source(kernel, inputs, [dtype for _, dtype in outputs], constants, text)
    launch = _compiled(source).launch
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    launch(
        (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays)),
        (ctypes.c_long * len(arrays))(*(x.nbytes for x in arrays)),
        len(arrays),
        (ctypes.c_int * 4)(*blocks, threads),
        int(backwards),
        message,
        ctypes.c_long(_MESSAGE_BYTES),
    )
    if message.value:
        raise KernelError(f"{kernel.name}: {message.value.decode()}")
    for given, x in zip(inputs, arrays, strict=False):
        if given is not x and not np.array_equal(given.view(np.uint8), x.view(np.uint8)):
            given[...] = x
    return made


def call(text: Text, *, backwards: bool = False) -> Any:
    """Kernel.__call__ for tests of what calls kernels: `monkeypatch.setattr(Kernel, "__call__", call("cuda"))`.

    MLX arrays in and out, on the CPU; what is written into an input of theirs is there.
    """

    def launched(kernel: Kernel, *inputs: mx.array, outputs: Sequence[Any], **how: Any) -> list[mx.array]:
        stored = [x.view(mx.uint16) if x.dtype == mx.bfloat16 else x for x in inputs]
        mx.eval(stored)
        arrays = [np.array(x, copy=False) for x in stored]
        made = run(kernel, arrays, outputs=outputs, text=text, backwards=backwards, **how)
        return [mx.array(x).view(dtype) for x, (_, dtype) in zip(made, outputs, strict=True)]

    return launched


def use(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have kernels run in one of `PLACES` from now on; skips the test on a machine whose GPU does not run them."""
    if place != "gpu":
        monkeypatch.setattr(Kernel, "__call__", call("cuda" if place == "cuda" else "metal"))
    elif not launch.wanted():
        pytest.skip("no GPU here that runs kernels")


def _poisoned(shape: tuple[int, ...], dtype: mx.Dtype) -> Array:
    array: Array = np.empty(shape, _STORED[dtype])
    array.view(np.uint8)[...] = 0xFF
    return array


def _source(
    kernel: Kernel,
    inputs: Sequence[Array],
    outputs: Sequence[mx.Dtype],
    constants: Mapping[str, int | mx.Dtype],
    text: Text,
) -> str:
    """The whole program, as MLX would put it together: constants are known within the kernel's function alone."""
    types, words = _TYPES[text], _PRELUDES[text]
    parameters, arguments = [], []
    for i, (name, x) in enumerate(zip(kernel.inputs, inputs, strict=True)):
        by_value = text == "metal" and x.ndim == 0  # MLX gives Metal a reference then
        kind = types[_MX[x.dtype]]
        parameters.append(f"const {kind}{'&' if by_value else '*'} {name}")
        arguments.append(f"{'*' if by_value else ''}(const {kind}*)emulator::buffers[{i}]")
    for i, (name, dtype) in enumerate(zip(kernel.outputs, outputs, strict=True), len(inputs)):
        parameters.append(f"{types[dtype]}* {name}")
        arguments.append(f"({types[dtype]}*)emulator::buffers[{i}]")
    for i, (name, _) in enumerate(_asked(kernel, inputs), len(inputs) + len(outputs)):
        parameters.append(f"const int* {name}_shape")
        arguments.append(f"(const int*)emulator::buffers[{i}]")
    known = [
        f"using {name} = {types[value]};" if isinstance(value, mx.Dtype) else f"constexpr int {name} = {int(value)};"
        for name, value in constants.items()
    ]
    program = "\n".join([
        f'#include "emulator_{text}.h"', _block_arrays(words.header, text), f'#line 1 "{kernel.name}: helpers"',
        _block_arrays(kernel.helpers, text), f"static void kernel_{kernel.name}({', '.join(parameters)}) {{", *known,
        words.opening, f'#line 1 "{kernel.name}"', _block_arrays(kernel.body, text),
        f"}}\nvoid one_thread() {{ kernel_{kernel.name}({', '.join(arguments)}); }}",
    ])  # fmt: skip
    return re.sub(r"#include <cuda_\w+\.h>", "", program)


def _asked(kernel: Kernel, inputs: Sequence[Array]) -> list[tuple[str, Array]]:
    """The inputs whose shape the body reads: MLX hands it on then."""
    named = zip(kernel.inputs, inputs, strict=True)
    return [(name, x) for name, x in named if f"{name}_shape" in kernel.body]


def _block_arrays(code: str, text: Text) -> str:
    """Metal's `threadgroup` before an array makes it; before a pointer it only says where that points."""
    return re.sub(r"\bthreadgroup (\w+) (\w+)\[", r"BLOCK_MEMORY \1 \2[", code) if text == "metal" else code


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kernels-")


@cache
def _compiled(source: str) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("running a GPU's kernels on a CPU takes a C++ compiler")
    file = Path(_folder().name) / (hashlib.sha256(source.encode()).hexdigest()[:16] + ".cpp")
    file.write_text(source, encoding="utf-8")
    library = file.with_suffix(".so")
    command = [compiler, "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{_HERE}", str(file)]
    done = subprocess.run([*command, "-o", str(library)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(done.stderr)
    return ctypes.CDLL(str(library))
