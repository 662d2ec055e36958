"""What a row of an mlx-lm model costs, before there is one: no less than its caches take, and hardly more."""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import pytest
from mlx_lm.models import gemma3_text, llama, recurrent_gemma

from engine.families.mlx_lm.model import AdaptedModel
from engine.mlx.memory import CacheCost

FLOAT = 4  # bytes
STEP = 256


@cache
def model(window: int | None) -> AdaptedModel:
    """Six layers, of which the last sees all tokens and the others a window; all of them without one."""
    if window is None:
        return AdaptedModel(llama.Model(llama.ModelArgs("llama", 32, 6, 32, 2, 1e-5, 50, 16, num_key_value_heads=1)))
    return AdaptedModel(
        gemma3_text.Model(
            gemma3_text.ModelArgs(
                "gemma3_text",
                hidden_size=32,
                num_hidden_layers=6,
                intermediate_size=32,
                num_attention_heads=2,
                head_dim=16,
                num_key_value_heads=1,
                vocab_size=50,
                query_pre_attn_scalar=16,
                sliding_window=window,
                sliding_window_pattern=6,
            )
        )
    )


@pytest.mark.parametrize("window", [100, 512, 700, None])
@pytest.mark.parametrize("tokens", [0, 256, 512, 768, 1024, 5120, 102_400])
def test_a_window_costs_what_it_holds(window: int | None, tokens: int) -> None:
    token = 2 * 16 * FLOAT  # key and value of the one head of a layer
    held = min(tokens, window) if window is not None else tokens
    exact = token * (tokens + 5 * held)
    told = model(window).cache_bytes(tokens)
    # A window that fits into the least room is there from the first token on.
    assert exact <= told <= exact + token * 5 * min(window or 0, STEP)


@pytest.mark.parametrize("window", [100, 512, 700, None])
@pytest.mark.parametrize(("prompt", "more"), [(10, 5), (300, 300), (1400, 10)])
def test_the_caches_that_a_row_has_in_the_end_are_covered(window: int | None, prompt: int, more: int) -> None:
    adapted = model(window)
    caches = adapted.make_cache()
    for start in range(0, prompt, 512):
        adapted(mx.zeros((1, min(512, prompt - start)), dtype=mx.uint32), caches)
    for _ in range(more):
        adapted(mx.zeros((1, 1), dtype=mx.uint32), caches)
    assert sum(each.nbytes for each in caches) <= CacheCost.of(adapted).of_rows([prompt + more])


def test_a_state_costs_the_same_at_any_length() -> None:
    """Two layers with a state and one with a window, as long as a prompt fills it: nothing grows beyond."""
    args = recurrent_gemma.ModelArgs(
        model_type="recurrent_gemma",
        attention_bias=False,
        conv1d_width=4,
        hidden_size=32,
        intermediate_size=64,
        logits_soft_cap=30.0,
        num_attention_heads=2,
        num_hidden_layers=3,
        num_key_value_heads=1,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        attention_window_size=300,
        vocab_size=50,
        block_types=["recurrent", "recurrent", "attention"],
    )
    adapted = AdaptedModel(recurrent_gemma.Model(args))
    assert 0 < adapted.cache_bytes(0) < adapted.cache_bytes(512) == adapted.cache_bytes(30_000)
