"""`rsa doctor`: what this machine has for the engine, and what is amiss."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import anyio

import rsa
from engine.api import ModelInfo
from engine.errors import EngineError
from engine.loader import NANO, kernels_here
from rsa.command.options import with_flags
from rsa.errors import RSAError
from rsa.settings.resources import configs_folder

_PACKAGES = ("markovian-rsa", "mlx", "mlx-lm", "transformers", "math-verify")


Level = Literal["ok", "warning", "broken"]
"""A warning is about something that works, but worse than it could; what is broken keeps something from working."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `text` says what to do where the level is not `ok`."""

    what: str
    text: str
    level: Level = "ok"


def examine() -> list[Finding]:
    """All findings; never raises for what it looks for."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _packages, _name_clash, _mlx, _files)
    return [finding for check in checks for finding in check()]


def examine_server(model: str, options: Mapping[str, Any]) -> list[Finding]:
    """What the servers of a model can do, asked as its engine is opened; each that cannot be used is a finding."""
    from rsa.settings.facts import model_facts

    try:
        found = _opened(model, options)
    except EngineError as error:
        return [Finding("model", with_flags(str(error)), level="broken")]
    findings = [Finding(name, value) for name, value in model_facts(found).items()]
    findings += [Finding("note", with_flags(note), level="warning") for note in found.notes]
    urls = str(found.details.get("base_url", "")).split()
    for url in urls if len(urls) > 1 else ():
        try:
            _opened(model, {**options, "base_url": url})
            findings.append(Finding("server", url))
        except EngineError as error:
            findings.append(Finding("server", with_flags(str(error)), level="broken"))
    return findings


def _opened(model: str, options: Mapping[str, Any]) -> ModelInfo:
    """What an engine says of itself. Raises EngineError."""
    from rsa.compose import open_engine

    engine = open_engine(model, **options)
    anyio.run(engine.aclose)
    return engine.model


def _python() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} ({platform.machine()} {platform.system()}), {sys.prefix}")


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed: run `pip install markovian-rsa` again", level="broken")


def _name_clash() -> Iterator[Finding]:
    """PyPI's archived cryptography package `rsa` has the same import name and overwrites our files, or we its."""
    try:
        version = metadata.version("rsa")
    except metadata.PackageNotFoundError:
        yield Finding("import name", f"`import rsa` is {Path(rsa.__file__).parent}")
        return
    yield Finding(
        "import name",
        f"PyPI's `rsa` {version} is installed in the same environment and shares our import name: install "
        "markovian-rsa into an environment of its own (`uv tool install`, `pipx`, or a new venv)",
        level="broken",
    )


def _mlx() -> Iterator[Finding]:
    from engine import backend

    try:
        on_cpu, blas = backend.on_cpu(), backend.blas_info()
    except EngineError as error:
        yield Finding("mlx backend", str(error), level="broken")
        return
    yield Finding("device", "CPU, float32" if on_cpu else "GPU")
    if on_cpu:
        where = f", {blas.path}" if blas.path else ""
        yield Finding("blas", f"{blas.name}{where}", level="ok" if blas.fast else "warning")
    wanted, troubles = kernels_here()
    if wanted and not troubles:
        yield Finding("kernels", "they run here")
    yield from (Finding("kernels", trouble, level="warning") for trouble in troubles)
    yield Finding("memory", f"{backend.free_memory_bytes() / 2**30:.1f} GiB free for a model and its caches")


def _files() -> Iterator[Finding]:
    try:
        yield Finding("configs", str(configs_folder()))
    except RSAError as error:
        yield Finding("configs", str(error), level="broken")
    weights = NANO / "model.safetensors"
    if weights.is_file():
        yield Finding("nano", f"{weights.stat().st_size / 1e6:.1f} MB")
    else:
        yield Finding("nano", f"{weights} is missing: install markovian-rsa again", level="broken")
