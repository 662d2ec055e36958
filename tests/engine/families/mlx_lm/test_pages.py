"""Models of mlx-lm whose rows decode in pages, against each row alone by mlx-lm's own code."""

from __future__ import annotations

from typing import Any

import emulator
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_map_with_path
from mlx_lm.models import base, llama, qwen2
from rows_by_kernels import VOCAB, Rows, tokens

from engine.families.mlx_lm import batching
from engine.families.mlx_lm.model import AdaptedModel
from engine.families.mlx_lm.pages import KVRows
from engine.mlx.kernels.attention import PAGE
from engine.mlx.kernels.launch import Kernel

KERNELS = "kernels of our own do not run it"


def random_model(module: nn.Module) -> nn.Module:
    rng = np.random.default_rng(0)

    def draw(name: str, x: mx.array) -> mx.array:
        centre, scale = (0.0, x.shape[-1] ** -0.5) if x.ndim > 1 else (float("norm" in name), 0.1)
        drawn = mx.array((centre + scale * rng.standard_normal(x.shape)).astype(np.float32))
        return drawn.astype(mx.bfloat16)

    module.update(tree_map_with_path(draw, module.parameters()))
    mx.eval(module.parameters())
    return module


def qwen(heads: int = 4, kv_heads: int = 2) -> nn.Module:
    """With heads of 64."""
    return random_model(
        qwen2.Model(
            qwen2.ModelArgs(
                model_type="qwen2",
                hidden_size=64 * heads,
                num_hidden_layers=2,
                intermediate_size=128,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                rms_norm_eps=1e-6,
                vocab_size=VOCAB,
            )
        )
    )


def random_llama(heads: int, kv_heads: int, size: int) -> nn.Module:
    """With heads of a size."""
    return random_model(
        llama.Model(
            llama.ModelArgs(
                model_type="llama",
                hidden_size=128,
                num_hidden_layers=2,
                intermediate_size=128,
                head_dim=size,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                rms_norm_eps=1e-6,
                vocab_size=VOCAB,
            )
        )
    )


@pytest.fixture(params=emulator.PLACES)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that run here, and are wanted."""
    emulator.use(request.param, monkeypatch)
    if request.param != "gpu":
        monkeypatch.setattr("engine.mlx.pages.mx.compile", lambda step: step)
    monkeypatch.setattr(batching, "wanted", lambda: True)


def rows_of(module: nn.Module) -> Rows:
    paged = batching.adapted(module, "some")
    assert paged.notes == ()
    assert paged.ragged
    assert isinstance(paged.batch_cache(paged.make_cache(), [])[0], KVRows)
    return Rows(paged, AdaptedModel(module))


@pytest.mark.parametrize("module", [qwen(), qwen(6, 2), random_llama(7, 1, 128)], ids=["qwen", "groups of 3", "parts"])
def test_rows_of_unequal_length_decode_as_alone(kernels: None, module: nn.Module) -> None:
    """Prompts of a token less than a page, a page and a token more: the next token begins a page, or another one. Seven
    query heads of 128 to a key head are more than a block holds at once."""
    rows = rows_of(module)
    for seed, count in enumerate((3, PAGE - 1, 17, PAGE, PAGE + 1)):
        rows.join(tokens(count, seed), copies=1 + seed % 2)
    rows.step(1)
    rows.keep([6, 1, 2])
    rows.step(40)


def test_prompts_that_shared_a_pass_go_on_by_themselves(kernels: None) -> None:
    rows = rows_of(qwen())
    rows.join_padded([tokens(9), tokens(4, 1), tokens(7, 2)], places=[1, 2, 0, 2])
    rows.step(3)


@pytest.mark.thorough
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_that_come_and_go_decode_as_alone(kernels: None, data: st.DataObject) -> None:
    rows = rows_of(qwen())
    rows.come_and_go(data)


def test_a_scale_of_its_own_is_kept(kernels: None) -> None:
    module = qwen()
    for layer in module.layers:
        layer.self_attn.scale = 0.3
    rows = rows_of(module)
    rows.join(tokens(20))
    rows.step(1)


def test_mlx_lm_keeps_its_attention_for_other_caches(kernels: None) -> None:
    module = qwen()
    ids = mx.array([tokens(12)])
    expected = module(ids)
    rows_of(module)
    assert qwen2.scaled_dot_product_attention is not base.scaled_dot_product_attention
    assert mx.array_equal(module(ids), expected)


def test_kernels_that_are_off_are_not_used(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for people; and rows decode as before."""
    right = Kernel.__call__

    def wrong(kernel: Kernel, *inputs: mx.array, **how: Any) -> list[mx.array]:
        return [x if x.dtype == mx.float32 else 3 * x for x in right(kernel, *inputs, **how)]

    monkeypatch.setattr(Kernel, "__call__", wrong)
    model = batching.adapted(qwen(), "qwen2")
    (note,) = model.notes
    assert note.startswith(f"qwen2 decodes slower than it could: {KERNELS} (their logits are off by")
    assert not model.ragged
    assert not isinstance(model.batch_cache(model.make_cache(), [0])[0], KVRows)


def test_a_model_whose_attention_is_its_own_decodes_as_before(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never asks for the attention that would read the pages."""

    def own(queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any) -> mx.array:
        return base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask)

    monkeypatch.setattr(qwen2, "scaled_dot_product_attention", own)
    assert not batching.adapted(qwen(), "qwen2").ragged


@pytest.mark.parametrize("how", ["float32", "heads of 32"])
def test_models_for_which_there_are_no_kernels_decode_as_before(kernels: None, how: str) -> None:
    module = random_llama(2, 2, 32) if how == "heads of 32" else qwen()
    if how == "float32":
        module.set_dtype(mx.float32)
    model = batching.adapted(module, "some")
    assert (model.ragged, model.notes) == (False, ())
