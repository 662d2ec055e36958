"""The model and its cache inside mlx-lm's own tools: what works there works with any program built on them."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load_model, quantize_model, save_model

from engine.errors import ModelError
from engine.families.zaya import Model, get_model_classes, load


def greedy(model: Model, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Our own loop: left-padded rows, one pass for the prompts, then token by token."""
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    caches = model.make_cache()
    for cache in caches:
        cache.prepare(left_padding=padding)
    logits = model(mx.array([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)]), caches)
    columns = []
    for _ in range(count):
        tokens = mx.argmax(logits[:, -1], axis=-1)
        columns.append(tokens.tolist())
        logits = model(tokens[:, None], caches)
    return [list(row) for row in zip(*columns, strict=True)]


def test_batch_generator_writes_what_our_loop_writes(tiny: Model) -> None:
    """16 prompts of unlike lengths, 100 tokens each: right-padded prefill, joins, splits and removals of rows."""
    prompts = [[(7 * i + 3 * j * j) % 128 for j in range(1 + (5 * i) % 13)] for i in range(16)]
    generator = BatchGenerator(
        tiny, max_tokens=100, completion_batch_size=16, prefill_batch_size=6, prefill_step_size=5
    )
    ids = generator.insert(prompts, max_tokens=[100 - i for i in range(16)])
    written: dict[int, list[int]] = {i: [] for i in ids}
    while sum(map(len, written.values())) < sum(100 - i for i in range(16)):
        for response in generator.next_generated():
            written[response.uid].append(response.token)
    generator.close()
    for i, expected in enumerate(greedy(tiny, prompts, 100)):
        assert written[ids[i]] == expected[: 100 - i], f"prompt {i}"


def test_load_model_reads_our_checkpoints(golden: Path, tiny: Model) -> None:
    model, _ = load_model(golden / "tiny_hf", get_model_classes=get_model_classes)
    ids = mx.array([[2, 3, 4, 5]])
    np.testing.assert_allclose(np.array(model(ids)), np.array(tiny(ids)), rtol=0, atol=1e-5)


def test_other_models_are_left_to_mlx_lm() -> None:
    model_class, _ = get_model_classes({"model_type": "llama"})
    assert model_class.__module__ == "mlx_lm.models.llama"
    with pytest.raises(ModelError, match="'no_such_model'"):
        get_model_classes({"model_type": "no_such_model"})


def test_what_mlx_lm_saves_loads_again(tiny: Model, golden: Path, tmp_path: Path) -> None:
    save_model(tmp_path, tiny, donate_model=False)
    (tmp_path / "config.json").write_text((golden / "tiny_hf" / "config.json").read_text())
    model, _ = load(tmp_path)
    for (name, a), (_, b) in zip(tree_flatten(model.parameters()), tree_flatten(tiny.parameters()), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b), err_msg=name)


def test_experts_and_projections_can_be_quantised(golden: Path) -> None:
    """Through mlx-lm's own quantiser; router, norms, convolutions and vision-LoRA stay as they are."""
    config = {"model_type": "zaya1_vl"}
    exact, _ = load(golden / "tiny_hf")
    model, _ = load(golden / "tiny_hf")
    kept = (".router.", "embed", "vision_tower.")
    model, config = quantize_model(
        model, config, 32, 8, quant_predicate=lambda path, _: not any(part in path for part in kept)
    )
    quantised = {name for name, x in tree_flatten(model.parameters()) if x.dtype == mx.uint32}
    assert len(quantised) == 4 * len(model.layers)  # qkv, o_proj, the experts' two
    ids = mx.array([[2, 9, 4, 33]])
    # Reading the experts in 8 bits, where all tokens keep their expert: close, and not equal.
    np.testing.assert_allclose(np.array(model(ids))[:, 0], np.array(exact(ids))[:, 0], rtol=0, atol=1.0)
