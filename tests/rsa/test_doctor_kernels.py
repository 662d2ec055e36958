"""`rsa doctor` on machines whose GPU does, or does not, run kernels of our own."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from engine.families.zaya import decode
from engine.mlx.kernels import compiled, launch
from engine.mlx.sampler import kernel_trouble
from rsa.command.cli import app


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are wanted here, and nobody has tried yet whether they run."""
    monkeypatch.setattr(launch, "wanted", lambda: True)
    monkeypatch.setattr(decode, "wanted", lambda: True)
    monkeypatch.setattr(decode, "_CHECKED_TOKENS", 6)
    monkeypatch.setattr(compiled, "trouble", lambda: None)
    kernel_trouble.cache_clear()


def lines_about_kernels() -> list[str]:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if " kernels " in line]


def test_those_that_a_compiler_refuses_are_told_in_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("nvrtc: error: no such architecture\nand much more")

    monkeypatch.setattr(launch.Kernel, "__call__", refuse)
    why = "slower than it could be: kernels of our own do not run here (nvrtc: error: no such architecture)"
    assert lines_about_kernels() == [
        f"!   kernels        sampling is {why}",
        f"!   kernels        decoding is {why}",
    ]
    kernel_trouble.cache_clear()


def test_those_that_run_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.mlx.sampler.slow_sampling", tuple)
    monkeypatch.setattr(decode, "slow_here", tuple)
    assert lines_about_kernels() == ["ok  kernels        they run here"]


def test_those_that_cannot_be_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run, but each process compiles them anew."""
    monkeypatch.setattr("engine.mlx.sampler.slow_sampling", tuple)
    monkeypatch.setattr(decode, "slow_here", tuple)
    monkeypatch.setattr(compiled, "trouble", lambda: "no compiler")
    why = "each start takes half a minute longer: kernels of our own are not kept (no compiler)"
    assert lines_about_kernels() == [f"!   kernels        {why}"]


def test_on_a_cpu_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "wanted", lambda: False)
    monkeypatch.setattr(decode, "wanted", lambda: False)
    assert lines_about_kernels() == []
