"""What is told of a model folder: whole ones in every layout, and what broken ones lack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import pytest

from engine.errors import ModelError
from engine.families.zaya.convert import convert
from engine.families.zaya.shards import Settings
from engine.files.inspection import Part
from engine.loader import NANO, inspect_model, locate
from engine.mlx.quantised import Scheme

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tiny_hf", tmp_path / "model"))


def codes(parts: tuple[Part, ...]) -> dict[str, str]:
    """The code of most of each kind."""
    return {part.kind: part.code for part in reversed(parts)}


def test_a_model_that_sees() -> None:
    report = inspect_model(GOLDEN / "tiny_hf")
    assert report.problems == ()
    assert (report.layout, report.model_type, report.sees, report.thinks) == ("vl", "zaya1_vl", True, False)
    assert (report.layers, report.experts, report.hidden_size, report.vocabulary) == (4, 4, 64, 128)
    assert (report.context_tokens, report.files) == (512, 1)
    tensors = mx.load(str(GOLDEN / "tiny_hf" / "model.safetensors"))
    assert report.parameters == sum(x.size for x in tensors.values())
    assert set(codes(report.parts).values()) == {"F32"}
    json.dumps(asdict(report))


def test_the_built_in_model() -> None:
    report = inspect_model(NANO)
    assert (report.layout, report.sees, report.thinks, report.problems) == ("native", False, True, ())
    assert (report.layers, report.context_tokens) == (8, 4096)
    assert codes(report.parts)["experts"] == "BF16"


def test_a_community_bundle_has_as_many_parameters_as_its_original() -> None:
    report, original = inspect_model(GOLDEN / "tiny_jang"), inspect_model(GOLDEN / "tiny_hf")
    assert (report.layout, report.problems) == ("jang", ())
    assert codes(report.parts) == {
        "embeddings": "8-bit affine, groups of 32",
        "attention": "4-bit affine, groups of 32",
        "experts": "4-bit affine, groups of 32",
        "router": "F16", "vision-LoRA": "F16", "vision tower": "F16", "other": "F16",
    }  # fmt: skip
    for part, own in zip(report.parts, original.parts, strict=True):
        assert (part.kind, part.parameters) == (own.kind, own.parameters)


def test_what_we_converted(tmp_path: Path) -> None:
    convert(GOLDEN / "tiny_hf", tmp_path / "to", Settings(Scheme(4, 32, "mxfp4")))
    report = inspect_model(tmp_path / "to")
    assert (report.layout, report.problems) == ("ours", ())
    assert codes(report.parts)["experts"] == "4-bit mxfp4, groups of 32"
    assert codes(report.parts)["embeddings"] == "8-bit affine, groups of 32"


def test_the_first_text_release_counts_layers_twice(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["vision_config"]
    config |= {"model_type": "zaya", "num_hidden_layers": 8, "cca_num_q_heads": 4}
    (folder / "config.json").write_text(json.dumps(config))
    assert inspect_model(folder).layers == 4


def test_other_models(tmp_path: Path, make_llama: Callable[..., Path]) -> None:
    folder = make_llama(tmp_path / "llama")
    report = inspect_model(folder)
    assert (report.layout, report.layout_title) == ("hub", "hub checkpoint of another model")
    assert (report.model_type, report.layers, report.sees) == ("llama", 2, False)
    assert report.problems == ()
    assert report.thinks
    assert {"attention", "feed-forward", "embeddings"} <= set(codes(report.parts))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization": {"bits": 4, "group_size": 64}}))
    assert inspect_model(folder).layout == "mlx-lm"


def _without(folder: Path, *names: str) -> None:
    tensors = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), {n: x for n, x in tensors.items() if n not in names})


def _shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")


def _again(folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", folder / "model-more.safetensors")


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer: none of tokenizer.json"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights: no model*.safetensors"),
        (_shards, "2 of 3 weight files are not there: model-00002-of-00003.safetensors, model-00003-of"),
        (_cut, "is cut off: 1,087,560 of 1,087,569 bytes are there"),
        (
            lambda f: _without(f, "model.final_norm.weight", "model.layers.1.attn.input_norm.weight"),
            "2 tensors missing: model.layers.1.attn.input_norm.weight [64]; model.final_norm.weight [64]",
        ),
        (
            lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"silu"', '"relu"')),
            "hidden_act is 'relu'",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "index.json cannot be read"),
        (_again, "289 tensors are in model-more.safetensors and again in model.safetensors"),
        (lambda f: (f / "tokenizer.json").write_text('{"version": '), "tokenizer.json cannot be read"),
        (lambda f: (f / "generation_config.json").write_text("["), "generation_config.json cannot be read"),
        (lambda f: (f / "preprocessor_config.json").write_text("{"), "preprocessor_config.json cannot be read"),
        (lambda f: (f / "preprocessor_config.json").write_text('{"min_pixels": -4}'), "min_pixels is -4, not a pos"),
    ],
)
def test_what_is_missing(folder: Path, damage: Callable[[Path], object], problem: str) -> None:
    damage(folder)
    report = inspect_model(folder)
    assert any(problem in told for told in report.problems), report.problems


def test_shards_that_are_there_are_told_of(folder: Path) -> None:
    """The tensors of the absent ones are missing, too: the first five are named."""
    tensors = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(tensors)
    (folder / "model.safetensors").unlink()
    first = {name: x for name, x in tensors.items() if ".layers.3." not in name}
    mx.save_safetensors(str(folder / "model-00001-of-00002.safetensors"), first)
    report = inspect_model(folder)
    absent, missing = report.problems
    assert absent == "1 of 2 weight files are not there: model-00002-of-00002.safetensors"
    assert "tensors missing: model.layers.3." in missing
    assert "and 59 more" in missing
    assert report.parameters == sum(x.size for x in first.values())
    assert report.layers == 4


def test_an_unfinished_conversion(tmp_path: Path) -> None:
    class Crash(BaseException):
        pass

    def crash(_: object) -> None:
        raise Crash

    with pytest.raises(Crash):
        convert(GOLDEN / "tiny_hf", tmp_path / "to", Settings(Scheme(4, 32)), crash)
    assert any("an unfinished conversion" in problem for problem in inspect_model(tmp_path / "to").problems)


def test_an_empty_folder_and_no_folder(tmp_path: Path) -> None:
    report = inspect_model(tmp_path)
    assert (report.layout, report.sees, report.thinks, report.parameters) == (None, None, None, 0)
    assert len(report.problems) == 3
    with pytest.raises(ModelError, match="is not a folder"):
        inspect_model(tmp_path / "absent")


def test_locate_neither_fetches_nor_judges(tmp_path: Path) -> None:
    assert locate("nano") == NANO
    assert locate(tmp_path) == tmp_path
    assert locate("./nowhere") == Path("nowhere")
