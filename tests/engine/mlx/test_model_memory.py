"""What models say of the bytes that a step reads, and what the engine says of its memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import anyio
import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_moe

from engine.api import KnowsMemory
from engine.errors import EngineClosedError
from engine.families.mlx_lm.model import AdaptedModel
from engine.loader import load_engine, load_model
from engine.mlx.memory import CacheCost
from engine.mlx.model import StepWeights


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5))
def test_the_experts_read_are_those_that_some_row_chose_on_average(experts: int, rows: int) -> None:
    """Over all equally likely choices of the experts and of none."""
    size = 10**6
    choices = list(product(range(experts + 1), repeat=rows))
    distinct = sum(len({choice for choice in each if choice < experts}) for each in choices) / len(choices)
    weights = StepWeights(7, size * experts, classes=experts + 1)
    assert weights.read_by(rows) == pytest.approx(7 + size * distinct, abs=2)


def test_nano_reads_all_but_the_experts_that_nobody_chose() -> None:
    model = load_model("nano")
    weights = model.step_weights
    parts = dict(tree_flatten(model.parameters()))  # type: ignore[attr-defined]
    experts = sum(part.nbytes for name, part in parts.items() if part.ndim == 3 and "proj" in name)
    assert weights.experts == experts > 0
    assert weights.always + weights.experts == model.weight_bytes
    assert weights.classes == 5  # four experts, or none
    assert weights.read_by(1) < weights.read_by(16) < weights.read_by(1000) <= model.weight_bytes


def test_a_model_whose_head_is_its_embeddings_reads_them(make_llama: Callable[..., Path], tmp_path: Path) -> None:
    model = load_model(make_llama(tmp_path / "llama"))
    assert model.step_weights.read_by(1) == model.step_weights.read_by(64) == model.weight_bytes


def test_experts_of_mlx_lm_are_read_as_chosen_and_a_head_of_its_own_instead_of_embeddings() -> None:
    args = qwen3_moe.ModelArgs(
        model_type="qwen3_moe",
        hidden_size=32,
        num_hidden_layers=3,
        intermediate_size=48,
        num_attention_heads=2,
        num_experts=6,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        mlp_only_layers=[0],
        moe_intermediate_size=16,
        rms_norm_eps=1e-5,
        vocab_size=50,
        num_key_value_heads=1,
        head_dim=16,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        max_position_embeddings=64,
        norm_topk_prob=True,
    )
    model = AdaptedModel(qwen3_moe.Model(args))
    weights = model.step_weights
    assert weights.experts == 4 * 2 * 6 * 3 * 32 * 16  # float32, two layers, six experts, three matrices
    assert weights.always + weights.experts == model.weight_bytes - 4 * 50 * 32
    assert weights.read_by(1) == weights.always + weights.experts // 3


def test_the_engine_speaks_of_its_memory_as_its_scheduler_counts_it() -> None:
    engine = load_engine("nano", kv_bytes=10**8)
    assert isinstance(engine, KnowsMemory)

    async def ask() -> None:
        memory = await engine.memory()
        model = load_model("nano")
        assert memory.room_bytes == 10**8
        assert memory.copy_bytes_per_s > 0
        assert memory.cache_bytes(3, 100) == CacheCost.of(model).of_rows([100] * 3)
        assert memory.step_bytes(3, 100) == model.step_weights.read_by(3) + 3 * model.cache_bytes(100)
        await engine.aclose()
        with pytest.raises(EngineClosedError):
            await engine.memory()

    anyio.run(ask)
    mx.clear_cache()
