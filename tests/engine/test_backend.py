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


@pytest.mark.parametrize(
    ("info", "active", "cached", "free"),
    [
        ({"total_memory": 80, "free_memory": 70}, 10, 0, 70),
        ({"total_memory": 80, "free_memory": 30}, 10, 0, 30),  # another process has 40
        ({"total_memory": 80, "free_memory": 30}, 10, 15, 45),  # 15 of what is missing are MLX's own freed buffers
        ({"total_memory": 80, "free_memory": 0}, 80, 0, 0),
        ({"max_recommended_working_set_size": 48, "memory_size": 64}, 10, 0, 38),
        ({"max_recommended_working_set_size": 48, "memory_size": 64}, 50, 0, 0),
    ],
)
def test_the_free_memory_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, int], active: int, cached: int, free: int
) -> None:
    mx = backend.load_mlx()
    monkeypatch.setattr(backend, "on_cpu", lambda: False)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_active_memory", lambda: active)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: cached)
    assert backend.free_memory_bytes() == free


@pytest.mark.parametrize(
    ("cpu", "info", "wired"),
    [
        (False, {"max_recommended_working_set_size": 48, "memory_size": 64}, [48]),
        (True, {"max_recommended_working_set_size": 48, "memory_size": 64}, []),
        (False, {"total_memory": 80, "free_memory": 70}, []),
    ],
    ids=["metal", "cpu", "cuda"],
)
def test_memory_is_wired_where_the_system_says_how_much(
    monkeypatch: pytest.MonkeyPatch, cpu: bool, info: dict[str, int], wired: list[int]
) -> None:
    mx = backend.load_mlx()
    limits: list[int] = []
    monkeypatch.setattr(backend, "on_cpu", lambda: cpu)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    backend.wire_memory()
    assert limits == wired


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
