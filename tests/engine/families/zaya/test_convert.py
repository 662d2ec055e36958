"""Conversion: what is quantised, that it is as near as it can be, that all else comes along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from engine.families.zaya import get_model_classes, load
from engine.families.zaya.convert import convert
from engine.families.zaya.shards import Settings
from engine.loader import NANO
from engine.mlx.quantised import GROUP_SIZES, Quantised, Scheme, deviation

FOUR, EIGHT, MXFP4 = Scheme(4, 32), Scheme(8, 64), Scheme(4, 32, "mxfp4")
IDS = mx.array([[2, 9, 4, 33, 60, 5]])


def logits(folder: Path, **options: Any) -> np.ndarray:
    return np.array(load(folder, **options)[0](IDS))


# ---- what comes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [FOUR, EIGHT, MXFP4], ids=str)
def test_the_result_is_the_same_model_but_for_its_codes(vl: Path, tmp_path: Path, scheme: Scheme) -> None:
    """It is what MLX makes of each matrix of the original, which stays quantised or not to the same effect."""
    convert(vl, tmp_path / "to", Settings(scheme))
    original, _ = load(vl)
    model, _ = load(tmp_path / "to", keep_quantised=True)
    modules = dict(model.named_modules())
    originals = dict(tree_flatten(original.parameters()))
    for name, x in tree_flatten(model.parameters()):
        path, _, kind = name.rpartition(".")
        if not hasattr(modules[path], "bits"):
            np.testing.assert_array_equal(np.array(x), np.array(originals[name]), err_msg=name)
        elif kind == "weight":
            own = Scheme(8, min(scheme.group_size, 64)) if "embed" in path else scheme
            code = Quantised.of(originals[name], Scheme(own.bits, modules[path].group_size, own.mode))
            np.testing.assert_array_equal(np.array(x), np.array(code.weight), err_msg=name)
    assert {type(modules[path]).__name__ for path in modules if hasattr(modules[path], "bits")} == {
        "QuantizedLinear", "QuantizedSwitchLinear", "QuantizedEmbedding",
    }  # fmt: skip
    np.testing.assert_allclose(np.array(model(IDS)), logits(tmp_path / "to"), rtol=0, atol=1e-4)


def test_eight_bits_are_near_the_original(vl: Path, tmp_path: Path) -> None:
    result = convert(vl, tmp_path / "to", Settings(Scheme(8, 32)))
    difference = np.abs(logits(tmp_path / "to") - logits(vl)).max()
    assert 0 < difference < 0.5
    assert 0 < result.mean_error <= result.worst_error < 0.01
    assert result.modules == 4 * 4 + 1
    assert result.nbytes < result.source_nbytes
    assert result.kept == ()


def test_what_stays_float(vl: Path, tmp_path: Path) -> None:
    convert(vl, tmp_path / "to", Settings(MXFP4))
    quantised = {
        n.removesuffix(".scales") for n in mx.load(str(tmp_path / "to" / "model.safetensors")) if "scales" in n
    }
    layers = [f"model.layers.{n}" for n in range(4)]
    assert quantised == {"model.embed_tokens"} | {
        f"{layer}.{part}"
        for layer in layers
        for part in (
            "attn.self_attn.qkv", "attn.self_attn.o_proj",
            "mlp.zaya_block.experts.switch_mlp.gate_up_proj", "mlp.zaya_block.experts.switch_mlp.down_proj",
        )
    }  # fmt: skip
    config = json.loads((tmp_path / "to" / "config.json").read_text())
    embedding = {"group_size": 32, "bits": 8, "mode": "affine"}
    assert config["quantization"] == {"group_size": 32, "bits": 4, "mode": "mxfp4", "model.embed_tokens": embedding}
    assert config["vision_config"]


def test_all_namings_become_the_same(tmp_path: Path) -> None:
    """The built-in model is in transformers' naming."""
    result = convert(NANO, tmp_path / "to", Settings(Scheme(8, 64)))
    assert result.worst_error < 0.02
    again = tmp_path / "again"
    # Saved under our own names and unquantised, it is a source like any other.
    model, _ = load(NANO, mx.bfloat16)
    again.mkdir()
    mx.save_safetensors(str(again / "model.safetensors"), dict(tree_flatten(model.parameters())))
    shutil.copy(NANO / "config.json", again)
    convert(again, tmp_path / "to-2", Settings(Scheme(8, 64)))
    np.testing.assert_array_equal(logits(tmp_path / "to-2"), logits(tmp_path / "to"))


def test_mlx_lm_reads_the_result(tmp_path: Path) -> None:
    convert(NANO, tmp_path / "to", Settings(FOUR))
    model, config = load_model(tmp_path / "to", get_model_classes=get_model_classes)
    model.set_dtype(mx.float32)
    assert config["quantization"]["bits"] == 4
    expected = logits(tmp_path / "to", keep_quantised=True)
    np.testing.assert_allclose(np.array(model(IDS)), expected, rtol=0, atol=1e-3)


def test_types(vl: Path, tmp_path: Path) -> None:
    for dtype, expected in {"bf16": mx.bfloat16, "f16": mx.float16, None: mx.float32}.items():
        folder = tmp_path / str(dtype)
        convert(vl, folder, Settings(FOUR, dtype))
        found = dict(mx.load(str(folder / "model.safetensors")))
        assert found["model.embed_tokens.scales"].dtype == expected
        assert found["model.layers.1.attn.self_attn.o_lora.up"].dtype == expected
        assert found["vision_tower.merger.mlp.0.weight"].dtype == expected
        assert found["model.layers.0.attn.self_attn.conv.weight"].dtype == mx.float32
        assert found["model.layers.0.mlp.zaya_block.router.fc1.weight"].dtype == mx.float32


def test_group_sizes_follow_the_widths(vl: Path, tmp_path: Path) -> None:
    """Hidden 64, inner 32: groups of 64 where they fit, of 32 where they do not."""
    convert(vl, tmp_path / "to", Settings(Scheme(4, 64)))
    config = json.loads((tmp_path / "to" / "config.json").read_text())["quantization"]
    assert config["group_size"] == 64
    down = "model.layers.1.mlp.zaya_block.experts.switch_mlp.down_proj"
    assert config[down] == {"group_size": 32, "bits": 4, "mode": "affine"}
    load(tmp_path / "to", keep_quantised=True)


def test_matrices_that_no_group_size_divides_stay_float(tmp_path: Path, vl: Path) -> None:
    """Groups of 64 alone: with an inner width of 32, one of each expert's two matrices has none."""
    source = Path(shutil.copytree(vl, tmp_path / "from"))
    scheme = Scheme(4, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GROUP_SIZES, "affine", (64, 128))
        result = convert(source, tmp_path / "to", Settings(scheme))
    assert result.kept == tuple(f"model.layers.{n}.mlp.zaya_block.experts.switch_mlp.down_proj" for n in range(4))
    load(tmp_path / "to", keep_quantised=True)


def test_other_files_come_along(vl: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(vl, tmp_path / "from"))
    for name in ("README.md", "chat_template.jinja", "merges.txt", "model.py"):
        (source / name).write_text(name)
    (source / "original").mkdir()
    convert(source, tmp_path / "to", Settings(FOUR))
    names = {file.name for file in (tmp_path / "to").iterdir()}
    assert names == {
        "config.json", "conversion.json", "model.safetensors", "model.safetensors.index.json", "chat_template.jinja",
        "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
        "preprocessor_config.json",
    }  # fmt: skip
    assert (tmp_path / "to" / "tokenizer.json").read_bytes() == (vl / "tokenizer.json").read_bytes()


def test_loading_takes_little_more_memory_than_the_model(tmp_path: Path) -> None:
    """Parameter by parameter, whether stored so or quantised; the largest is a sixteenth of this model."""
    convert(NANO, tmp_path / "to", Settings(FOUR))
    for folder in (NANO, tmp_path / "to"):
        size = (folder / "model.safetensors").stat().st_size
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        model, _ = load(folder, mx.bfloat16, keep_quantised=True)
        assert mx.get_peak_memory() - before < 1.3 * size
        del model


# ---- how near --------------------------------------------------------------------------------------------------

MATRICES = st.tuples(
    st.integers(0, 2**31),
    st.sampled_from(["normal", "positive", "far from zero", "outliers", "constant", "zero"]),
    st.floats(-3, 2),
)


def matrix(seed: int, kind: str, exponent: float) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(6, 128))
    shaped = {
        "normal": x,
        "positive": np.abs(x),
        "far from zero": x + 10,
        "outliers": np.where(np.abs(x) > 2, 50 * x, 0.01 * x),
        "constant": np.ones_like(x),
        "zero": np.zeros_like(x),
    }
    return (shaped[kind] * 10.0**exponent).astype(np.float32)


@example((0, "outliers", -2.0), EIGHT, mx.float16)  # scales so small that float16 rounds them coarsely
@settings(max_examples=60, deadline=None)
@given(
    MATRICES,
    st.sampled_from([FOUR, EIGHT, MXFP4, Scheme(2, 32), Scheme(3, 128), Scheme(6, 64)]),
    st.sampled_from([mx.float32, mx.bfloat16, mx.float16]),
)
def test_no_number_is_further_off_than_its_code_allows(
    made: tuple[int, str, float], scheme: Scheme, dtype: mx.Dtype
) -> None:
    x = mx.array(matrix(*made)).astype(dtype)
    found = deviation(x, Quantised.of(x, scheme))
    assert found.within_bounds
    expected = Quantised.of(x, scheme).dequantised(mx.float32) - x.astype(mx.float32)
    total = float(mx.sum(x.astype(mx.float32) ** 2))
    assert found.relative == pytest.approx((float(mx.sum(expected**2)) / total) ** 0.5 if total else 0.0, rel=1e-4)


@pytest.mark.parametrize("scheme", [FOUR, EIGHT, MXFP4], ids=str)
def test_a_wrong_number_is_noticed(scheme: Scheme) -> None:
    x = mx.array(matrix(1, "normal", -1.0))
    code = Quantised.of(x, scheme)
    flipped = np.array(code.weight)
    flipped[3, 2] ^= 0x88888888  # the top bit of some numbers, whatever their width
    assert not deviation(x, Quantised(mx.array(flipped), code.scales, code.biases, scheme)).within_bounds
    changed = np.array(x)
    changed[5, 100] = np.nan
    assert not deviation(mx.array(changed), Quantised.of(x, scheme)).within_bounds


def test_large_matrices_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = mx.array(matrix(2, "normal", 0.0)).reshape(2, 3, 128)
    code = Quantised.of(x, FOUR)
    whole = deviation(x, code)
    monkeypatch.setattr("engine.mlx.quantised._CHUNK_NUMBERS", 256)
    parts = deviation(x, code)
    assert parts.relative == pytest.approx(whole.relative)
    assert parts.within_bounds
