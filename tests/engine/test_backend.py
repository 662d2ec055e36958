"""Getting MLX into the process. What depends on how a process starts is tried in one of its own."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from processes import run_python

from engine import backend
from engine.errors import BackendError


def test_loading_twice_gives_the_same_module() -> None:
    assert backend.load_mlx() is backend.load_mlx() is sys.modules["mlx.core"]


def test_float32_products_are_float32_unless_the_user_says_otherwise() -> None:
    """On CUDA, MLX reads this once; the router and the reference logits hang on it."""
    program = "import os; from engine.backend import load_mlx; load_mlx(); print(os.environ['MLX_ENABLE_TF32'])"
    assert run_python(program).stdout == "0\n"
    assert run_python(program, MLX_ENABLE_TF32="1").stdout == "1\n"


def test_this_machine() -> None:
    blas = backend.blas_info()
    assert blas.name
    assert blas.path is None or Path(blas.path).exists()
    assert backend.on_cpu() in (True, False)
    assert 1 << 20 < backend.free_memory_bytes() < 1 << 50


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(BackendError, match="cannot be loaded") as caught:
        backend.load_mlx()
    assert "pip install" in str(caught.value)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(BackendError, match=r'"markovian-rsa\[cpu\]".*"markovian-rsa\[cuda\]".*Never both'):
        backend.load_mlx()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BackendError, match="Apple silicon"):
        backend.load_mlx()


def test_imports_from_a_worker_thread_outlive_it() -> None:
    """A thread that had imported MLX and ended as the interpreter did aborted the process, one time in twelve."""
    program = """
import threading
from engine.backend import load_mlx
threads = []
def work():
    load_mlx()
    threads.extend(thread.name for thread in threading.enumerate())
worker = threading.Thread(target=work)
worker.start()
worker.join()
assert "import mlx.core" in threads, threads
"""
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_import_that_fails_on_the_lasting_thread_is_the_callers() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            backend.import_on_lasting_thread("engine.no_such_module")
        except ImportError as error:
            caught.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert "engine.no_such_module" in str(caught[0])
