"""Models of mlx-lm, tried in a batch when they are loaded: those that fail there run one row at a time, and say so."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from engine_calls import after_each_step, complete, rows
from mlx import nn
from mlx.utils import tree_flatten

from engine.api import GenerationRequest, Message, SamplingParams
from engine.errors import ModelError
from engine.families.mlx_lm.batching import adapted
from engine.loader import load_engine
from engine.mlx.prefill import Prefiller

SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
    },
    "gemma3_text": {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "head_dim": 16,
        "sliding_window": 4,
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 16,
    },
    "mamba2": {
        "num_heads": 8,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "state_size": 8,
        "num_hidden_layers": 2,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "time_step_limit": (0.01, 10.0),
        "time_step_rank": "auto",
    },
    "afm7": {"hidden_dim": 64, "num_layers": 4, "num_kv_reuse_layers": 2, "num_heads": 4, "num_kv_heads": 2},
    "gpt_bigcode": {
        "n_embd": 64,
        "n_layer": 2,
        "n_inner": 128,
        "n_head": 4,
        "n_positions": 512,
        "layer_norm_epsilon": 1e-5,
    },
    "longcat_flash_ngram": {
        "hidden_size": 64,
        "ffn_hidden_size": 96,
        "moe_topk": 2,
        "expert_ffn_hidden_size": 32,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
        "num_layers": 2,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "routed_scaling_factor": 1.0,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
    },
    "llama4": {
        "model_type": "llama4_text",
        "attention_bias": False,
        "attention_chunk_size": 8,
        "head_dim": 16,
        "hidden_size": 64,
        "interleave_moe_layer_step": 2,
        "intermediate_size": 64,
        "intermediate_size_mlp": 64,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 2,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 1e4,
        "use_qk_norm": True,
    },
}
BATCH = ("llama", "gemma3_text", "mamba2")
ALONE = {
    "afm7": "get other logits in a batch than alone",
    "gpt_bigcode": "fail in a batch",
    "longcat_flash_ngram": "fail in a batch",
    "llama4": r"its caches \(ChunkedKVCache\) cannot be merged",
}


def config_of(model_type: str, vocabulary: int) -> dict[str, Any]:
    sizes = {**SIZES[model_type], "vocab_size": vocabulary}
    return {"model_type": model_type, **({"text_config": sizes} if model_type == "llama4" else sizes)}


def random_model(config: Mapping[str, Any]) -> nn.Module:
    code = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(3)
    model = code.Model(code.ModelArgs.from_dict(config))
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("model_type", BATCH)
def test_models_that_batch_rightly_are_left_to(model_type: str) -> None:
    model = adapted(random_model(config_of(model_type, 64)), model_type)
    assert (model.max_rows, model.notes) == (None, ())


@pytest.mark.parametrize("model_type", ALONE)
def test_models_that_do_not_batch_run_one_row_at_a_time_and_say_why(model_type: str) -> None:
    model = adapted(random_model(config_of(model_type, 64)), model_type)
    assert model.max_rows == 1
    (note,) = model.notes
    assert note.startswith(f"{model_type} runs one candidate at a time")
    assert re.search(ALONE[model_type], note)
    assert "\n" not in note


@pytest.mark.parametrize("model_type", BATCH)
def test_models_that_batch_do_so_in_16_bits_too(model_type: str) -> None:
    module = random_model(config_of(model_type, 64))
    module.set_dtype(mx.bfloat16)
    assert adapted(module, model_type).max_rows is None


class Broken(nn.Module):
    """A model whose every pass fails."""

    layers = ()

    def __call__(self, inputs: mx.array, cache: object) -> mx.array:
        raise NotImplementedError("no kernel\nfor this machine")


def test_a_model_that_cannot_even_run_one_row_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^mlx-lm's odd fails on a short prompt \(NotImplementedError: no kernel\)$"):
        adapted(Broken(), "odd")


@pytest.fixture
def saved(tmp_path: Path, make_llama: Callable[..., Path]) -> Callable[[str], Path]:
    """Saves a tiny model with random weights, in the folder of a Llama whose tokenizer it has."""

    def save(model_type: str) -> Path:
        folder = make_llama(tmp_path / model_type)
        llama = json.loads((folder / "config.json").read_text())
        config = {**config_of(model_type, llama["vocab_size"]), "eos_token_id": 3, "max_position_embeddings": 512}
        weights = dict(tree_flatten(random_model(config).parameters()))
        mx.save_safetensors(str(folder / "model.safetensors"), weights)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return save


def ragged(count: int) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            id=f"r{i}",
            messages=(Message(role="user", text="a" * (20 + 5 * i)),),
            sampling=SamplingParams(temperature=1.0, seed=i, max_tokens=6),
        )
        for i in range(count)
    ]


def _sizes_of_shared_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts shared each pass that was shared."""
    sizes: list[int] = []
    original = Prefiller._compute_together

    def counting(self: Prefiller, prefills: Any, *arguments: Any) -> Any:
        sizes.append(len(prefills))
        return original(self, prefills, *arguments)

    monkeypatch.setattr(Prefiller, "_compute_together", counting)
    return sizes


@pytest.mark.anyio
@pytest.mark.parametrize("model_type", ["llama", "afm7", "gpt_bigcode", "longcat_flash_ngram", "gemma3_text"])
async def test_ragged_rows_say_what_each_says_alone(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    engine = load_engine(saved(model_type))
    together = after_each_step(monkeypatch, rows)
    passes = _sizes_of_shared_passes(monkeypatch)
    requests = [*ragged(3), ragged(1)[0].model_copy(update={"id": "again"})]
    done = await complete(engine, requests)
    assert bool(passes) == (model_type == "llama")  # the only one with plain caches that batches
    alone = [(await complete(engine, [request]))[0] for request in requests]
    assert [c.token_ids for c in done] == [c.token_ids for c in alone]
    assert done[0].token_ids == done[3].token_ids
    assert (max(together) == 1) == (engine.model.max_rows == 1) == (model_type in ALONE)
    assert any("one candidate at a time" in note for note in engine.model.notes) == (model_type in ALONE)
    await engine.aclose()
