"""Shared by all tests: asynchronous ones run on asyncio and on trio, and tiny random models stand in for real ones."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import hypothesis
import pytest
from reach import is_thorough
from tiny_models import write_llama, write_tokenizer

from engine.backend import load_mlx

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background jobs start with Ctrl-C ignored, and the processes that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's business: every test has a time limit of its own.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]

load_mlx()  # test files import MLX themselves: the BLAS must be loaded first


def pytest_configure() -> None:
    """Refuse an installation that lacks entry points of pyproject.toml: commands and checkers would be gone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {(group, *entry) for group, entries in project["entry-points"].items() for entry in entries.items()}
    installed = {
        (point.group, point.name, point.value) for point in metadata.distribution("markovian-rsa").entry_points
    }
    if not wanted <= installed:
        raise pytest.UsageError("pyproject.toml has changed since it was installed: pip install -e . --no-deps")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out; a test may also mark itself."""
    for item in items:
        if isinstance(item, pytest.Function) and is_thorough(item):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """What tests write need not outlive the machine. Processes of their own wait, and tests/rsa/test_log_sync.py counts
    how often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """What other implementations computed, and the tiny checkpoints that they computed it with."""
    return Path(__file__).parent / "golden"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., int]:
    """`make_tokenizer(folder, thinks=True)` saves a tokenizer and returns the size of its vocabulary."""
    return write_tokenizer


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Path]:
    """`make_llama(folder, thinks=True, context=512)` saves a tiny Llama and returns the folder."""
    return write_llama
