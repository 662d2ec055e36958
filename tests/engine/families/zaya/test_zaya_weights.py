"""Checkpoints in each naming, and what a broken one is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from engine.errors import CheckpointError, ModelError
from engine.families.zaya import ModelArgs, load
from engine.families.zaya.tensors import fuse_convs

Tensors = dict[str, mx.array]
LAYERS, EXPERTS = 3, 2

VL: dict[str, Any] = {
    "model_type": "zaya1_vl",
    "vocab_size": 40,
    "hidden_size": 24,
    "ffn_hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_experts": EXPERTS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_query_groups": 2,
    "head_dim": 8,
    "zaya_mlp_expansion": 12,
    "norm_epsilon": 1e-5,
    "rotary_base": 1000000,
    "rope_pct": 0.5,
    "tie_word_embeddings": True,
}
LEGACY = {k: v for k, v in VL.items() if k not in ("rotary_base", "rope_pct", "head_dim", "num_key_value_heads")} | {
    "model_type": "zaya",
    "num_hidden_layers": 2 * LAYERS,
    "num_attention_heads": 99,
    "cca_num_q_heads": 4,
    "kv_channels": 8,
    "rope_theta": 1000000,
    "partial_rotary_factor": 0.5,
}
NATIVE = {
    "model_type": "zaya",
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "moe_intermediate_size": 16,
    "num_experts": EXPERTS,
    "router_hidden_size": 12,
    "layer_types": ["hybrid"] * LAYERS,
    "rope_parameters": {
        "hybrid": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
        "rope_type": "default",
    },
}
PROMPT = mx.array([[1, 5, 9, 30, 2, 2, 17]])


def vl_tensors() -> Tensors:
    """Random tensors in the authors' vision-language naming."""
    h, d, c = 24, 8, 48
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (40, h), "model.final_norm.weight": (h,)}
    scales = ["hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias"]
    shapes |= {f"model.res_scale.{name}": (h,) for name in scales}
    for n in range(LAYERS):
        attn, qkv = f"model.layers.{n}.attn", f"model.layers.{n}.attn.self_attn.qkv"
        mlp, router = f"model.layers.{n}.mlp", f"model.layers.{n}.mlp.zaya_block.router"
        shapes |= {f"{attn}.res_scale.{name}": (h,) for name in scales[: 4 if n else 2]}
        shapes |= {f"{mlp}.res_scale.{name}": (h,) for name in scales}
        shapes |= {f"{part}.input_norm.weight": (h,) for part in (attn, mlp)}
        shapes |= {f"{qkv}.linear_q.weight": (32, h), f"{qkv}.linear_k.weight": (16, h), f"{qkv}.temp": (2,)}
        shapes |= {f"{qkv}.val_proj{i}.weight": (8, h) for i in (1, 2)}
        shapes |= {f"{qkv}.conv_qk.0.weight": (c, 1, 2), f"{qkv}.conv_qk.0.bias": (c,)}
        shapes |= {f"{qkv}.conv_qk.1.weight": (c, d, 2), f"{qkv}.conv_qk.1.bias": (c,)}
        shapes |= {f"{attn}.self_attn.o_proj.weight": (h, 32)}
        shapes |= {f"{router}.down_proj.weight": (12, h), f"{router}.down_proj.bias": (12,)}
        shapes |= {f"{router}.rmsnorm_eda.weight": (12,), f"{router}.balancing_biases": (EXPERTS + 1,)}
        shapes |= {f"{router}.router_states_scale": (12,)} if n else {}
        shapes |= {f"{router}.router_mlp.{i}.weight": (12, 12) for i in (0, 2)}
        shapes |= {f"{router}.router_mlp.{i}.bias": (12,) for i in (0, 2)}
        shapes |= {f"{router}.router_mlp.4.weight": (EXPERTS + 1, 12)}
        for e in range(EXPERTS):
            expert = f"{mlp}.zaya_block.experts.local_experts.{e}"
            shapes |= {f"{expert}.linear_fc1.weight": (32, h), f"{expert}.linear_fc2.weight": (h, 16)}
    generator = np.random.default_rng(0)
    return {
        name: mx.array(generator.normal(0.0, 0.3, shape).astype(np.float32) + (name.endswith("norm.weight")))
        for name, shape in shapes.items()
    }


def legacy_tensors() -> Tensors:
    """The same in the first text release's naming: one index per sub-layer."""

    def rename(match: re.Match[str]) -> str:
        return f"model.layers.{2 * int(match[1]) + ('attn', 'mlp').index(match[2])}."

    return {re.sub(r"^model\.layers\.(\d+)\.(attn|mlp)\.", rename, name): x for name, x in vl_tensors().items()}


def native_tensors() -> Tensors:
    """The same in transformers' naming: experts stacked, residual scales moved to the sub-layer before."""
    parts = [
        (r"^model\.layers\.0\.attn\.res_scale\.", "model.input_"),
        (r"^model\.res_scale\.", f"model.layers.{LAYERS - 1}.post_mlp_residual_scale."),
        (r"mlp\.res_scale\.", "post_attention_residual_scale."),
        (r"attn\.input_norm", "input_layernorm"),
        (r"mlp\.input_norm", "post_attention_layernorm"),
        (r"model\.final_norm", "model.norm"),
        (r"attn\.self_attn\.o_proj", "self_attn.o_proj"),
        (r"attn\.self_attn\.qkv\.temp", "self_attn.qk_norm.temp"),
        (r"attn\.self_attn\.qkv\.linear_(.)", r"self_attn.qkv_proj.\1_proj"),
        (r"attn\.self_attn\.qkv\.val_proj1", "self_attn.qkv_proj.v_proj_current"),
        (r"attn\.self_attn\.qkv\.val_proj2", "self_attn.qkv_proj.v_proj_delayed"),
        (r"attn\.self_attn\.qkv\.conv_qk\.0", "self_attn.qkv_proj.conv_qk_depthwise"),
        (r"attn\.self_attn\.qkv\.conv_qk\.1", "self_attn.qkv_proj.conv_qk_grouped"),
        (r"zaya_block\.router\.rmsnorm_eda", "gate.router_mlp.norm"),
        (r"zaya_block\.router\.router_mlp\.0", "gate.router_mlp.fc1"),
        (r"zaya_block\.router\.router_mlp\.2", "gate.router_mlp.fc2"),
        (r"zaya_block\.router\.router_mlp\.4", "gate.router_mlp.out_proj"),
        (r"zaya_block\.router", "gate"),
    ]
    tensors = vl_tensors()
    for n in range(LAYERS):
        for fc, native in (("linear_fc1", "gate_up_proj"), ("linear_fc2", "down_proj")):
            local = f"model.layers.{n}.mlp.zaya_block.experts.local_experts"
            experts = [tensors.pop(f"{local}.{e}.{fc}.weight") for e in range(EXPERTS)]
            tensors[f"model.layers.{n}.mlp.experts.{native}"] = mx.stack(experts)
    renamed = {}
    for name, x in tensors.items():
        moved = re.match(r"model\.layers\.([1-9]\d*)\.attn\.res_scale\.(.*)", name)
        native_name = f"model.layers.{int(moved[1]) - 1}.post_mlp_residual_scale.{moved[2]}" if moved else name
        for pattern, replacement in parts:
            native_name = re.sub(pattern, replacement, native_name)
        renamed[native_name] = x
    return renamed


def save(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Callable[[Tensors], object]], str]:
    """The message for a checkpoint whose tensors were changed so."""

    def run(change: Callable[[Tensors], object]) -> str:
        tensors = vl_tensors()
        change(tensors)
        with pytest.raises(CheckpointError) as caught:
            load(save(tmp_path / "model", VL, tensors))
        return str(caught.value)

    return run


# ---- namings ---------------------------------------------------------------------------------------------------


def test_all_namings_are_the_same_model(tmp_path: Path) -> None:
    logits = [
        np.array(load(save(tmp_path / name, config, tensors))[0](PROMPT))
        for name, config, tensors in (
            ("vl", VL, vl_tensors()),
            ("legacy", LEGACY, legacy_tensors()),
            ("native", NATIVE, native_tensors()),
        )
    ]
    assert np.abs(logits[0]).max() > 0.1
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


def test_convolutions_in_the_layout_of_mlx(tmp_path: Path) -> None:
    tensors = {n: x.swapaxes(1, 2) if ".conv_qk." in n and x.ndim == 3 else x for n, x in vl_tensors().items()}
    expected = load(save(tmp_path / "torch", VL, vl_tensors()))[0](PROMPT)
    actual = load(save(tmp_path / "mlx", VL, tensors))[0](PROMPT)
    np.testing.assert_array_equal(np.array(actual), np.array(expected))


def test_vision_tensors_are_left_out_knowingly(tmp_path: Path) -> None:
    lora = "model.layers.0.attn.self_attn"
    extra = {
        "vision_tower.patch_embed.proj.weight": mx.zeros((2, 3, 1, 14, 14)),
        f"{lora}.qkv.lora_linear_q.0.weight": mx.zeros((4, 24)),
        f"{lora}.lora_linear_o.1.weight": mx.zeros((24, 4)),
        "model.layers.1.mlp.zaya_block.experts.local_experts.1.lora_fc2.1.weight": mx.zeros((24, 4)),
        "lm_head.weight": mx.zeros((40, 24)),  # tied: written twice by some
    }
    load(save(tmp_path / "model", VL, vl_tensors() | extra))


def test_an_untied_head_is_used(tmp_path: Path) -> None:
    config = VL | {"tie_word_embeddings": False}
    model, _ = load(save(tmp_path / "model", config, vl_tensors() | {"lm_head.weight": mx.zeros((40, 24))}))
    assert float(mx.abs(model(PROMPT)).max()) == 0.0


def test_shards_are_read_by_the_index(tmp_path: Path) -> None:
    tensors = vl_tensors()
    names = sorted(tensors)
    folder = save(tmp_path / "model", VL, tensors)
    expected = load(folder)[0](PROMPT)
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        mx.save_safetensors(str(folder / file), part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    np.testing.assert_array_equal(np.array(load(folder)[0](PROMPT)), np.array(expected))


def test_temperatures_stored_as_logarithms(tmp_path: Path) -> None:
    tensors = vl_tensors()
    plain, logs = dict(tensors), dict(tensors)
    for name in (n for n in tensors if n.endswith(".temp")):
        logs[name], plain[name] = mx.array([0.5, 3.0]), mx.exp(mx.array([0.5, 2.0]))
    actual = load(save(tmp_path / "logs", VL | {"clamp_temp": True}, logs))[0](PROMPT)
    expected = load(save(tmp_path / "plain", VL, plain))[0](PROMPT)
    np.testing.assert_array_equal(np.array(actual), np.array(expected))


def test_small_tensors_stay_float32(tmp_path: Path) -> None:
    model, _ = load(save(tmp_path / "model", VL, vl_tensors()), dtype=mx.bfloat16)
    layer = model.layers[1]
    assert layer.attn.self_attn.qkv.weight.dtype == mx.bfloat16
    assert layer.mlp.zaya_block.experts.switch_mlp.down_proj.weight.dtype == mx.bfloat16
    small = (
        layer.mlp.zaya_block.router.fc1.weight,
        layer.mlp.zaya_block.router.balancing_biases,
        layer.mlp.res_scale.residual_scale,
        layer.attn.input_norm.weight,
        layer.attn.self_attn.conv.weight,
        layer.attn.self_attn.temp,
        model.model.final_norm.weight,
    )
    assert {x.dtype for x in small} == {mx.float32}


def test_the_fused_convolution_equals_the_two() -> None:
    """Against the definition, step by step, from zeros before the first token."""
    rng = np.random.default_rng(1)
    heads, d, length = 3, 4, 6
    w0, b0 = rng.normal(size=(heads * d, 1, 2)), rng.normal(size=heads * d)
    w1, b1 = rng.normal(size=(heads * d, d, 2)), rng.normal(size=heads * d)
    u = np.concatenate([np.zeros((2, heads * d)), rng.normal(size=(length, heads * d))])
    first = w0[:, 0, 0] * u[:-1] + w0[:, 0, 1] * u[1:] + b0  # [length + 1, C]
    grouped = first.reshape(length + 1, heads, d)
    kernel = w1.reshape(heads, d, d, 2)
    expected = sum(np.einsum("ngi,goi->ngo", grouped[t : length + t], kernel[..., t]) for t in (0, 1))
    expected = expected + b1.reshape(heads, d)

    weight, bias = fuse_convs(*(mx.array(x.astype(np.float32)) for x in (w0, b0, w1, b1)), head_dim=d)
    windows = np.stack([u[t : t + 3].reshape(3, heads, d).transpose(1, 0, 2).reshape(heads, -1) for t in range(length)])
    actual = np.einsum("ngi,gio->ngo", windows, np.array(weight)) + np.array(bias)[:, 0]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# ---- broken tensors --------------------------------------------------------------------------------------------


def test_missing_tensors_are_named(broken: Callable[..., str]) -> None:
    message = broken(lambda t: [t.pop(n) for n in list(t) if n.startswith("model.layers.2.")])
    assert "34 tensors missing: model.layers.2.attn.res_scale.hidden_states_scale [24]; " in message
    assert message.count("model.layers.2.") == 5
    assert "and 29 more." in message


def test_extra_tensors_are_named(broken: Callable[..., str]) -> None:
    message = broken(lambda t: t.update({"model.layers.3.attn.input_norm.weight": mx.zeros((24,))}))
    assert "1 tensor not part of this model: model.layers.3.attn.input_norm.weight [24]." in message


def test_misshapen_tensors_are_named(broken: Callable[..., str]) -> None:
    name = "model.layers.1.attn.self_attn.o_proj.weight"
    message = broken(lambda t: t.update({name: mx.zeros((24, 24))}))
    assert f"1 tensor of another shape than config.json says: {name} [24, 24], expected [24, 32]." in message


def test_another_models_tensors_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", VL, {"model.layers.0.self_attn.q_proj.weight": mx.zeros((2, 2))})
    with pytest.raises(CheckpointError, match=r"not the tensors of a ZAYA1 model; found model\.layers\.0"):
        load(folder)


# ---- broken folders --------------------------------------------------------------------------------------------


def _cut(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])


def _index(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "it is no JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no weights: no model\*\.safetensors"),
        (lambda f: _cut(f, 5), "not a safetensors file"),
        (lambda f: _cut(f, 1000), "cut off in its header"),
        (lambda f: _cut(f, -100), r"is cut off: [\d,]+ of [\d,]+ bytes are there"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"xx"), "unreadable safetensors header"),
        (lambda f: _index(f, '{"weight_map": {"a": "model-1.safetensors"}}'), r"not there \(model-1\.safetensors\)"),
        (lambda f: _index(f, "{}"), r"index\.json cannot be read"),
    ],
)
def test_broken_folders(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = save(tmp_path / "model", VL, vl_tensors())
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        load(tmp_path / "absent")


# ---- configurations --------------------------------------------------------------------------------------------


def test_the_three_dialects_say_the_same() -> None:
    vl, legacy, native = (ModelArgs.from_dict(config) for config in (VL, LEGACY, NATIVE))
    assert native == legacy
    assert vl.model_type == "zaya1_vl"
    assert {**vars(vl), "model_type": "zaya"} == vars(native)


def test_defaults_of_the_published_files() -> None:
    """Keys that the hub's files may leave out, because transformers knows them."""
    bare = {k: v for k, v in NATIVE.items() if k not in ("rope_parameters", "layer_types", "rms_norm_eps")}
    args = ModelArgs.from_dict(bare)
    assert (args.rope_theta, args.rope_dims, args.norm_eps) == (5e6, 4, 1e-5)
    no_base = ModelArgs.from_dict({k: v for k, v in VL.items() if k != "rotary_base"})
    assert no_base.rope_theta == 1e6


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (NATIVE, {"model_type": "llama"}, "model_type is 'llama'"),
        (NATIVE, {"vocab_size": None}, "vocab_size is missing"),
        (NATIVE, {"hidden_size": "64"}, "hidden_size is '64', not a positive whole number"),
        (NATIVE, {"num_experts": True}, "num_experts is True"),
        (NATIVE, {"rms_norm_eps": 0}, "rms_norm_eps is 0, not a positive number"),
        (NATIVE, {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        (NATIVE, {"num_experts_per_tok": 2}, "num_experts_per_tok is 2; only 1"),
        (NATIVE, {"sliding_window": 4096}, "sliding_window is 4096"),
        (NATIVE, {"layer_types": ["hybrid", "hybrid_sliding", "hybrid"]}, "layer_types has 'hybrid_sliding'"),
        (NATIVE, {"layer_types": ["hybrid"]}, "num_hidden_layers is 3 but layer_types has 1"),
        (NATIVE, {"num_key_value_heads": 3}, "4 query heads cannot share 3 key heads"),
        (NATIVE, {"num_key_value_heads": 1, "num_attention_heads": 1, "head_dim": 7}, "must be even"),
        (NATIVE, {"moe_intermediate_size": None}, "moe_intermediate_size or ffn_hidden_size is missing"),
        (NATIVE, {"ffn_hidden_size": 48}, r"ffn_hidden_size \(48\) is not twice moe_intermediate_size \(16\)"),
        (NATIVE, {"rope_parameters": 7}, "rope_parameters is 7"),
        (NATIVE, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is 'yarn'"),
        (NATIVE, {"rope_parameters": {"hybrid": {"rope_theta": 1e4, "partial_rotary_factor": 0.4}}}, "rotates 3"),
        (NATIVE, {"rope_parameters": {"hybrid": {}}}, "rope_theta is missing"),
        (VL, {"num_query_groups": 4}, "must agree and do not: num_key_value_heads = 2, num_query_groups = 4"),
        (VL, {"ffn_hidden_size": 33}, "ffn_hidden_size is 33"),
        (VL, {"rope_pct": 2.0}, "rotates 16 of 8"),
        (VL, {"zaya_use_mod": False}, "zaya_use_mod is False"),
        (LEGACY, {"num_hidden_layers": 7}, "num_hidden_layers is 7"),
        (LEGACY, {"cca_num_q_heads": [4, 0, 8]}, "cca_num_q_heads differs"),
        (LEGACY, {"swa_layers": [1]}, "swa_layers is"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(base: dict[str, Any], change: dict[str, Any], message: str) -> None:
    config = {k: v for k, v in (base | change).items() if v is not None}
    with pytest.raises(ModelError, match=message):
        ModelArgs.from_dict(config)


def test_query_heads_listed_per_layer() -> None:
    assert ModelArgs.from_dict(LEGACY | {"cca_num_q_heads": [4, 0, 4, 0, 4, 0]}).num_heads == 4
