"""Tiny random models on the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.loader import load_engine
from engine.mlx.engine import MLXEngine


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    """A model whose context no test uses up."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-long", context=100_000)


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    """A model without think tags."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-plain", thinks=False)


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Iterator[MLXEngine]:
    engine = load_engine(llama_folder)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def plain(plain_folder: Path) -> Iterator[MLXEngine]:
    engine = load_engine(plain_folder)
    yield engine
    engine.close()
