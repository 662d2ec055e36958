"""The community's 4-bit bundles: the same model as their dequantised weights, quantised or not; and broken ones."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear

from engine.api import Completion, GenerationRequest, Message, SamplingParams
from engine.errors import CheckpointError, ModelError
from engine.families.zaya import Model, load, weights
from engine.loader import load_engine
from engine.mlx.quantised import Quantised, Scheme, join

Tensors = dict[str, mx.array]
IMAGE = 127
EXPERT = re.compile(r"(.*)\.zaya_block\.experts\.switch_mlp\.(gate|up|down)_proj\.weight")


@pytest.fixture(scope="session")
def bundle(golden: Path) -> Path:
    return golden / "tiny_jang"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """One to change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def dequantised(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's numbers as a hub checkpoint, made without any code of ours."""
    folder = tmp_path_factory.mktemp("models") / "dequantised"
    shutil.copytree(bundle, folder)
    (folder / "jang_config.json").unlink()
    config = json.loads((bundle / "config.json").read_text())
    for key in ("weight_format", "zaya_expert_layout", "quantization"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), as_hub(read(bundle)))
    return folder


def as_hub(tensors: Tensors) -> Tensors:
    """A bundle's tensors dequantised, experts one by one, under the hub's names."""
    floats: Tensors = {}
    for name, x in tensors.items():
        stem, _, last = name.rpartition(".")
        if f"{stem}.scales" not in tensors:
            floats[name] = x.astype(mx.float32)
        elif last == "weight":
            scales, biases = (tensors[f"{stem}.{kind}"].astype(mx.float32) for kind in ("scales", "biases"))
            floats[name] = mx.dequantize(x, scales, biases, 32, 8 if "embed" in name else 4)
    for name in [name for name in floats if name.endswith("gate_proj.weight") and EXPERT.match(name)]:
        gate, up, down = (floats.pop(name.replace("gate_proj", part)) for part in ("gate_proj", "up_proj", "down_proj"))
        block = name.split(".zaya_block")[0]
        for e in range(gate.shape[0]):
            expert = f"{block}.mlp.zaya_block.experts.local_experts.{e}"
            floats[f"{expert}.linear_fc1.weight"] = mx.concatenate([gate[e], up[e]])
            floats[f"{expert}.linear_fc2.weight"] = down[e]
    return floats


def read(folder: Path) -> Tensors:
    return dict(mx.load(str(folder / "model.safetensors")))


def write(folder: Path, tensors: Tensors) -> None:
    mx.eval(tensors)  # the file they come from is about to be replaced
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)


def text_logits(model: Model, golden: Path) -> np.ndarray:
    ids = np.load(golden / "tiny_vl_ref.npz")["text_ids"]
    return np.array(model(mx.array(ids.reshape(1, -1))))


def image_logits(model: Model) -> np.ndarray:
    """With image tokens, so that vision-LoRA takes part; what they show is random."""
    ids = mx.array([[2, 9, 125, *[IMAGE] * 6, 126, 4, 33]])
    features = mx.random.normal((6, 64), key=mx.random.key(3))
    embeddings, image_mask = model.embed(ids, features)
    return np.array(model(ids, input_embeddings=embeddings, image_mask=image_mask))


# ---- the same model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True], ids=["dequantised", "quantised"])
def test_logits_are_those_of_the_dequantised_weights(bundle: Path, dequantised: Path, golden: Path, keep: bool) -> None:
    expected, _ = load(dequantised)
    model, _ = load(bundle, keep_quantised=keep)
    np.testing.assert_allclose(text_logits(model, golden), text_logits(expected, golden), rtol=0, atol=1e-4)
    np.testing.assert_allclose(image_logits(model), image_logits(expected), rtol=0, atol=1e-4)
    assert np.abs(text_logits(model, golden)).max() > 10


@pytest.mark.parametrize(
    ("backend", "free", "stays"),
    [("cpu", 1 << 40, False), ("metal", 1 << 40, True), ("cuda", 1 << 40, False), ("cuda", 1 << 16, True)],
)
def test_where_quantised_matrices_stay_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str, free: int, stays: bool
) -> None:
    """On CUDA their products do not batch, so there they are dequantised if the memory allows."""
    monkeypatch.setattr(weights, "on_cpu", lambda: backend == "cpu")
    monkeypatch.setattr(weights, "free_memory_bytes", lambda: free)
    monkeypatch.setattr(mx.cuda, "is_available", lambda: backend == "cuda")
    model, _ = load(bundle)
    assert isinstance(model.model.embed_tokens, nn.QuantizedEmbedding) == stays
    if backend == "cuda" and not stays:
        assert model.dtype == mx.bfloat16


def test_what_is_computed_with_float16_scales_is_bfloat16(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values beyond float16's range, as a bundle has them that stays quantised on a GPU: the last experts' gates times
    their inputs. They overflow in the type of the scales, and not in the one that is chosen."""
    tensors = read(copy)
    loud = "model.layers.3.zaya_block.experts.switch_mlp.up_proj."
    assert tensors[f"{loud}scales"].dtype == mx.float16
    write(
        copy,
        {name: x * 30_000 if name.startswith(loud) and x.dtype == mx.float16 else x for name, x in tensors.items()},
    )
    assert all(np.isfinite(np.array(x)).all() for name, x in read(copy).items() if name.startswith(loud))
    monkeypatch.setattr(weights, "on_cpu", lambda: False)
    ids = mx.arange(5, 21)[None]
    overflowing, _ = load(copy, mx.float16, keep_quantised=True)
    assert not np.isfinite(np.array(overflowing(ids))).all()
    model, _ = load(copy, keep_quantised=True)
    caches = model.make_cache()
    assert np.isfinite(np.array(model(ids, cache=caches))).all()
    assert model.dtype == mx.bfloat16
    assert {x.dtype for cache in caches for x in (cache.keys, cache.values)} == {mx.bfloat16}


def test_on_a_cpu_everything_is_float32(bundle: Path) -> None:
    model, _ = load(bundle, mx.float32, keep_quantised=False)
    assert {x.dtype for _, x in tree_flatten(model.parameters())} == {mx.float32}


def test_what_stays_quantised(bundle: Path) -> None:
    model, _ = load(bundle, keep_quantised=True)
    modules = dict(model.named_modules())
    codes = {name: (m.bits, m.group_size) for name, m in modules.items() if hasattr(m, "bits")}
    layers = [f"model.layers.{n}" for n in range(4)]
    expected = {f"{layer}.attn.self_attn.{part}": (4, 32) for layer in layers for part in ("qkv", "o_proj")}
    experts = [
        f"{layer}.mlp.zaya_block.experts.switch_mlp.{p}" for layer in layers for p in ("gate_up_proj", "down_proj")
    ]
    assert codes == expected | dict.fromkeys(experts, (4, 32)) | {"model.embed_tokens": (8, 32)}
    assert isinstance(modules["model.embed_tokens"], nn.QuantizedEmbedding)
    assert all(isinstance(modules[name], nn.QuantizedLinear) for name in expected)
    assert all(isinstance(modules[name], QuantizedSwitchLinear) for name in experts)


def test_scales_are_of_the_type_that_is_asked_for_or_stored(bundle: Path) -> None:
    # float32 is the CPU's own choice; elsewhere it is what the file has.
    for dtype in (mx.float16, mx.bfloat16, mx.float32):
        model, _ = load(bundle, dtype, keep_quantised=True)
        layer = model.layers[1]
        assert layer.attn.self_attn.qkv.scales.dtype == layer.attn.self_attn.o_proj.biases.dtype == dtype
        assert model.model.embed_tokens.scales.dtype == model.dtype == dtype
        assert layer.mlp.zaya_block.router.fc1.weight.dtype == mx.float32


def test_rows_are_joined_without_being_dequantised(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dequantised matrices are all NaN here: a model that stays quantised has none of them in it."""
    expected, _ = load(bundle, keep_quantised=True)
    monkeypatch.setattr(Quantised, "dequantised", lambda self, dtype=None: mx.full(self.shape, mx.nan))
    model, _ = load(bundle, keep_quantised=True)
    for (name, x), (_, y) in zip(tree_flatten(model.parameters()), tree_flatten(expected.parameters()), strict=True):
        np.testing.assert_array_equal(np.array(x), np.array(y), err_msg=name)
    own = read(bundle)
    attention = "model.layers.2.attn.self_attn"
    rows = [own[f"{attention}.qkv.{part}.weight"] for part in ("linear_q", "linear_k", "val_proj2", "val_proj1")]
    np.testing.assert_array_equal(np.array(model.layers[2].attn.self_attn.qkv.weight), np.concatenate(rows))
    experts = "model.layers.2.zaya_block.experts.switch_mlp"
    rows = [own[f"{experts}.{part}_proj.scales"].astype(mx.float32) for part in ("gate", "up")]
    joined = model.layers[2].mlp.zaya_block.experts.switch_mlp.gate_up_proj
    np.testing.assert_array_equal(np.array(joined.scales), np.concatenate(rows, axis=1))


def test_joined_rows_multiply_as_they_did_apart() -> None:
    parts = [Quantised.of(mx.random.normal((rows, 64), key=mx.random.key(rows)), Scheme(4, 32)) for rows in (8, 24, 1)]
    joined = join(parts)
    assert joined is not None
    np.testing.assert_array_equal(
        np.array(joined.dequantised()), np.concatenate([np.array(part.dequantised()) for part in parts])
    )
    assert join([parts[0], Quantised.of(mx.zeros((4, 64)), Scheme(8, 32))]) is None
    assert join([parts[0], Quantised.of(mx.zeros((4, 64)), Scheme(4, 64))]) is None
    assert join([parts[0], parts[1].cast(mx.float16)]) is None


def test_parts_that_have_no_common_code_become_floats(copy: Path, golden: Path) -> None:
    """One projection in 8 bits: its module is dequantised, all others stay as they are."""
    tensors = read(copy)
    name = "model.layers.1.attn.self_attn.qkv.linear_k"
    dense = mx.random.normal((32, 64), key=mx.random.key(1))
    for kind, x in Quantised.of(dense.astype(mx.float16), Scheme(8, 32)).tensors(name).items():
        tensors[kind] = x
    write(copy, tensors)
    model, _ = load(copy, keep_quantised=True)
    layer = model.layers[1].attn.self_attn
    assert isinstance(layer.qkv, nn.Linear)
    assert isinstance(layer.o_proj, nn.QuantizedLinear)
    plain, _ = load(copy, keep_quantised=False)
    np.testing.assert_allclose(text_logits(model, golden), text_logits(plain, golden), rtol=0, atol=1e-4)


def test_experts_with_the_whole_of_their_names(copy: Path, bundle: Path, golden: Path) -> None:
    write(copy, {name.replace(".zaya_block.experts.switch", ".mlp.zaya_block.experts.switch"): x
                 for name, x in read(copy).items()})  # fmt: skip
    expected, _ = load(bundle)
    np.testing.assert_array_equal(text_logits(load(copy)[0], golden), text_logits(expected, golden))


def test_a_bundle_of_a_text_model(copy: Path, golden: Path, tmp_path: Path) -> None:
    """One index per sub-layer, so that the experts' names are whole; no vision, no LoRA, no jang_config.json."""

    def as_legacy(name: str) -> str:
        match = re.match(r"model\.layers\.(\d+)\.(attn|mlp|zaya_block)\.(.*)", name)
        if match is None:
            return name
        rest = match[3] if match[2] != "zaya_block" else f"zaya_block.{match[3]}"
        return f"model.layers.{2 * int(match[1]) + (match[2] != 'attn')}.{rest}"

    config = json.loads((copy / "config.json").read_text())
    del config["vision_config"]
    config |= {"model_type": "zaya", "num_hidden_layers": 8, "cca_num_q_heads": 4, "num_attention_heads": 16}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "jang_config.json").unlink()
    text = {name: x for name, x in read(copy).items() if "vision_tower" not in name and ".lora_" not in name}
    write(copy, {as_legacy(name): x for name, x in text.items()})
    expected, _ = load(golden / "tiny_jang")
    for keep in (False, True):
        model, _ = load(copy, keep_quantised=keep)
        np.testing.assert_allclose(text_logits(model, golden), text_logits(expected, golden), rtol=0, atol=1e-4)


@pytest.mark.anyio
async def test_the_engine_runs_a_bundle(bundle: Path, dequantised: Path) -> None:
    said = []
    for folder in (bundle, dequantised):
        engine = load_engine(folder)
        request = GenerationRequest(
            id="r", messages=(Message(role="user", text="abc"),), sampling=SamplingParams(temperature=0.0, max_tokens=8)
        )
        async with engine.generate([request]) as stream:
            said += [event.token_ids for event in stream_events([e async for e in stream])]
        assert engine.model.images
        await engine.aclose()
    assert said[0] == said[1]
    assert said[0]


def stream_events(events: list[Any]) -> list[Completion]:
    return [event for event in events if isinstance(event, Completion)]


# ---- reading ---------------------------------------------------------------------------------------------------


def _bytes_read() -> int:
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar")]
    return int(line.split()[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the process's reads, which Linux tells")
@pytest.mark.parametrize("keep", [False, True])
def test_every_byte_is_read_once(bundle: Path, keep: bool) -> None:
    load(bundle, keep_quantised=keep)  # imports read files too
    size = (bundle / "model.safetensors").stat().st_size
    before = _bytes_read()
    load(bundle, keep_quantised=keep)
    # The header is read twice, by us and by MLX: it is a tenth of so small a file.
    assert 0.95 * size < _bytes_read() - before < 1.25 * size


# ---- broken bundles --------------------------------------------------------------------------------------------


def _drop(*names: str) -> Callable[[Tensors], object]:
    return lambda tensors: [tensors.pop(name) for name in names]


EXPERTS = "model.layers.2.zaya_block.experts.switch_mlp"
QKV = "model.layers.0.attn.self_attn.qkv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop(f"{QKV}.linear_q.scales"), f"codes without their scales, {re.escape(QKV)}.linear_q.weight"),
        (_drop(f"{QKV}.linear_q.weight"), f"{re.escape(QKV)}.linear_q.scales is there without .*linear_q.weight"),
        (_drop(f"{QKV}.linear_q.biases"), f"{re.escape(QKV)}.linear_q.scales is there without .*linear_q.biases"),
        (
            _drop(*(f"{QKV}.linear_q.{kind}" for kind in ("weight", "scales", "biases"))),
            r"1 tensor missing: model.layers.0.attn.self_attn.qkv.linear_q.weight \[64, 64\]",
        ),
        (
            _drop(*(f"{EXPERTS}.up_proj.{kind}" for kind in ("weight", "scales", "biases"))),
            r"1 tensor missing: model.layers.2.zaya_block.experts.switch_mlp.up_proj.weight \[4, 32, 64\]",
        ),
        (
            lambda t: t.update({f"{QKV}.linear_k.{kind}": t[f"{QKV}.linear_q.{kind}"] for kind in
                                ("weight", "scales", "biases")}),
            r"linear_k.weight \[64, 64\], expected \[32, 64\]",
        ),
        (
            lambda t: t.update({f"{QKV}.linear_k.scales": mx.zeros((32, 4), mx.float16)}),
            r"The parts of .*linear_k are no affine quantisation in groups of 32.*scales \[32, 4\]",
        ),
        (
            _drop("model.layers.3.mlp.zaya_block.experts.local_experts.2.lora_fc1.0.weight"),
            r"1 tensor missing: .*local_experts.2.lora_fc1.0.weight",
        ),
        (lambda t: t.update({"model.more": mx.zeros((2,))}), r"1 tensor not part of this model: model.more \[2\]"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(copy: Path, change: Callable[[Tensors], object], message: str) -> None:
    tensors = read(copy)
    change(tensors)
    write(copy, tensors)
    with pytest.raises(CheckpointError, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("jang_config.json", {"version": 3}, "version 3; 2 is the only one"),
        ("jang_config.json", {"weight_format": "jangtq"}, "jang_config.json says 'jangtq' for weight_format"),
        ("jang_config.json", {"has_vision": False}, "jang_config.json says False for vision, where True was found"),
        ("jang_config.json", {"expert_layout": "stacked"}, "jang_config.json says 'stacked' for expert layout"),
        ("jang_config.json", {"quantization": {"bits": 2}}, "jang_config.json says 2 for bits, where 4 was found"),
        ("jang_config.json", {"quantization": {"embed_bits": 4}}, "says 4 for bits of the embeddings, where 8 was"),
        ("jang_config.json", {"quantization": {"group_size": 64}}, "says 64 for group size, where 32 was"),
        ("jang_config.json", {"quantization": {"method": "tq"}}, "says 'tq' for quantisation method"),
        ("config.json", {"weight_format": "jangtq2"}, "config.json says 'jangtq2' for weight_format"),
        ("config.json", {"quantization": {"bits": 3, "group_size": 32}}, "config.json says 3 for bits, where 4 was"),
        ("config.json", {"quantization": {"bits": 4}}, "group_size None"),
        ("config.json", {"quantization": {"group_size": 32, "mode": "jang"}}, "says 'jang' for quantisation method"),
        ("config.json", {"quantization": {"group_size": 64}}, "jang_config.json says 32 for group size, where 64"),
    ],
)
def test_settings_that_contradict_the_tensors(copy: Path, name: str, change: dict[str, Any], message: str) -> None:
    config = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        load(copy)


def test_the_bundles_own_settings_file_may_be_absent_but_not_unreadable(copy: Path) -> None:
    (copy / "jang_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"jang_config\.json cannot be read"):
        load(copy)
    (copy / "jang_config.json").unlink()
    load(copy)
