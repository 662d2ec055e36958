"""A model folder is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import documents
from engine.errors import ModelError
from engine.files import checkpoint
from engine.files.folder import ModelFolder
from engine.loader import load_engine


@pytest.mark.anyio
async def test_loading_reads_each_file_of_the_folder_once(
    golden: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    """By this engine's own readers: the tokenizer's library reads what it likes."""
    folder, read = golden / "tiny_jang", []
    read_header, contents = checkpoint.read_header, documents.contents

    def header(file: Path) -> dict[str, checkpoint.TensorInfo]:
        read.append(file.name)
        return read_header(file)

    def file_contents(file: Path, *options: Any) -> bytes:
        read.append(file.name)
        return contents(file, *options)

    monkeypatch.setattr(checkpoint, "read_header", header)
    monkeypatch.setattr(documents, "contents", file_contents)
    engine = load_engine(folder)
    await engine.aclose()
    assert {"config.json", "generation_config.json", "jang_config.json", "model.safetensors"} <= set(read)
    assert len(read) == len(set(read)), read


def test_what_cannot_be_read_is_said_each_time_it_is_asked_for(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"has no config\.json"):
            _ = folder.config
    (tmp_path / "config.json").write_text('{"model_type": "zaya", "eos_token_id": [1, 2]}')
    assert (folder.model_type, folder.end_ids, folder.context_tokens) == ("zaya", [1, 2], None)
    (tmp_path / "config.json").unlink()
    assert folder.model_type == "zaya", "it is kept"
