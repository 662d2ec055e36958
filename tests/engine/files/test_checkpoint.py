"""Model folders by their small files: which shards there must be, and what is wrong with those that are there."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from engine.errors import ModelError
from engine.files.checkpoint import find_files, read_headers, weight_files


def save(folder: Path, name: str, **tensors: mx.array) -> Path:
    mx.save_safetensors(str(folder / name), tensors or {name.replace(".", "-"): mx.zeros((2, 3))})
    return folder / name


def write_index(folder: Path, *names: str) -> None:
    weight_map = {str(i): name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_numbered_shards_say_how_many_there_are(tmp_path: Path) -> None:
    for i in (1, 3):
        save(tmp_path, f"model-{i:05}-of-00004.safetensors")
    there, absent = find_files(tmp_path)
    assert [file.name for file in there] == ["model-00001-of-00004.safetensors", "model-00003-of-00004.safetensors"]
    assert absent == ["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"]
    with pytest.raises(ModelError, match=r"is incomplete: 2 of 4 weight files are not there \(model-00002-of-00004"):
        weight_files(tmp_path)


def test_an_index_decides(tmp_path: Path) -> None:
    for name in ("model.safetensors", "weights-a.safetensors", "model-00001-of-00009.safetensors"):
        save(tmp_path, name)
    write_index(tmp_path, "weights-a.safetensors", "model.safetensors", "weights-a.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors", "weights-a.safetensors"]
    write_index(tmp_path, *(f"model-{i}.safetensors" for i in range(7)))
    with pytest.raises(ModelError, match=r"7 of 7 .*model-3\.safetensors, model-4\.safetensors and 2 more\)"):
        weight_files(tmp_path)


def test_headers_tell_types_shapes_and_bytes(tmp_path: Path) -> None:
    file = save(tmp_path, "model.safetensors", a=mx.zeros((2, 3), mx.bfloat16), b=mx.zeros((), mx.uint32))
    found = read_headers([file])
    assert {name: (info.dtype, info.shape, info.nbytes, info.size) for name, info in found.items()} == {
        "a": ("BF16", (2, 3), 12, 6),
        "b": ("U32", (), 4, 1),
    }


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    """A model saved in one piece and in shards, both in the folder: which is meant?"""
    names = [f"t{i}" for i in range(7)]
    one = save(tmp_path, "model.safetensors", **{name: mx.zeros((1,)) for name in names})
    two = save(tmp_path, "model-00001-of-00001.safetensors", **{name: mx.zeros((1,)) for name in names})
    with pytest.raises(ModelError, match=r"7 tensors are in model\.safetensors and again in model-0.* t4 and 2 more\)"):
        read_headers([one, two])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: No such file"):
        read_headers([tmp_path / "model.safetensors"])
