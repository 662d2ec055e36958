"""From a model's name to its folder, and from the folder to an engine."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from engine.api import Completion, GenerationRequest, Message, RecommendedSampling, SamplingParams
from engine.backend import on_cpu
from engine.errors import ModelError, RequestError
from engine.files.checkpoint import fingerprint
from engine.files.folder import ModelFolder
from engine.loader import NANO, load_engine, resolve
from engine.mlx.engine import MLXEngine


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "thinker")


@pytest.fixture
def folder(thinker: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(thinker, tmp_path / "model"))


async def say(engine: MLXEngine, **sampling: Any) -> Completion:
    settings = {"temperature": 0.0, "reasoning_budget": 12, "answer_budget": 4, **sampling}
    request = GenerationRequest(
        id="r", messages=(Message(role="user", text="Say"),), sampling=SamplingParams(**settings)
    )
    async with engine.generate([request]) as stream:
        (completion,) = [event async for event in stream if isinstance(event, Completion)]
    return completion


# ---- resolve


def test_a_folder_is_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(folder) == resolve(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert resolve("model") == resolve("./model") == Path("model")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/model") == folder


def test_nano_is_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("nano") == resolve(NANO) == NANO


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "empty is no model folder: it has no config.json"),
        ("empty/file", "empty/file is a file; a model is a folder with config.json and *.safetensors"),
        ("nowhere", "there is no model folder nowhere"),
        ("./owner/name", "there is no model folder owner/name"),
        ("/nowhere/at-all", "there is no model folder /nowhere/at-all"),
        ("some/where/deep", "there is no model folder some/where/deep"),
    ],
)
def test_what_is_no_model(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("empty/file").touch()
    with pytest.raises(ModelError) as caught:
        resolve(name)
    assert str(caught.value) == words


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no network, as with HF_HUB_OFFLINE=1; returns the cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_hub_id_without_a_network_names_the_command(offline: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("someone/Some-Model")
    message = str(caught.value)
    assert message.startswith("someone/Some-Model is not on this machine and the hub cannot be reached.")
    assert "`hf download someone/Some-Model --local-dir Some-Model`" in message
    assert "as the model" in message


def test_a_hub_id_that_is_cached_needs_no_network(offline: Path, thinker: Path) -> None:
    repository, commit = offline / "models--someone--Some-Model", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(thinker, repository / "snapshots" / commit)
    assert resolve("someone/Some-Model") == repository / "snapshots" / commit


def test_a_name_that_can_be_no_hub_id(offline: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        resolve("some one/model?")


# ---- fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_fingerprint_changes_with_what_the_model_is(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    assert len(before) == 16
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt", "vocab.txt", "cl100k.tiktoken", "chat.jinja"])
def test_other_kinds_of_tokenizers_count_too(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    (folder / name).write_text("a b")
    assert fingerprint(folder) != before


def test_the_fingerprint_does_not_change_with_the_rest(folder: Path, thinker: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    assert before == fingerprint(thinker), "nor with the place"
    for name in ("README.md", ".gitattributes", "LICENSE.txt", "plot.png", "model.py"):
        (folder / name).write_text("other")
    (folder / "original").mkdir()
    (folder / "original" / "config.json").write_text("{}")
    assert fingerprint(folder) == before


@pytest.mark.parametrize("place", [0, 1 << 20, -1])
def test_both_ends_of_large_weight_files_count(folder: Path, place: int) -> None:
    large = folder / "model-2.safetensors"
    data = bytearray(3 << 20)
    large.write_bytes(data)
    before = fingerprint(folder)
    large.write_bytes(data + b"\0")
    assert fingerprint(folder) != before, "its size"
    data[place if place < 1 << 20 else 2 << 20] = 1
    large.write_bytes(data)
    assert fingerprint(folder) != before


# ---- load_engine


@pytest.mark.anyio
async def test_what_an_engine_says_of_its_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    engine = load_engine("model")
    info = engine.model
    assert (info.name, info.context_tokens, info.thinks) == ("model", 512, True)
    assert info.fingerprint == fingerprint(folder)
    assert info.details == {
        "source": str(folder),
        "architecture": "llama",
        "device": "cpu" if on_cpu() else "gpu",
    }
    assert (await say(engine)).closed
    await engine.aclose()
    named = load_engine("model", name="mine")
    assert named.model.name == "mine"
    named.close()


@pytest.mark.anyio
async def test_a_model_without_think_tags(tmp_path: Path, make_llama: Callable[..., Path]) -> None:
    engine = load_engine(make_llama(tmp_path / "plain", thinks=False))
    assert not engine.model.thinks
    completion = await say(engine)
    assert completion.text == completion.reasoning
    assert not completion.closed
    await engine.aclose()


@pytest.mark.anyio
async def test_a_quantised_model_says_on_a_cpu_what_its_dequantised_weights_say(folder: Path, tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_model

    model, config = load_model(folder)
    model, config = quantize_model(model, config, 32, 4)
    quantised, plain = (Path(shutil.copytree(folder, tmp_path / name)) for name in ("quantised", "plain"))
    save_model(quantised, model)
    (quantised / "config.json").write_text(json.dumps(config))
    save_model(plain, dequantize_model(model))
    assert any(".scales" in name for name in mx.load(str(quantised / "model.safetensors")))

    said = []
    for each in (quantised, plain):
        engine = load_engine(each)
        if on_cpu():
            seen: list[set[Any]] = []

            def look(scheduler: Any, seen: list[set[Any]] = seen) -> None:
                seen.append({x.dtype for _, x in tree_flatten(scheduler._batch._model.module.parameters())})

            engine.call(look)
            said.append((await say(engine, temperature=1.0, seed=5)).token_ids)
            assert seen == [{mx.float32}]
        else:
            said.append((await say(engine, temperature=1.0, seed=5)).token_ids)
        await engine.aclose()
    if on_cpu():
        assert said[0] == said[1]


@pytest.mark.anyio
async def test_end_tokens_come_from_the_generation_config(folder: Path) -> None:
    for ids, expected in (([3, 65], {3, 65}), (66, {66}), (None, {3})):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids} if ids else {}))
        engine = load_engine(folder)
        assert engine.tokenizer.end_ids >= expected
        await engine.aclose()


def test_positions_of_a_model_that_also_sees(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    positions = config.pop("max_position_embeddings")
    config["text_config"] = {"max_position_embeddings": positions + 1}
    (folder / "config.json").write_text(json.dumps(config))
    engine = load_engine(folder)
    assert engine.model.context_tokens == positions + 1
    engine.close()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{", "config.json cannot be read: no JSON: Expecting property name"),
        ("config.json", "[1]", "config.json cannot be read: it is no JSON object"),
        ("generation_config.json", "{nope", "generation_config.json cannot be read"),
        ("generation_config.json", '{"eos_token_id": 1.5}', "eos_token_id is 1.5, not a token id or a list of them"),
        ("generation_config.json", '{"eos_token_id": [1, "2"]}', "not a token id or a list of them"),
        ("generation_config.json", f'{{"a": {"[" * 60_000}', "generation_config.json cannot be read: .* nested"),
        ("tokenizer.json", "{}", "the tokenizer in .* cannot be loaded"),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": 1000000000}', "no model has more than 10,000"),
        (
            "config.json",
            '{"model_type": "zaya", "vision_config": {"depth": 10000000000}}',
            "depth is 10000000000: no mod",
        ),
        ("config.json", "{}", r"cannot load the model in .* \(KeyError: 'model_type'\)"),
        ("config.json", '{"model_type": "llama"}', "cannot load the model in .* missing"),
    ],
)
def test_files_that_cannot_be_read(folder: Path, name: str, content: str, words: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=words) as caught:
        load_engine(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "tensor", "what"),
    [
        (math.nan, "model.embed_tokens.weight", "not finite"),
        (math.nan, "model.layers.0.self_attn.q_proj.weight", "not finite"),
        (math.inf, "model.norm.weight", "not finite"),
        (0.0, "model.norm.weight", "all the same"),
        (0.0, "", "all the same"),
    ],
)
def test_damaged_weights_are_said_when_they_are_loaded(folder: Path, value: float, tensor: str, what: str) -> None:
    """They ran, and every candidate ended in gibberish or in a failure of its own."""
    file = folder / "model.safetensors"
    weights = {
        name: mx.full(x.shape, value, dtype=x.dtype) if tensor in name else x for name, x in mx.load(str(file)).items()
    }
    mx.save_safetensors(str(file), weights)
    with pytest.raises(ModelError, match=f"the weights in .* are damaged: its logits are {what}"):
        load_engine(folder)


@pytest.mark.skipif(not (NANO / "model.safetensors").is_file(), reason="nano's weights are not there")
@pytest.mark.anyio
async def test_the_built_in_model() -> None:
    engine = load_engine("nano")
    assert (engine.model.name, engine.model.thinks, engine.model.context_tokens) == ("nano", True, 4096)
    assert (await say(engine)).token_ids
    await engine.aclose()


@pytest.mark.parametrize(
    "options", [{"max_rows": 0}, {"max_rows": "4"}, {"max_rows": 10**30}, {"kv_bytes": -1}, {"kv_bytes": "1G"}], ids=str
)
def test_options_that_are_none_are_refused_before_anything_is_loaded(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"`(max_rows|kv_bytes)` = .*: should be"):
        load_engine("nowhere", **options)


# ---- what its makers recommend


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (None, None),
        ({"eos_token_id": 3}, None),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9}),
        ({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1},
         {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05}),
        # What they sample with, but do not name, is off.
        ({"do_sample": True, "top_k": 64, "top_p": 0.95}, {"top_k": 64, "top_p": 0.95}),
        ({"do_sample": True}, {}),
        ({"do_sample": True, "temperature": None, "top_k": None}, {}),
        # Greedy is meant for one answer.
        ({"do_sample": False, "temperature": 0.6}, None),
        ({"do_sample": True, "temperature": 0.0}, None),
        # No such values.
        ({"temperature": "warm"}, None),
        ({"temperature": 0.6, "top_p": 0}, None),
    ],
)  # fmt: skip
def test_recommended_sampling(table: dict[str, Any] | None, found: dict[str, Any] | None, tmp_path: Path) -> None:
    if table is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(table))
    assert ModelFolder(tmp_path).recommended_sampling == (None if found is None else RecommendedSampling(**found))


def test_an_engine_knows_what_its_makers_recommend(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 0.3}')
    engine = load_engine(folder)
    try:
        assert engine.model.sampling == RecommendedSampling(temperature=0.3)
    finally:
        engine.close()
