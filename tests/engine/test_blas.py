"""Which BLAS MLX gets on a Linux CPU. A library is bound once a process: each way is tried in one of its own."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python

from engine import blas

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Macs bring Accelerate")

WHICH = "from engine.backend import blas_info, slow_here; b = blas_info(); print(b.fast, b.name, slow_here())"
AVX512 = frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"})


@pytest.mark.skipif(not blas.mkl_runs_here(), reason="no MKL for this processor")
def test_the_extra_brings_mkl_where_it_has_wheels() -> None:
    done = run_python(WHICH)
    assert done.stdout.startswith("True Intel MKL ")
    assert done.stdout.endswith(" ()\n")


def test_the_environment_switches_it_off_and_is_named() -> None:
    # numpy's wheel brings an OpenBLAS for itself, which MLX does not use.
    done = run_python("import numpy; " + WHICH, RSA_BLAS="none")
    assert done.stdout.startswith("False reference BLAS (slow: unset RSA_BLAS in the environment)")
    assert "products take about ten times as long" in done.stdout


def test_without_either_the_way_to_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(blas.SWITCH, raising=False)
    monkeypatch.setattr(blas, "mkl_runs_here", lambda: True)
    assert 'pip install "markovian-rsa[cpu]"' in blas.advice()
    monkeypatch.setattr(blas, "mkl_runs_here", lambda: False)
    assert "apt install libopenblas0-pthread" in blas.advice()


def test_openblas_is_found_where_the_system_has_it() -> None:
    has_it = run_python("import ctypes; ctypes.CDLL('libopenblas.so.0')").returncode == 0
    done = run_python(WHICH, RSA_BLAS="openblas")
    assert done.stdout.startswith("True OpenBLAS" if has_it else "False reference BLAS")


def test_every_blas_gives_the_same_products() -> None:
    """MLX binds whichever was loaded first: the wrong interface (64-bit integers, say) would give nonsense."""
    program = """
from engine import blas
from engine.backend import load_mlx
blas.threads = lambda: {threads}
mx = load_mlx()
a, b = mx.random.normal((37, 65), key=mx.random.key(1)), mx.random.normal((65, 50), key=mx.random.key(2))
exact = (a[:, :, None] * b[None]).sum(1)
print(mx.abs(a @ b - exact).max().item() < 1e-4)
"""
    for choice, threads in (("mkl", 1), ("mkl", 2), ("openblas", 2), ("none", 1)):
        assert run_python(program.format(threads=threads), RSA_BLAS=choice).stdout == "True\n", (choice, threads)


def test_processors_newer_than_openblas_get_their_kernels() -> None:
    assert blas.better_kernels("Prescott", AVX512) == "SkylakeX"
    assert blas.better_kernels("Prescott", frozenset({"avx2", "fma"})) == "Haswell"
    assert blas.better_kernels("Core2", frozenset({"ssse3"})) is None


@given(st.sampled_from(["Haswell", "Zen", "SkylakeX", "SapphireRapids", ""]), st.frozensets(st.sampled_from([*AVX512])))
def test_kernels_that_openblas_knows_to_choose_stay(core: str, flags: frozenset[str]) -> None:
    assert blas.better_kernels(core, flags) is None


class Library:
    """An OpenBLAS that reads OPENBLAS_CORETYPE as it is loaded, as the real one does."""

    _handle = 7

    def __init__(self, core: str) -> None:
        def name() -> bytes:
            return core.encode()

        self.openblas_get_corename = name
        self.threads: list[int] = []
        self.openblas_set_num_threads = self.threads.append


def test_old_kernels_are_let_go_of_and_the_library_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def load(name: str, mode: int) -> Library:
        made.append(Library(os.environ.get("OPENBLAS_CORETYPE", "Prescott")))
        return made[-1]

    closed: list[int] = []
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr("_ctypes.dlclose", closed.append)
    monkeypatch.setattr(blas, "_processor_flags", lambda: AVX512)
    monkeypatch.setenv(blas.SWITCH, "openblas")
    blas.preload()
    assert [blas._core_name(library) for library in made] == ["Prescott", "SkylakeX"]
    assert (closed, made[0].threads, made[1].threads) == ([7], [], [blas.threads()])


def test_a_product_leaves_half_of_the_processors_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, expected in ((1, 1), (2, 1), (3, 1), (16, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=processors: set(range(n)))
        assert blas.threads() == expected
