"""Models of mlx-lm whose rows decode in pages, against each row alone by mlx-lm's own code."""

from __future__ import annotations

from collections.abc import Sequence
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

from engine.families.mlx_lm import batching
from engine.families.mlx_lm.model import AdaptedModel
from engine.families.mlx_lm.pages import KVRows
from engine.mlx.kernels.attention import PAGE
from engine.mlx.kernels.launch import Kernel

VOCAB = 96
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


def wide_llama(**more: Any) -> nn.Module:
    """Seven query heads of 128 to a key head: more than a block holds at once."""
    return random_model(
        llama.Model(
            llama.ModelArgs(
                model_type="llama",
                hidden_size=128,
                num_hidden_layers=2,
                intermediate_size=128,
                head_dim=128,
                num_attention_heads=7,
                num_key_value_heads=1,
                rms_norm_eps=1e-6,
                vocab_size=VOCAB,
                **more,
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


class Rows:
    """Rows that decode by kernels together, and each alone by mlx-lm's code."""

    def __init__(self, module: nn.Module) -> None:
        self.paged, self.plain = batching.adapted(module, "some"), AdaptedModel(module)
        assert self.paged.notes == ()
        assert self.paged.ragged
        self.together: Sequence[Any] = []
        self.alone: list[list[Any]] = []

    def join(self, tokens: Sequence[int], copies: int = 1) -> None:
        """Rows of one prompt."""
        self._extend(self.paged.batch_cache(self._prefilled(tokens), [0] * copies))
        self.alone += [self._prefilled(tokens) for _ in range(copies)]

    def join_padded(self, prompts: Sequence[Sequence[int]], places: Sequence[int]) -> None:
        """Rows of prompts that shared a pass."""
        lengths = [len(tokens) for tokens in prompts]
        padding = [max(lengths) - length for length in lengths]
        caches = self.paged.make_cache(len(prompts))
        for cache in caches:
            cache.prepare(lengths=lengths, right_padding=padding)
        ids = [[*tokens, *[0] * pad] for tokens, pad in zip(prompts, padding, strict=True)]
        self.paged(mx.array(ids), caches)
        for cache in caches:
            cache.finalize()
        self._extend(self.paged.batch_cache(caches, places))
        self.alone += [self._prefilled(prompts[place]) for place in places]

    def keep(self, places: Sequence[int]) -> None:
        self.together[0].filter(places)
        self.alone = [self.alone[place] for place in places]

    def step(self, first: int) -> None:
        """Feed a token to each row; both ways must give the same logits, up to rounding."""
        tokens = [(first + 5 * i) % VOCAB for i in range(len(self.alone))]
        found = self.paged(mx.array(tokens)[:, None], self.together)[:, 0].astype(mx.float32)
        mx.eval(found, self.together[0].state)
        for i, (token, caches) in enumerate(zip(tokens, self.alone, strict=True)):
            expected = self.plain(mx.array([[token]]), caches)[0, 0].astype(mx.float32)
            error = float(mx.sqrt(mx.mean((found[i] - expected) ** 2) / mx.mean(expected**2)))
            assert error < 0.03, f"row {i} is off by {error:.1%}"

    def _extend(self, more: Sequence[Any]) -> None:
        assert isinstance(more[0], KVRows)
        if self.together:
            self.together[0].extend(more[0])
        else:
            self.together = more

    def _prefilled(self, tokens: Sequence[int]) -> list[Any]:
        caches = self.plain.make_cache()
        self.plain(mx.array([tokens]), caches)
        mx.eval([cache.state for cache in caches])
        return caches


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


@pytest.mark.parametrize("module", [qwen(), qwen(6, 2), wide_llama()], ids=["qwen", "groups of 3", "parts"])
def test_rows_of_unequal_length_decode_as_alone(kernels: None, module: nn.Module) -> None:
    """Prompts of a token less than a page, a page and a token more: the next token begins a page, or another one."""
    rows = Rows(module)
    for seed, count in enumerate((3, PAGE - 1, 17, PAGE, PAGE + 1)):
        rows.join(tokens(count, seed), copies=1 + seed % 2)
    rows.step(1)
    rows.keep([6, 1, 2])
    rows.step(40)


def test_prompts_that_shared_a_pass_go_on_by_themselves(kernels: None) -> None:
    rows = Rows(qwen())
    rows.join_padded([tokens(9), tokens(4, 1), tokens(7, 2)], places=[1, 2, 0, 2])
    rows.step(3)


@pytest.mark.thorough
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_that_come_and_go_decode_as_alone(kernels: None, data: st.DataObject) -> None:
    rows = Rows(qwen())
    rows.join(tokens(5))
    for step in range(data.draw(st.integers(1, 5), "steps")):
        if len(rows.alone) < 6:
            count = data.draw(st.sampled_from([1, 2, 60, PAGE - 2, PAGE, 2 * PAGE - 1]), "prompt")
            rows.join(tokens(count, step), copies=data.draw(st.integers(1, 2), "copies"))
        order = data.draw(st.permutations(range(len(rows.alone))), "order")
        rows.keep(order[: data.draw(st.integers(1, len(order)), "kept")])
        rows.step(step)


def test_a_scale_of_its_own_is_kept(kernels: None) -> None:
    module = qwen()
    for layer in module.layers:
        layer.self_attn.scale = 0.3
    rows = Rows(module)
    rows.join(tokens(20))
    rows.step(1)


def test_mlx_lm_keeps_its_attention_for_other_caches(kernels: None) -> None:
    module = qwen()
    ids = mx.array([tokens(12)])
    expected = module(ids)
    Rows(module)
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
    if how == "float32":
        module = qwen()
        module.set_dtype(mx.float32)
    else:
        module = random_model(
            llama.Model(
                llama.ModelArgs(
                    model_type="llama",
                    hidden_size=64,
                    num_hidden_layers=1,
                    intermediate_size=64,
                    head_dim=32,
                    num_attention_heads=2,
                    rms_norm_eps=1e-6,
                    vocab_size=VOCAB,
                )
            )
        )
    model = batching.adapted(module, "some")
    assert (model.ragged, model.notes) == (False, ())
