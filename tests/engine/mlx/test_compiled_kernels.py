"""Kernels that are compiled once on a machine: what the compiler is given, and what is kept where."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from engine.families.zaya import kernels as zaya
from engine.mlx.kernels import attention, compiled, eight_bits, experts, launch, sampling_bodies
from engine.mlx.kernels.launch import Kernel

SCALE = Kernel(
    name="scale",
    inputs=("x", "table"),
    outputs=("y",),
    helpers="DEVICE float twice(float x) { return 2.0f * x; }",
    body="y[THREAD] = T(twice(x[THREAD]) * table_shape[1] + SHIFT);",
)
TEXT = compiled.Text(
    "scale", (("x", mx.bfloat16, 1), ("table", mx.int32, 2)), (("y", mx.float32),), (("T", mx.float32), ("SHIFT", 3)),
    SCALE.helpers, SCALE.body,
)  # fmt: skip


class Device:
    """A GPU whose compiler makes a note of what it is given, and MLX of what it is asked to run."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.runs: list[dict[str, Any]] = []

    def compile(self, source: str, arch: str) -> bytes:
        self.sources.append(source)
        return f"machine code for {arch}".encode()

    def run(self, **how: Any) -> list[mx.array]:
        self.runs.append(how)
        return [mx.zeros(shape, dtype) for shape, dtype in zip(how["output_shapes"], how["output_dtypes"], strict=True)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    made = Device()
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", str(tmp_path / "modules"))
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "sm_90"})
    monkeypatch.setattr(compiled, "compiled", made.compile)
    monkeypatch.setattr(mx.fast, "precompiled_cuda_kernel", made.run)
    compiled.module.cache_clear()
    compiled.trouble.cache_clear()
    return made


def kept() -> dict[str, str]:
    return {path.name: path.read_text() for path in compiled.folder().iterdir()}


def test_the_compiler_is_given_a_function_of_inputs_outputs_and_lengths() -> None:
    lines = TEXT.source("scale_1").splitlines()
    at = next(i for i, line in enumerate(lines) if "__global__" in line)
    assert lines[at : at + 4] == [
        'extern "C" __global__ void scale_1(const __nv_bfloat16* x, const int* table, float* y, '
        "const int table_0, const int table_1) {",
        "  using T = float;",
        "  constexpr int SHIFT = 3;",
        "  const int table_shape[] = {table_0, table_1};",
    ]
    assert SCALE.helpers in lines[:at]
    assert lines[-2:] == [SCALE.body, "}"]


def test_it_is_kept_under_the_name_by_which_mlx_looks_for_it(device: Device) -> None:
    """`NAME_HASH.ptx`, HASH of the text that MLX is given, none; beside it what its functions are called."""
    name = compiled.module(TEXT)
    assert name.startswith("scale_")
    assert kept() == {
        f"{name}_553e93901e462a6e.ptx": "machine code for sm_90a",
        f"{name}_553e93901e462a6e.txt": f"{name}\t{name}\n",
    }
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in compiled.folder().iterdir()), (
        "others may use the folder"
    )


def test_the_next_process_compiles_nothing(device: Device) -> None:
    first = compiled.module(TEXT)
    compiled.module.cache_clear()
    assert compiled.module(TEXT) == first
    assert len(device.sources) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (("x", mx.float32, 1), ("table", mx.int32, 2))},
        {"inputs": (("x", mx.bfloat16, 1), ("table", mx.int32, 3))},
        {"outputs": (("y", mx.bfloat16),)},
        {"constants": (("T", mx.float32), ("SHIFT", 4))},
        {"helpers": "DEVICE float twice(float x) { return x + x; }"},
        {"body": SCALE.body + " "},
    ],
)
def test_whatever_differs_has_another_name(device: Device, change: dict[str, Any]) -> None:
    assert compiled.module(TEXT) != compiled.module(dataclasses.replace(TEXT, **change))


def test_another_kind_of_gpu_has_its_own(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder may be shared by machines of different ones."""
    first = compiled.module(TEXT)
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": "sm_80"})
    compiled.module.cache_clear()
    assert compiled.module(TEXT) != first
    assert "machine code for sm_80" in kept().values(), "only from 9.0 on is there more that one kind alone can do"


def test_it_is_run_with_the_lengths_that_it_asks_for(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "trouble", lambda: None)
    x, table = mx.zeros((4,), mx.bfloat16), mx.zeros((7, 2), mx.int32)
    (y,) = SCALE(
        x, table, blocks=(2, 3, 4), threads=32, outputs=[((4,), mx.float32)],
        constants={"T": mx.float32, "SHIFT": 3},
    )  # fmt: skip
    (run,) = device.runs
    assert y.shape == (4,)
    assert run["name"] == compiled.module(TEXT)
    assert (run["compiled_source"], run["scalars"]) == (b"", [7, 2])
    assert (run["grid"], run["threadgroup"]) == ((64, 3, 4), (32, 1, 1))


def test_no_kernel_uses_a_type_that_only_some_compiler_has_made_known() -> None:
    """The emulator's has, MLX's header had, NVIDIA's alone has not: `uint8_t`."""
    modules = (attention, eight_bits, experts, sampling_bodies, zaya)
    kernels = [value for module in modules for value in vars(module).values() if isinstance(value, Kernel)]
    assert len(kernels) > 12
    for kernel in kernels:
        assert not re.search(r"\b(u?int\d+|size)_t\b", kernel.helpers + kernel.body), kernel.name


def test_of_a_compilers_log_the_first_fault_is_told() -> None:
    log = """6: NVRTC_ERROR_COMPILATION, compilation log:

default_program(75): warning #177-D: variable "BLOCK_Y" was declared but never referenced
default_program(86): error: identifier "uint8_t" is undefined
default_program(86): error: expected a ";\""""
    assert compiled._first_fault(log) == 'default_program(86): error: identifier "uint8_t" is undefined'
    assert compiled._first_fault("out of memory") == "out of memory"


def compiler_is_missing(source: str, arch: str) -> bytes:
    raise ImportError("No module named 'cuda'\nand more")


def test_mlx_compiles_them_where_they_cannot_be_kept(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiled", compiler_is_missing)
    given: list[Sequence[mx.array]] = []

    def build(**_: Any) -> Any:
        return lambda *, inputs, **_: given.append(inputs) or [mx.zeros((4,))]

    monkeypatch.setattr(mx.fast, "cuda_kernel", build)
    monkeypatch.setattr(launch, "wanted", lambda: True)
    x, table = mx.zeros((4,), mx.bfloat16), mx.zeros((7, 2), mx.int32)
    launch._built.cache_clear()
    SCALE(x, table, blocks=(1, 1, 1), threads=32, outputs=[((4,), mx.float32)], constants={"T": mx.float32, "SHIFT": 3})
    launch._built.cache_clear()
    assert len(given) == 1
    assert device.runs == []
    assert launch.slow_start() == (
        "each start takes half a minute longer: kernels of our own are not kept (No module named 'cuda')",
    )


def test_a_gpu_that_reads_something_else_there_is_found_out(device: Device) -> None:
    assert compiled.trouble() == "one that was kept gives something else", "the device here gives zeros"
