"""What a configuration says of images: the hub's spellings, defaults, mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelError
from engine.families.zaya import ModelArgs
from engine.families.zaya.tensors import expected_tensors
from engine.vision.config import VisionArgs

# The keys of the published ZAYA1-VL-8B (flat, Megatron's names).
HUB: dict[str, Any] = {
    "model_type": "zaya1_vl",
    "vocab_size": 262272,
    "hidden_size": 2048,
    "ffn_hidden_size": 4096,
    "num_hidden_layers": 40,
    "num_experts": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_query_groups": 2,
    "head_dim": 128,
    "moe_router_topk": 1,
    "zaya_mlp_expansion": 256,
    "norm_epsilon": 1e-5,
    "max_position_embeddings": 32768,
    "rotary_base": 1000000,
    "rope_pct": 0.5,
    "tie_word_embeddings": True,
    "vision_lora": True,
    "vision_lora_rank_attn": 8,
    "vision_lora_rank_mlp": 32,
    "residual_in_fp32": False,
    "image_token_id": 262147,
    "vision_start_token_id": 255999,
    "vision_end_token_id": 256000,
    "temporal_patch_size": 2,  # at the top level it says nothing
    "vision_config": {
        "model_type": "qwen2_5_vl",
        "hidden_size": 1280,
        "out_hidden_size": 2048,
        "spatial_patch_size": 14,
        "temporal_patch_size": 1,
        "in_chans": 3,
    },
}


def without(*keys: str) -> dict[str, Any]:
    return {k: v for k, v in HUB.items() if k not in keys}


def test_the_published_configuration() -> None:
    args = ModelArgs.from_dict(HUB)
    assert args.vision == VisionArgs()
    assert args.vision.patch_values == 588
    assert (args.image_token_id, args.vision_start_id, args.vision_end_id) == (262147, 255999, 256000)
    assert (args.lora_rank_attn, args.lora_rank_mlp) == (8, 32)
    assert args.image_mask == "prefix"
    assert args.residual_in_fp32 is False


def test_the_published_tensors() -> None:
    """As many as the hub's files hold: no head of its own, no scale of the stream before the first sub-layer."""
    tensors = expected_tensors(ModelArgs.from_dict(HUB), "vl")
    tower = [name for name in tensors if name.startswith("vision_tower.")]
    assert (len(tensors), len(tower)) == (5833, 390)
    assert sum(".lora_" in name for name in tensors) == 2960
    assert sum(".router." in name for name in tensors) == 399
    assert sum(".local_experts." in name for name in tensors) == 3840
    assert sum(math.prod(shape) for name, shape in tensors.items() if name not in tower) == pytest.approx(9.054e9, 1e-4)
    assert "lm_head.weight" not in tensors


def test_what_it_may_leave_out() -> None:
    left_out = [key for key in HUB if key.startswith(("vision_lora", "image_token", "vision_start", "vision_end"))]
    assert ModelArgs.from_dict(without(*left_out) | {"vision_config": {}}) == ModelArgs.from_dict(HUB)


def test_both_layouts_of_the_tiny_model_say_the_same(golden: Path) -> None:
    plain, bundle = (json.loads((golden / name / "config.json").read_text()) for name in ("tiny_hf", "tiny_jang"))
    args = ModelArgs.from_dict(plain)
    assert args == ModelArgs.from_dict(bundle)
    assert args.vision is not None
    assert args.vision.full_attention_blocks == (1,)


def test_without_a_vision_config_it_is_a_text_model() -> None:
    args = ModelArgs.from_dict(without("vision_config"))
    assert args.vision is None
    assert (args.image_token_id, args.lora_rank_attn, args.lora_rank_mlp) == (None, 0, 0)


def test_lora_may_be_off() -> None:
    args = ModelArgs.from_dict(HUB | {"vision_lora": False})
    assert args.vision is not None
    assert (args.lora_rank_attn, args.lora_rank_mlp) == (0, 0)


@pytest.mark.parametrize("how", ["prefix", "block", "pair", "causal"])
def test_the_image_mask_is_read(how: str) -> None:
    assert ModelArgs.from_dict(HUB | {"image_mask": how}).image_mask == how


@pytest.mark.parametrize(
    ("change", "vision", "message"),
    [
        ({"image_mask": "full"}, {}, "image_mask is 'full', not one of prefix, block, pair, causal"),
        ({"vision_config": [1]}, None, r"vision_config is \[1\], not a table"),
        ({"vision_lora": 1}, {}, "vision_lora is 1, not true or false"),
        ({"vision_lora_rank_attn": 0}, {}, "vision_lora_rank_attn is 0, not a positive whole number"),
        ({"residual_in_fp32": "yes"}, {}, "residual_in_fp32 is 'yes'"),
        ({"image_token_id": 262272}, {}, r"must be below vocab_size \(262272\); one is 262272"),
        ({}, {"out_hidden_size": 3584}, "out_hidden_size is 3584, but a token of this model has 2048"),
        ({}, {"depth": "32"}, "vision_config.depth is '32', not a positive whole number"),
        ({}, {"patch_size": 16}, "must agree and do not: vision_config.patch_size = 16, vision_config.spatial_patch"),
        ({}, {"hidden_act": "quick_gelu"}, "vision_config.hidden_act is 'quick_gelu'; only 'silu'"),
        ({}, {"num_heads": 3}, r"vision_config.hidden_size \(1280\) over num_heads \(3\)"),
        ({}, {"window_size": 20}, r"vision_config.window_size \(20 pixels\) is less than one token, 28 pixels"),
        ({}, {"fullatt_block_indexes": [7, 32]}, r"is \[7, 32\], but there are 32 blocks"),
        ({}, {"fullatt_block_indexes": [True]}, r"is \[True\], not a list of block numbers"),
        ({}, {"rms_norm_eps": -1}, "vision_config.rms_norm_eps is -1, not a positive number"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], vision: dict[str, Any] | None, message: str) -> None:
    config = HUB | change
    if vision is not None:
        config["vision_config"] = HUB["vision_config"] | vision
    with pytest.raises(ModelError, match=message):
        ModelArgs.from_dict(config)
