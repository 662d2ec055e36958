"""Writes a ZAYA1-VL checkpoint of random weights in the hub's layout: for speed and memory, which do not ask for sense.

    python benchmarks/random_checkpoint.py OUT [--size full|small]

`full` has the sizes of ZAYA1-VL-8B: 19.4 GB in bfloat16, in shards of 4 GB. `small` is for trying things out.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from engine.backend import load_mlx
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.tensors import expected_tensors

SHARD_BYTES = 4 << 30
FULL: dict[str, Any] = {
    "model_type": "zaya1_vl", "architectures": ["Zaya1VLForConditionalGeneration"], "torch_dtype": "bfloat16",
    "vocab_size": 262272, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 8,
    "num_key_value_heads": 2, "num_query_groups": 2, "head_dim": 128, "ffn_hidden_size": 4096, "num_experts": 16,
    "moe_router_topk": 1, "zaya_mlp_expansion": 256, "norm_epsilon": 1e-5, "max_position_embeddings": 32768,
    "rotary_base": 1000000, "rope_pct": 0.5, "tie_word_embeddings": True, "bos_token_id": 2, "pad_token_id": 0,
    "eos_token_id": 262143, "image_token_id": 262147, "vision_start_token_id": 255999,
    "vision_end_token_id": 256000, "vision_lora": True, "vision_lora_rank_attn": 8, "vision_lora_rank_mlp": 32,
    "residual_in_fp32": False, "zaya_use_mod": True, "zaya_use_eda": True,
    "vision_config": {
        "model_type": "qwen2_5_vl", "hidden_size": 1280, "out_hidden_size": 2048, "depth": 32,
        "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "temporal_patch_size": 1, "in_chans": 3,
        "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip
"""config.json of ZAYA1-VL-8B, as far as this project reads it."""
SMALL_VISION = {**FULL["vision_config"], "hidden_size": 64, "out_hidden_size": 256, "depth": 4, "num_heads": 4,
                "intermediate_size": 128, "fullatt_block_indexes": [1, 3]}  # fmt: skip
SMALL = {**FULL, "vocab_size": 262272 // 16, "hidden_size": 256, "num_hidden_layers": 4, "head_dim": 32,
         "ffn_hidden_size": 512, "num_experts": 4, "zaya_mlp_expansion": 32, "image_token_id": 999,
         "vision_start_token_id": 997, "vision_end_token_id": 998, "vision_config": SMALL_VISION}  # fmt: skip


def write(folder: Path, config: dict[str, Any], seed: int = 0) -> int:
    """Write config.json, the shards and their index; returns the bytes of the tensors."""
    mx = load_mlx()
    mx.random.seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shards: list[dict[str, Any]] = [{}]
    total = held = 0
    weight_map: dict[str, str] = {}
    vision = config["vision_config"]
    patch = (vision["in_chans"], vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
    for name, expected in expected_tensors(ModelArgs.from_dict(config), "vl").items():
        # The hub has the patch embedding as a convolution.
        shape = (expected[0], *patch) if name.endswith("patch_embed.proj.weight") else expected
        tensor = _random(mx, name, shape)
        if held + tensor.nbytes > SHARD_BYTES:
            _save(mx, folder, len(shards), shards[-1])
            shards[-1].clear()
            shards.append({})
            held = 0
        shards[-1][name] = tensor
        weight_map[name] = _shard_name(len(shards))
        held += tensor.nbytes
        total += tensor.nbytes
    _save(mx, folder, len(shards), shards[-1])
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['content'] is string %} {{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<vs><image><ve>{% else %} {{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
)


def write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """A tokenizer of one token a word (`w7` is token 7), with the image tokens where config.json says they are."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    names = {config["bos_token_id"]: "<bos>", config["pad_token_id"]: "<pad>", 1: "<unk>",
             config["image_token_id"]: "<image>", config["vision_start_token_id"]: "<vs>",
             config["vision_end_token_id"]: "<ve>"}  # fmt: skip
    vocabulary = {names.get(i, f"w{i}"): i for i in range(config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "pad_token": "<pad>",
                "unk_token": "<unk>", "chat_template": CHAT_TEMPLATE}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 14, "merge_size": 2}))


def _random(mx: Any, name: str, shape: tuple[int, ...]) -> Any:
    if name.endswith("balancing_biases"):
        return mx.concatenate([mx.zeros((shape[0] - 1,)), -mx.ones((1,))])  # the skip expert is hardly ever chosen
    if len(shape) == 1:
        return mx.zeros(shape, mx.bfloat16) if name.endswith("bias") else mx.ones(shape, mx.bfloat16)
    fan_in = math.prod(shape[1:])
    return (mx.random.normal(shape) * fan_in**-0.5).astype(mx.bfloat16)


def _save(mx: Any, folder: Path, number: int, tensors: dict[str, Any]) -> None:
    mx.save_safetensors(str(folder / _shard_name(number)), tensors, metadata={"format": "pt"})


def _shard_name(number: int) -> str:
    return f"model-{number:05}.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=("full", "small"), default="full")
    args = parser.parse_args()
    config = FULL if args.size == "full" else SMALL
    total = write(args.out, config)
    write_tokenizer(args.out, config)
    print(json.dumps({"folder": args.out.name, "GB": round(total / 1e9, 2)}))


if __name__ == "__main__":
    main()
