"""What a family costs: a folder and a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_calls import after_each_step, complete, rows
from toy_family.family import next_token

from engine.api import GenerationRequest, Message, SamplingParams
from engine.families import FAMILIES, family_of
from engine.files.folder import ModelFolder
from engine.loader import inspect_model, load_engine


@pytest.fixture
def toy(tmp_path: Path, make_llama: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a family that this engine has never heard of, with the line that tells it."""
    monkeypatch.setitem(FAMILIES, "toy", "toy_family.family")
    folder = make_llama(tmp_path / "toy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "toy_small"}))
    return folder


@pytest.mark.anyio
async def test_a_toy_family_generates_in_one_batch(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(toy)
    assert engine.model.notes[0] == "it is a toy"
    together = after_each_step(monkeypatch, rows)
    texts = ["one", "a longer one", "one", "the longest of all"]
    requests = [
        GenerationRequest(
            id=f"r{i}",
            messages=(Message(role="user", text=text),),
            sampling=SamplingParams(temperature=0.0, max_tokens=5 + i),
        )
        for i, text in enumerate(texts)
    ]
    done = await complete(engine, requests)
    vocabulary = ModelFolder(toy).config["vocab_size"]
    for request, completion in zip(requests, done, strict=True):
        total, expected = sum(engine.tokenizer.prompt_ids(request.messages)), []
        for _ in range(request.sampling.max_tokens or 0):
            expected.append(next_token(total, vocabulary))
            total += expected[-1]
        assert list(completion.token_ids) == expected
    assert max(together) == 4
    await engine.aclose()


def test_a_toy_family_is_described_without_a_word_of_its_own(toy: Path) -> None:
    report = inspect_model(toy)
    assert (report.model_type, report.layers, report.problems) == ("toy_small", 2, ())


def test_what_no_family_claims_is_mlx_lms(tmp_path: Path) -> None:
    others = family_of(ModelFolder(tmp_path))
    for name in ("llama", "toy_small", "a zaya"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name}))
        assert family_of(ModelFolder(tmp_path / name)) is others
