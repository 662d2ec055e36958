"""Gets MLX into the process, fast (`engine.blas`) and with words for people when it cannot."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType

from engine import blas
from engine.blas import BlasInfo
from engine.errors import BackendError

MEMORY_SHARE = 0.8
"""Part of the memory left after loading that the KV caches may take; the rest is for activations."""


def load_mlx() -> ModuleType:
    """Import `mlx.core`, with a fast BLAS loaded before it where that helps. Idempotent.

    Raises BackendError, naming the extra to install, when MLX or its native library is missing or broken.
    """
    try:
        if "mlx.core" not in sys.modules:
            blas.preload()
            # MLX's CUDA backend multiplies float32 matrices with 10-bit mantissas unless told not to. Ours are few and
            # in float32 for a reason, the router above all: logits were off by 0.018 instead of 0.00002.
            os.environ.setdefault("MLX_ENABLE_TF32", "0")
        return import_on_lasting_thread("mlx.core")
    except ImportError as error:
        raise BackendError(_import_advice(error)) from error


def import_on_lasting_thread(name: str) -> ModuleType:
    """Import a module that uses MLX, on a thread that lives as long as the process. Raises what the import raises.

    MLX leaves state in the threads that set it up, and takes the GIL to drop it as such a thread ends. If the
    interpreter is being taken down by then, as after the last task of a worker thread, the whole process aborts.
    """
    if name in sys.modules or threading.current_thread() is threading.main_thread():
        return importlib.import_module(name)
    imported: Future[ModuleType] = Future()

    def work() -> None:
        try:
            imported.set_result(importlib.import_module(name))
        except BaseException as error:
            imported.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=work, name=f"import {name}", daemon=True).start()
    return imported.result()


def _import_advice(error: ImportError) -> str:
    if sys.platform == "darwin":
        return (
            f"MLX cannot be loaded ({error}). It needs Apple silicon and a native arm64 Python; "
            "reinstall with `pip install --force-reinstall mlx mlx-metal`."
        )
    return (
        f"MLX's native library cannot be loaded ({error}). On Linux it comes with an extra of markovian-rsa: "
        '`pip install "markovian-rsa[cpu]"`, or `"markovian-rsa[cuda]"` for an NVIDIA GPU (CUDA 13). '
        "Never both in one environment: their files overwrite each other. If one was replaced by the other, "
        "make a new environment."
    )


def blas_info() -> BlasInfo:
    """Which BLAS MLX's CPU kernels use in this process. Loads MLX; raises BackendError."""
    load_mlx()
    return blas.loaded()


def slow_here() -> tuple[str, ...]:
    """What makes MLX slow on this machine and what to do about it, a sentence each. Loads MLX; raises BackendError."""
    if not on_cpu() or blas_info().fast:
        return ()
    return (f"products take about ten times as long as they need with MLX's own BLAS: {blas.advice()}",)


def on_cpu() -> bool:
    """True when MLX computes on the CPU here. Loads MLX; raises BackendError."""
    mx = load_mlx()
    return bool(mx.default_device() == mx.Device(mx.cpu))


def free_memory_bytes() -> int:
    """Memory that arrays may still take: of the GPU, or of the machine where MLX runs on the CPU.

    What other processes hold is seen on CUDA and on CPUs; on Metal, the system's recommendation stands for it.
    """
    mx = load_mlx()
    if on_cpu():
        return _available_ram_bytes()
    info = mx.device_info()
    total = info.get("max_recommended_working_set_size") or info.get("memory_size") or info.get("total_memory")
    free = int(total or _available_ram_bytes()) - int(mx.get_active_memory())
    if "free_memory" in info:  # the driver's word; what MLX keeps of freed buffers looks taken to it
        free = min(free, int(info["free_memory"]) + int(mx.get_cache_memory()))
    return max(free, 0)


def wire_memory() -> None:
    """Keep macOS from paging the GPU's memory out, up to the size that it recommends, for the life of the process.

    Without it, a model that takes most of a Mac's memory is read from disk at every step. No effect elsewhere. To be
    called while nothing is being computed.
    """
    mx = load_mlx()
    recommended = None if on_cpu() else mx.device_info().get("max_recommended_working_set_size")
    if recommended is not None:
        mx.set_wired_limit(int(recommended))


def _available_ram_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
