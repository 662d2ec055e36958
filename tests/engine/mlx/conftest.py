"""Tiny random models on the engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.mlx.prefill import Prefill, Prefiller
from engine.vision.tower import VisionTower

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny_hf"


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


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


# ---- a model that sees


@pytest.fixture(scope="session")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with 30 times the attention: the original says much the same whatever image it sees."""
    folder = tmp_path_factory.mktemp("models") / "tiny_hf"
    shutil.copytree(TINY, folder)
    tensors = mx.load(str(folder / "model.safetensors"))
    assert isinstance(tensors, dict)
    louder = {name: x * 30 if name.endswith("self_attn.o_proj.weight") else x for name, x in tensors.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), louder)
    return folder


@pytest.fixture(scope="session")
def masked(listening: Path) -> Callable[[str], Path]:
    """The listening model with another `image_mask`."""

    def make(mask: str, source: Path = listening) -> Path:
        folder = listening.parent / f"{source.parent.name}-{mask}"
        if not folder.exists():
            shutil.copytree(source, folder)
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "image_mask": mask}))
        return folder

    return make


@pytest.fixture
def fresh(listening: Path) -> Iterator[Callable[..., MLXEngine]]:
    """Makes engines that have seen nothing, and closes them."""
    engines: list[MLXEngine] = []

    def make(folder: Path = listening, **options: Any) -> MLXEngine:
        engines.append(load_engine(folder, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The grids of all images that the vision tower is given."""
    grids: list[tuple[int, int, int]] = []
    compute = VisionTower.__call__

    def watched(this: VisionTower, patches: mx.array, given: Sequence[tuple[int, int, int]]) -> mx.array:
        grids.extend(given)
        return compute(this, patches, given)

    monkeypatch.setattr(VisionTower, "__call__", watched)
    return grids


@pytest.fixture
def prefilled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each chunk of prompt that is computed."""
    chunks: list[int] = []
    compute = Prefiller._compute_chunk

    def watched(this: Prefiller, prefill: Prefill, *options: Any) -> None:
        before = prefill.done
        compute(this, prefill, *options)
        chunks.append(prefill.done - before)

    monkeypatch.setattr(Prefiller, "_compute_chunk", watched)
    return chunks
