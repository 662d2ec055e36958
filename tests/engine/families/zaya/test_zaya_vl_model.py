"""Prompts with images: logits against the authors' code, vision-LoRA, embeddings, types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from engine.errors import CheckpointError, RequestError
from engine.families.zaya import CCACache, Model, load
from engine.families.zaya.config import ImageMask
from engine.families.zaya.lora import ExpertLoRA, ImageRows, LoRA, QKVLoRA
from engine.families.zaya.moe import Router, SwitchMLP

TOLERANCE = 2e-4  # logits up to 28; float32 implementations differ by 6e-5 on image tokens
MASKS: tuple[ImageMask, ...] = get_args(ImageMask)
IMAGE = 127


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


# ---- the authors' numbers --------------------------------------------------------------------------------------

REFERENCE = {"prefix": "fa2", "block": "block", "pair": "pair", "causal": "causal"}


@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize("how", MASKS)
def test_image_logits_equal_those_of_the_authors_code(
    models: dict[ImageMask, Model], golden: Path, how: ImageMask, which: str
) -> None:
    reference, model = np.load(golden / "tiny_vl_masks.npz"), models[how]
    grids = [tuple(grid) for grid in reference[f"{which}_grid"].tolist()]
    assert model.vision_tower is not None
    features = model.vision_tower(mx.array(reference[f"{which}_pv"]), grids)
    ids = mx.array(reference[f"{which}_ids"])
    embeddings, image_mask = model.embed(ids, features)
    logits = np.array(model(ids, model.make_cache(), embeddings, image_mask))
    close(logits, reference[f"{which}_{REFERENCE[how]}"])


def from_features(
    model: Model, golden: Path, rows: int = 1, caches: list[CCACache] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the reference's image prompt, made from its own features, and the reference's (causal)."""
    reference = np.load(golden / "tiny_vl_ref.npz")
    ids = mx.array(np.repeat(reference["img_ids"], rows, axis=0))
    embeddings, image_mask = model.embed(ids, mx.array(np.tile(reference["vis_feat"], (rows, 1))))
    logits = np.array(model(ids, caches or model.make_cache(), embeddings, image_mask))
    return logits, np.repeat(reference["img_logits_causal"], rows, axis=0)


def test_they_do_from_the_authors_features_too(models: dict[ImageMask, Model], golden: Path) -> None:
    close(*from_features(models["causal"], golden))


def test_they_do_in_the_ways_of_a_gpu(
    models: dict[ImageMask, Model], golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLX's kernels for attention and experts, run here on the CPU; 75 tokens are sorted by expert, 15 are not."""
    monkeypatch.setattr("engine.mlx.cpu.on_cpu", lambda: False)
    monkeypatch.setattr("engine.families.zaya.model.on_cpu", lambda: False)
    close(*from_features(models["causal"], golden))
    close(*from_features(models["causal"], golden, rows=5))


def test_the_masks_are_told_apart_by_these_numbers(golden: Path) -> None:
    reference = np.load(golden / "tiny_vl_masks.npz")
    kinds = [reference[f"two_{name}"] for name in REFERENCE.values()]
    for i, a in enumerate(kinds):
        assert all(np.abs(a - b).max() > 0.1 for b in kinds[i + 1 :])


def test_a_mask_of_another_shape_is_refused(tiny: Model) -> None:
    with pytest.raises(ValueError, match=r"image_mask is \[1, 2\], but there are \[1, 3\] tokens"):
        tiny(mx.array([[1, 2, 3]]), image_mask=mx.array([[True, False]]))


# ---- vision-LoRA -----------------------------------------------------------------------------------------------


def test_text_and_decoding_compute_nothing_about_images(
    models: dict[ImageMask, Model], golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one operation more than in the same model without its vision, even right after an image prompt."""
    model = models["prefix"]
    caches = model.make_cache()
    from_features(model, golden, caches=caches)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this is for images")

    for cls, name in ((LoRA, "__call__"), (QKVLoRA, "__call__"), (ExpertLoRA, "__call__"), (ExpertLoRA, "by_expert")):
        monkeypatch.setattr(cls, name, refuse)
    monkeypatch.setattr(ImageRows, "find", refuse)
    monkeypatch.setattr("engine.families.zaya.masks.groups", refuse)
    mx.eval(model(mx.array([[60]]), caches), model(mx.array([[60, 61, 62]]), caches))

    config = json.loads((golden / "tiny_hf" / "config.json").read_text())
    del config["vision_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(golden / "tiny_hf" / "model.safetensors")
    text, _ = load(tmp_path)
    monkeypatch.setattr("engine.mlx.cpu.on_cpu", lambda: False)  # there a pass is one graph
    monkeypatch.setattr("engine.families.zaya.model.on_cpu", lambda: False)
    assert operations(model, tmp_path) == operations(text, tmp_path) > 100
    ids = mx.array([[2, 11, 12, 40, 9]])
    np.testing.assert_array_equal(np.array(model(ids)), np.array(text(ids)))


def operations(model: Model, folder: Path) -> int:
    """In the graph of a decode step of two rows, what is kept for later included."""
    caches = model.make_cache()
    mx.eval(model(mx.array([[1, 2, 3], [4, 5, 6]]), caches), [cache.state for cache in caches])
    logits = model(mx.array([[7], [8]]), caches)
    mx.export_to_dot(str(folder / "graph.dot"), logits, *[x for cache in caches for x in cache.state])
    return (folder / "graph.dot").read_text().count("shape=rectangle")


def test_a_skipped_image_token_has_no_expert_lora(models: dict[ImageMask, Model], golden: Path) -> None:
    """All tokens skip: then nothing of the experts is in the logits, and with other experts they are the same."""
    model = Model(models["block"].args)
    model.update(models["block"].parameters())
    before, _ = from_features(model, golden)
    for layer in model.layers:
        block = layer.mlp.zaya_block
        block.router.balancing_biases = mx.concatenate([mx.zeros((4,)), mx.array([10.0])])
    skipping, _ = from_features(model, golden)
    for layer in model.layers:
        mlp = layer.mlp.zaya_block.experts.switch_mlp
        mlp.gate_up_lora.up, mlp.down_lora.up = mlp.gate_up_lora.up + 1, mlp.down_lora.up + 1
    np.testing.assert_array_equal(from_features(model, golden)[0], skipping)
    assert np.abs(skipping - before).max() > 0.1


def test_image_tokens_skip_experts_in_the_reference(
    models: dict[ImageMask, Model], golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the comparison with the authors' logits covers it."""
    original, skipped = Router.__call__, []

    def counting(self: Router, x: mx.array, before: mx.array | None) -> tuple[mx.array, mx.array, mx.array]:
        choice, weight, state = original(self, x, before)
        skipped.append(int(mx.sum(choice[4:10] == 4)))  # the image tokens
        return choice, weight, state

    monkeypatch.setattr(Router, "__call__", counting)
    from_features(models["causal"], golden)
    assert sum(skipped) > 0


WAYS = ("__call__", "by_expert", "dense")
"""In which experts run: on a GPU, on a CPU, on CUDA if there are many tokens."""


@pytest.mark.parametrize("name", WAYS)
def test_all_image_tokens_may_skip_while_text_does_not(tiny: Model, name: str) -> None:
    """As in a short chunk; and the other way round, and all of them."""
    mlp: SwitchMLP = tiny.layers[1].mlp.zaya_block.experts.switch_mlp
    way = getattr(mlp, name)
    x, image = mx.random.normal((6, 64), key=mx.random.key(1)), np.array([True, True, True, False, False, False])
    without = way(x, mx.array([0, 1, 2, 2, 1, 0]))
    with_lora = way(x, mx.array([0, 1, 2, 2, 1, 0]), ImageRows.find(image))
    for choice, kept, expected in (
        ([4, 4, 4, 2, 1, 0], slice(3, 6), without),
        ([0, 1, 2, 4, 4, 4], slice(0, 3), with_lora),
        ([4] * 6, slice(0, 0), without),
    ):
        y = way(x, mx.array(choice), ImageRows.find(image))
        np.testing.assert_allclose(np.array(y[kept]), np.array(expected[kept]), rtol=0, atol=1e-5)
    assert np.abs(np.array(with_lora - without)[:3]).max() > 1e-3


@pytest.mark.parametrize("name", WAYS)
def test_expert_lora_against_its_definition(tiny: Model, name: str) -> None:
    """Token by token in float64, sorted by expert and not."""
    mlp: SwitchMLP = tiny.layers[1].mlp.zaya_block.experts.switch_mlp
    parameters = {name: np.array(x, np.float64) for name, x in tree_flatten(mlp.parameters())}
    rng, way = np.random.default_rng(3), getattr(mlp, name)
    for tokens in (5, 70):
        x, choice = rng.normal(size=(tokens, 64)).astype(np.float32), rng.integers(0, 4, tokens)
        image = rng.random(tokens) < 0.5
        actual = np.array(way(mx.array(x), mx.array(choice), ImageRows.find(image)))
        for t, (row, e) in enumerate(zip(x.astype(np.float64), choice, strict=True)):
            h = parameters["gate_up_proj.weight"][e] @ row
            if image[t]:
                h = h + parameters["gate_up_lora.up"][e] @ (parameters["gate_up_lora.down"][e] @ row)
            gate, up = np.split(h, 2)
            h = gate / (1 + np.exp(-gate)) * up
            y = parameters["down_proj.weight"][e] @ h
            if image[t]:
                y = y + parameters["down_lora.up"][e] @ (parameters["down_lora.down"][e] @ h)
            np.testing.assert_allclose(actual[t], y, rtol=0, atol=1e-5 * max(1.0, np.abs(y).max()))


# ---- embeddings, types, tensors --------------------------------------------------------------------------------


def test_features_take_the_places_of_image_tokens_in_order(tiny: Model) -> None:
    ids = mx.array([[1, IMAGE, 2], [IMAGE, 3, IMAGE]])
    features = mx.arange(3 * 64, dtype=mx.float32).reshape(3, 64)
    embeddings, image_mask = tiny.embed(ids, features)
    expected = np.array(tiny.model.embed_tokens(ids))
    expected[[0, 1, 1], [1, 0, 2]] = np.array(features)
    np.testing.assert_array_equal(np.array(embeddings), expected)
    assert image_mask is not None
    np.testing.assert_array_equal(np.array(image_mask), np.array(ids) == IMAGE)


def test_without_image_tokens_there_is_no_mask(tiny: Model) -> None:
    embeddings, image_mask = tiny.embed(mx.array([[1, 2]]), None)
    assert image_mask is None
    np.testing.assert_array_equal(np.array(embeddings), np.array(tiny.model.embed_tokens(mx.array([[1, 2]]))))
    assert tiny.embed(mx.array([[1, 2]]), mx.zeros((0, 64)))[1] is None


@pytest.mark.parametrize("given_features", [0, 1, 3])
def test_more_or_fewer_features_are_refused(tiny: Model, given_features: int) -> None:
    features = mx.zeros((given_features, 64)) if given_features else None
    with pytest.raises(RequestError, match=f"has 2 image tokens, but its images make {given_features}"):
        tiny.embed(mx.array([[IMAGE, 5, IMAGE]]), features)


@pytest.mark.parametrize("flag", [True, False])
def test_the_residual_stream_is_float32_whatever_the_flag(golden: Path, tmp_path: Path, flag: bool) -> None:
    """The authors' logits want it for one value, the error of bfloat16 for the other: see `ModelArgs`."""
    config = json.loads((golden / "tiny_hf" / "config.json").read_text()) | {"residual_in_fp32": flag}
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_mask": "causal"}))
    (tmp_path / "model.safetensors").symlink_to(golden / "tiny_hf" / "model.safetensors")
    model, args = load(tmp_path)
    assert args.residual_in_fp32 is flag
    close(*from_features(model, golden))

    half, _ = load(tmp_path, dtype=mx.bfloat16)
    streams, caches = [], half.make_cache()
    block = type(half.layers[0])
    original = block.__call__

    def watching(*arguments: Any) -> Any:
        out = original(*arguments)
        streams.append(out[1].dtype)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "__call__", watching)
        logits, _ = from_features(half, golden, caches=caches)
    assert streams == [mx.float32] * len(half.layers)
    assert logits.dtype == np.float32
    assert {x.dtype for cache in caches for x in cache.state} == {mx.bfloat16}


def test_lora_tensors_must_be_there(golden: Path, tmp_path: Path) -> None:
    tensors = dict(mx.load(str(golden / "tiny_hf" / "model.safetensors")))
    missing = "model.layers.2.mlp.zaya_block.experts.local_experts.3.lora_fc2.0.weight"
    del tensors[missing]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    (tmp_path / "config.json").write_text((golden / "tiny_hf" / "config.json").read_text())
    with pytest.raises(CheckpointError, match=f"1 tensor missing: {missing}"):
        load(tmp_path)
