"""Logits and greedy texts against other programs that ran the same weights (see tests/golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from engine.families.zaya import Model, load
from engine.loader import NANO

LOGIT_TOLERANCE = 5e-5  # logits up to 27; float32 implementations differ by 1.1e-5


@pytest.fixture
def no_skip(tiny: Model) -> Iterator[Model]:
    """The tiny model with its skip class out of reach."""
    routers = [layer.mlp.zaya_block.router for layer in tiny.layers]
    before = [router.balancing_biases for router in routers]
    for router, biases in zip(routers, before, strict=True):
        router.balancing_biases = mx.concatenate([biases[:-1], mx.array([-1.0])])
    yield tiny
    for router, biases in zip(routers, before, strict=True):
        router.balancing_biases = biases


def test_text_logits_equal_those_of_the_authors_code(tiny: Model, golden: Path) -> None:
    reference = np.load(golden / "tiny_vl_ref.npz")
    logits = np.array(tiny(mx.array(reference["text_ids"])))
    np.testing.assert_allclose(logits, reference["text_logits"], rtol=0, atol=LOGIT_TOLERANCE)


def test_the_skip_class_takes_part_in_that_comparison(tiny: Model, golden: Path) -> None:
    ids = mx.array(np.load(golden / "tiny_vl_ref.npz")["text_ids"])
    router, skipped = type(tiny.layers[0].mlp.zaya_block.router), []
    original = router.__call__

    def counting(self: Any, x: mx.array, before: mx.array | None) -> Any:
        choice, weight, state = original(self, x, before)
        skipped.append(int(mx.sum(choice == tiny.args.num_experts)))
        return choice, weight, state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router, "__call__", counting)
        mx.eval(tiny(ids))
    assert len(skipped) == tiny.args.num_layers
    assert sum(skipped) > 0


def test_without_skipping_they_equal_those_of_transformers(no_skip: Model, golden: Path) -> None:
    ids = np.load(golden / "tiny_vl_ref.npz")["text_ids"]
    expected = np.load(golden / "tiny_text_noskip.npz")["logits"]
    np.testing.assert_allclose(np.array(no_skip(mx.array(ids))), expected, rtol=0, atol=LOGIT_TOLERANCE)


def test_the_ways_of_a_gpu_give_the_same(tiny: Model, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX's kernels for rotation, attention and experts, run here on the CPU; prompts, padded rows and decoding."""
    monkeypatch.setattr("engine.mlx.cpu.on_cpu", lambda: False)
    monkeypatch.setattr("engine.families.zaya.model.on_cpu", lambda: False)
    reference = np.load(golden / "tiny_vl_ref.npz")
    ids, expected = reference["text_ids"], reference["text_logits"]
    caches = tiny.make_cache()
    for cache in caches:
        cache.prepare(left_padding=[0, 3])
    rows = mx.array(np.concatenate([ids, np.concatenate([np.zeros((1, 3), ids.dtype), ids[:, :-3]], axis=1)]))
    logits = np.concatenate([np.array(tiny(rows[:, i:j], caches)) for i, j in ((0, 22), (22, 23), (23, 24))], axis=1)
    np.testing.assert_allclose(logits[0], expected[0], rtol=0, atol=LOGIT_TOLERANCE)
    np.testing.assert_allclose(logits[1, 3:], expected[0, :-3], rtol=0, atol=LOGIT_TOLERANCE)
    many = np.array(tiny(mx.array(np.repeat(ids, 3, axis=0))))  # 72 tokens: sorted by expert
    np.testing.assert_allclose(many, np.repeat(expected, 3, axis=0), rtol=0, atol=LOGIT_TOLERANCE)


def test_attention_in_blocks_gives_the_same(tiny: Model, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.load(golden / "tiny_vl_ref.npz")
    monkeypatch.setattr("engine.families.zaya.attention._BLOCK_SCORES", 4 * 24 * 5)
    logits = np.array(tiny(mx.array(reference["text_ids"])))
    np.testing.assert_allclose(logits, reference["text_logits"], rtol=0, atol=LOGIT_TOLERANCE)
    caches = tiny.make_cache()
    for cache in caches:
        cache.prepare(left_padding=[2])
    padded = np.concatenate([[[0, 0]], reference["text_ids"]], axis=1)
    logits = np.array(tiny(mx.array(padded), caches))[:, 2:]
    np.testing.assert_allclose(logits, reference["text_logits"], rtol=0, atol=LOGIT_TOLERANCE)


def test_embeddings_may_be_given_in_place_of_tokens(tiny: Model) -> None:
    ids = mx.array([[5, 6, 7]])
    given = tiny(mx.zeros_like(ids), input_embeddings=tiny.model.embed_tokens(ids))
    np.testing.assert_array_equal(np.array(given), np.array(tiny(ids)))


def test_logits_are_float32_in_any_type_of_weights(golden: Path) -> None:
    """On the CPU too, where it is slow: a model must not fail there because of how it was stored."""
    half, _ = load(golden / "tiny_hf", dtype=mx.bfloat16)
    whole, _ = load(golden / "tiny_hf")
    ids = mx.array([[2, 9, 4, 33, 7, 90]])
    assert half.dtype == mx.bfloat16
    caches = half.make_cache()
    logits = half(ids, caches)
    assert logits.dtype == mx.float32
    assert {x.dtype for cache in caches for x in cache.state} == {mx.bfloat16}
    # bfloat16 has 8 bits; the first token meets no routing flip.
    np.testing.assert_allclose(np.array(logits)[0, 0], np.array(whole(ids))[0, 0], rtol=0, atol=0.5)


def test_a_trained_model_writes_what_transformers_writes(golden: Path) -> None:
    """Greedy continuations token for token, all prompts in one left-padded batch."""
    model, _ = load(NANO)
    cases = json.loads((golden / "nano_greedy.json").read_text())
    prompts, expected = ([case[key] for case in cases] for key in ("prompt_ids", "greedy_ids"))
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    caches = model.make_cache()
    for cache in caches:
        cache.prepare(left_padding=padding)
    inputs = mx.array([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)])
    logits = model(inputs, caches)[:, -1]
    for case, row in zip(cases, np.array(logits), strict=True):
        if "last_logits_of_prompt" in case:
            np.testing.assert_allclose(row, case["last_logits_of_prompt"], rtol=0, atol=1e-4)
    columns = []
    for _ in range(max(map(len, expected))):
        tokens = mx.argmax(logits, axis=-1)
        columns.append(tokens.tolist())
        logits = model(tokens[:, None], caches)[:, -1]
    written = [list(row) for row in zip(*columns, strict=True)]
    assert [row[: len(ids)] for row, ids in zip(written, expected, strict=True)] == expected
