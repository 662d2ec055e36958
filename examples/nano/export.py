"""Writes nano in the hub layout of transformers' `zaya`: config, bf16 weights, tokenizer, generation config.

python -m examples.nano.export CHECKPOINT.pt OUT_DIR
python -m examples.nano.export --config-only OUT_DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from examples.nano import tokenizer as nano_tokenizer

CONFIG: dict[str, Any] = {
    "architectures": ["ZayaForCausalLM"],
    "model_type": "zaya",
    "dtype": "bfloat16",
    "vocab_size": nano_tokenizer.VOCAB_SIZE,
    "hidden_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "use_cache": True,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "hybrid": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "sliding_window": None,
    "attention_dropout": 0.0,
    "attention_bias": False,
    "lm_head_bias": False,
    "moe_intermediate_size": 512,
    "num_experts_per_tok": 1,
    "num_experts": 4,
    "router_hidden_size": 64,
    "layer_types": ["hybrid"] * 8,
    "cca_time0": 2,
    "cca_time1": 2,
    "pad_token_id": nano_tokenizer.PAD_ID,
    "bos_token_id": nano_tokenizer.BOS_ID,
    "eos_token_id": nano_tokenizer.EOS_ID,
}
GENERATION_CONFIG = {
    "bos_token_id": nano_tokenizer.BOS_ID,
    "eos_token_id": nano_tokenizer.EOS_ID,
    "pad_token_id": nano_tokenizer.PAD_ID,
    "do_sample": True,
    "temperature": 1.0,
    "top_p": 1.0,
}
MAX_BYTES = 30_000_000


def write_configs(folder: Path) -> None:
    """Write config.json, generation_config.json and, where there is none yet, the tokenizer's files.

    A tokenizer that is there stays: the weights belong to it.
    """
    if not (folder / "tokenizer.json").exists():
        nano_tokenizer.save(nano_tokenizer.build(nano_tokenizer.sample_texts()), folder)
    for name, content in (("config", CONFIG), ("generation_config", GENERATION_CONFIG)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_weights(params: dict[str, Any], folder: Path) -> None:
    """Write model.safetensors: matrices in bf16, vectors and the balancing biases in float32."""
    import torch
    from safetensors.torch import save_file

    from examples.nano.model import hub_tensors

    tensors = {}
    for name, tensor in hub_tensors(params).items():
        tensors[name] = tensor.to(torch.bfloat16 if tensor.ndim > 1 else torch.float32).contiguous().cpu()
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    total = sum(path.stat().st_size for path in folder.iterdir())
    if total > MAX_BYTES:
        raise ValueError(f"{folder} holds {total} bytes; at most {MAX_BYTES} are allowed")


def main(arguments: list[str]) -> None:
    source, folder = arguments[0], Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_configs(folder)
    if source != "--config-only":
        from examples.nano.model import load_params

        write_weights(load_params(source), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
