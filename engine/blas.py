"""The BLAS behind MLX's products on a Linux CPU: a fast one is loaded before MLX, whose wheel brings a slow one.

MLX's CPU wheel links reference BLAS, 10 to 50 times slower than a real one. A library that was loaded before it with
`RTLD_GLOBAL` provides the symbols that MLX binds. In this order: MKL, which the extra `cpu` installs on x86-64, and the
system's OpenBLAS. Nothing here imports MLX.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

SWITCH = "RSA_BLAS"
"""The environment variable that chooses the library: `mkl`, `openblas`, or `none` for the one in MLX's wheel."""

_OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas64.so.0", "libopenblas.so")
"""File names of OpenBLAS in Linux distributions; Debian and Ubuntu: package `libopenblas0-pthread`."""

_MKL_SEQUENTIAL, _MKL_TBB = 1, 3
"""Values of `MKL_Set_Threading_Layer`. TBB's workers sleep while they wait; those of MKL's default, OpenMP, spin."""

_OLD_KERNELS = frozenset({"Katmai", "Coppermine", "Northwood", "Prescott", "Banias", "Core2", "Penryn", "Dunnington"})
"""What OpenBLAS calls its kernels from before AVX. It runs them on processors that are newer than itself."""


@dataclass(frozen=True, slots=True)
class BlasInfo:
    """The BLAS that MLX's CPU kernels call: its name for people, its file if known, whether it is fast."""

    name: str
    path: str | None
    fast: bool = True


def preload() -> None:
    """Load a fast BLAS so that MLX binds it, where there is one: before `import mlx.core`, on Linux. Never raises."""
    choice = os.environ.get(SWITCH, "")
    if not sys.platform.startswith("linux") or choice == "none":
        return
    if choice == "openblas" or (not _preload_mkl() and choice != "mkl"):
        _preload_openblas()


def loaded() -> BlasInfo:
    """Which BLAS MLX's CPU kernels use in this process, where MLX was loaded after `preload`."""
    if sys.platform == "darwin":
        return BlasInfo("Accelerate", None)
    for path in _mapped_files():
        name = Path(path).name
        if name.startswith("libmkl_rt."):
            return BlasInfo(f"Intel MKL {_version('mkl')}", path)
        if "openblas" in name and ".libs/" not in path:  # numpy's wheel has one for itself
            return BlasInfo(_openblas_version(path), path)
    return BlasInfo(f"reference BLAS (slow: {advice()})", None, fast=False)


def advice() -> str:
    """What to do about a slow BLAS on this machine."""
    if os.environ.get(SWITCH):
        return f"unset {SWITCH} in the environment"
    if mkl_runs_here():
        return '`pip install "markovian-rsa[cpu]"` in this environment brings a fast one'
    return "install OpenBLAS, on Debian `apt install libopenblas0-pthread`"


def mkl_runs_here() -> bool:
    """Whether MKL has wheels for this machine."""
    return sys.platform.startswith("linux") and os.uname().machine == "x86_64"


def threads() -> int:
    """How many threads a product may use: half of the processors that this process may run on, at least one.

    Python and MLX need the others. With a thread for each of two busy cores, OpenBLAS's workers, which spin while they
    wait, made a decode step take four times as long; half of the cores lose nothing at the sizes of decoding.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2)


def better_kernels(core: str, flags: frozenset[str]) -> str | None:
    """OPENBLAS_CORETYPE for a processor with these flags, on which OpenBLAS chose the kernels `core`.

    None where its choice is good enough. Debian's OpenBLAS 0.3.21 runs the SSE3 kernels of 2004 on a Xeon of 2023; the
    right ones halve the time of a whole run.
    """
    if core not in _OLD_KERNELS:
        return None
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
        return "SkylakeX"
    return "Haswell" if {"avx2", "fma"} <= flags else None


# ---- MKL


def _preload_mkl() -> bool:
    path = _mkl_file()
    if path is None:
        return False
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    count = threads()
    tbb = path.with_name("libtbb.so.12")
    if tbb.is_file():
        ctypes.CDLL(str(tbb), mode=ctypes.RTLD_GLOBAL)  # MKL finds it by its name alone, and aborts where it does not
    if "MKL_THREADING_LAYER" not in os.environ:
        library.MKL_Set_Threading_Layer(_MKL_TBB if count > 1 and tbb.is_file() else _MKL_SEQUENTIAL)
    if "MKL_NUM_THREADS" not in os.environ and "OMP_NUM_THREADS" not in os.environ:
        library.MKL_Set_Num_Threads(count)
    return True


def _mkl_file() -> Path | None:
    """The library that chooses MKL's kernels, as pip installed it: beside the environment's `lib/pythonX.Y`."""
    try:
        files = metadata.distribution("mkl").files or ()
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).resolve() for file in files if file.name.startswith("libmkl_rt.so"))
    return next((path for path in found if path.is_file()), None)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


# ---- OpenBLAS


def _preload_openblas() -> bool:
    library = next(_openblas_libraries(), None)
    if library is None:
        return False
    kernels = better_kernels(_core_name(library), _processor_flags())
    if kernels is not None and "OPENBLAS_CORETYPE" not in os.environ:
        # It reads the variable once, as it is loaded: let go of it, and load it again.
        os.environ["OPENBLAS_CORETYPE"] = kernels
        _ctypes.dlclose(library._handle)
        library = next(_openblas_libraries())
    if "OPENBLAS_NUM_THREADS" not in os.environ and "OMP_NUM_THREADS" not in os.environ:
        library.openblas_set_num_threads(threads())
    return True


def _openblas_libraries() -> Iterator[ctypes.CDLL]:
    for name in _OPENBLAS_NAMES:
        try:
            yield ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue


def _core_name(library: ctypes.CDLL) -> str:
    try:
        get_name = library.openblas_get_corename
    except AttributeError:
        return ""
    get_name.restype = ctypes.c_char_p
    return str(get_name().decode())


def _processor_flags() -> frozenset[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def _openblas_version(path: str) -> str:
    try:
        get_config = ctypes.CDLL(path).openblas_get_config
    except (OSError, AttributeError):
        return "OpenBLAS"
    get_config.restype = ctypes.c_char_p
    return str(get_config().decode()).strip()


def _mapped_files() -> list[str]:
    maps = Path("/proc/self/maps")
    return maps.read_text().split() if maps.exists() else []
