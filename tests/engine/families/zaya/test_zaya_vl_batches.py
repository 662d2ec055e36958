"""Prompts with images: however they reach the model, each row's logits are those it has alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.families.zaya import CCACache, Model
from engine.families.zaya.config import ImageMask

TOLERANCE = 2e-4  # logits up to 28; sums in another order move those of image tokens by up to 6e-5
MASKS: tuple[ImageMask, ...] = get_args(ImageMask)
IMAGE = 127
quick = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Prompt:
    ids: tuple[int, ...]

    @property
    def features(self) -> np.ndarray:
        """Of its images, [M, 64]: any numbers, the same at every call."""
        count = self.ids.count(IMAGE)
        return np.random.default_rng(len(self.ids)).normal(0.0, 1.0, (count, 64)).astype(np.float32)


def prompt(*parts: int | tuple[int, int]) -> Prompt:
    """Token ids, with (127, n) for an image of n tokens between its start and its end."""
    ids: list[int] = []
    for part in parts:
        ids += [part] if isinstance(part, int) else [125, *[part[0]] * part[1], 126]
    return Prompt(tuple(ids))


TEXT = prompt(2, 11, 12, 40, 41, 42, 9)
SHORT = prompt(2, 77)
ONE = prompt(2, 11, (IMAGE, 6), 30, 31, 32)
TWO = prompt(2, 50, (IMAGE, 4), 40, (IMAGE, 5), 30, 31)
EARLY = prompt(2, (IMAGE, 3), 30, 31, 32, 33, 34, 35, 36, 37, 38)
PROMPTS = (TEXT, SHORT, ONE, TWO, EARLY)

Alone = Callable[[Model, Prompt], np.ndarray]


@pytest.fixture(scope="module")
def alone() -> Alone:
    """A prompt's logits [L, V] by itself, in one pass, unpadded: what every other way is held against."""
    known: dict[tuple[ImageMask, Prompt], np.ndarray] = {}

    def run(model: Model, one: Prompt) -> np.ndarray:
        key = (model.args.image_mask, one)
        if key not in known:
            known[key] = feed(model, [one], model.make_cache())[0]
        return known[key]

    return run


def feed(
    model: Model, prompts: Sequence[Prompt], caches: list[CCACache], cuts: Sequence[int] = (), side: str = "left"
) -> np.ndarray:
    """Logits [B, L, V] of prompts padded on a side, in passes that end at `cuts` and at the end."""
    width = max(len(one.ids) for one in prompts)
    pads = [[0] * (width - len(one.ids)) for one in prompts]
    rows = [[*pad, *one.ids] if side == "left" else [*one.ids, *pad] for pad, one in zip(pads, prompts, strict=True)]
    ids = mx.array(rows)
    features = np.concatenate([one.features for one in prompts])
    embeddings, image_mask = model.embed(ids, mx.array(features) if len(features) else None)
    parts, start = [], 0
    for end in (*sorted(set(cuts)), width):
        part = slice(start, end)
        images = None if image_mask is None or not mx.any(image_mask[:, part]) else image_mask[:, part]
        parts.append(np.array(model(ids[:, part], caches, embeddings[:, part], images)))
        start = end
    return np.concatenate(parts, axis=1)


def padded(model: Model, prompts: Sequence[Prompt]) -> list[CCACache]:
    width = max(len(one.ids) for one in prompts)
    caches = model.make_cache()
    for cache in caches:
        cache.prepare(left_padding=[width - len(one.ids) for one in prompts])
    return caches


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


# ---- ways to compute --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", MASKS)
def test_the_ways_of_a_gpu_give_the_same(
    models: dict[ImageMask, Model], alone: Alone, monkeypatch: pytest.MonkeyPatch, how: ImageMask
) -> None:
    """MLX's kernels for attention and experts, run here on the CPU; 75 tokens are sorted by expert."""
    mixed = [alone(models[how], one) for one in PROMPTS]
    monkeypatch.setattr("engine.mlx.cpu.on_cpu", lambda: False)
    monkeypatch.setattr("engine.families.zaya.model.on_cpu", lambda: False)
    for row, logits in zip(feed(models[how], PROMPTS, padded(models[how], PROMPTS)), mixed, strict=True):
        close(row[-len(logits) :], logits)


@pytest.mark.parametrize("how", MASKS)
def test_attention_in_blocks_gives_the_same(
    models: dict[ImageMask, Model], alone: Alone, monkeypatch: pytest.MonkeyPatch, how: ImageMask
) -> None:
    expected = alone(models[how], TWO)
    monkeypatch.setattr("engine.families.zaya.attention._BLOCK_SCORES", 4 * len(TWO.ids) * 3)
    close(feed(models[how], [TWO], models[how].make_cache())[0], expected)


# ---- rows of a batch -------------------------------------------------------------------------------------------


@quick
@given(order=st.permutations(PROMPTS), how=st.sampled_from(MASKS), side=st.sampled_from(["left", "right"]))
def test_rows_with_and_without_images(
    models: dict[ImageMask, Model], alone: Alone, order: list[Prompt], how: ImageMask, side: str
) -> None:
    """In any order, padded on either side, and then decoded together."""
    model, width = models[how], max(len(one.ids) for one in PROMPTS)
    caches = padded(model, order) if side == "left" else model.make_cache()
    if side == "right":
        for cache in caches:
            lengths = [len(one.ids) for one in order]
            cache.prepare(lengths=lengths, right_padding=[width - length for length in lengths])
    logits = feed(model, order, caches, side=side)
    for cache in caches:
        cache.finalize()
    after = np.array(model(mx.array([[60]] * len(order)), caches))
    for i, one in enumerate(order):
        length = len(one.ids)
        close(logits[i, -length:] if side == "left" else logits[i, :length], alone(model, one))
        close(after[i, 0], continued(model, one))


def continued(model: Model, one: Prompt) -> np.ndarray:
    """Logits [V] after `one` and the token 60, all in one pass."""
    ids = mx.array([[*one.ids, 60]])
    embeddings, image_mask = model.embed(ids, mx.array(one.features))
    return np.array(model(ids, model.make_cache(), embeddings, image_mask))[0, -1]


@pytest.mark.parametrize("how", MASKS)
def test_padding_is_no_image_whatever_the_mask_says(
    models: dict[ImageMask, Model], alone: Alone, how: ImageMask
) -> None:
    model, caches = models[how], padded(models[how], [TEXT, EARLY])
    pad = len(EARLY.ids) - len(TEXT.ids)
    ids = mx.array([[*[0] * pad, *TEXT.ids], list(EARLY.ids)])
    embeddings, image_mask = model.embed(ids, mx.array(EARLY.features))
    assert image_mask is not None
    image_mask[0, :pad] = True
    close(np.array(model(ids, caches, embeddings, image_mask))[0, pad:], alone(model, TEXT))


@pytest.mark.parametrize("how", MASKS)
def test_rows_merged_after_their_prompts(models: dict[ImageMask, Model], how: ImageMask) -> None:
    """Merged, copied, taken apart, and decoded; images leave the batch's later text alone."""
    model = models[how]
    apart = []
    for one in (ONE, TEXT, TWO):
        apart.append(model.make_cache())
        feed(model, [one], apart[-1])
    caches = [CCACache.merge(layers) for layers in zip(*apart, strict=True)]
    caches = [CCACache.merge([cache.extract(2), cache.repeat(2), cache.extract(0)]) for cache in caches]
    for cache in caches:
        cache.filter([7, 0, 3, 2])
    assert [caches[0].images_end[i] for i in range(4)] == [9, 15, 0, 9]
    logits = np.array(model(mx.array([[60]] * 4), caches))
    for i, one in enumerate((ONE, TWO, TEXT, ONE)):
        close(logits[i, 0], continued(model, one))


# ---- passes ----------------------------------------------------------------------------------------------------


@quick
@given(data=st.data(), one=st.sampled_from([ONE, TWO, EARLY]), how=st.sampled_from(MASKS))
def test_any_allowed_cut_equals_one_pass(
    models: dict[ImageMask, Model], alone: Alone, data: st.DataObject, one: Prompt, how: ImageMask
) -> None:
    """Passes of one token too, those of text before an image included."""
    model = models[how]
    spans = model.unsplittable(one.ids)
    allowed = [i for i in range(1, len(one.ids)) if not any(start < i < end for start, end in spans)]
    cuts = data.draw(st.lists(st.sampled_from(allowed), max_size=len(allowed), unique=True))
    close(feed(model, [one], model.make_cache(), cuts)[0], alone(model, one))


@pytest.mark.parametrize("cut", range(1, len(ONE.ids)))
def test_a_pass_may_begin_on_any_token_of_an_image_if_causal(
    models: dict[ImageMask, Model], alone: Alone, cut: int
) -> None:
    """The delayed values of its first token come from the token before, kept as it was before any LoRA."""
    close(feed(models["causal"], [ONE], models["causal"].make_cache(), [cut])[0], alone(models["causal"], ONE))


@quick
@given(cuts=st.lists(st.integers(1, 15), max_size=15))
def test_padded_rows_in_passes(models: dict[ImageMask, Model], alone: Alone, cuts: list[int]) -> None:
    """Of one token, or of padding only for some row; image and text rows side by side."""
    logits = feed(models["causal"], PROMPTS, padded(models["causal"], PROMPTS), cuts)
    for row, one in zip(logits, PROMPTS, strict=True):
        close(row[-len(one.ids) :], alone(models["causal"], one))


def merged_starts(model: Model) -> list[CCACache]:
    """Rows that have seen ONE and EARLY up to their images: merged, repeated, taken apart, reordered."""
    starts = [model.make_cache(), model.make_cache()]
    for one, caches in zip((ONE, EARLY), starts, strict=True):
        model(mx.array([one.ids[: one.ids.index(IMAGE)]]), caches)
    caches = [CCACache.merge([a.repeat(2), b]) for a, b in zip(*starts, strict=True)]
    caches = [CCACache.merge([cache.extract(2), cache.extract(1)]) for cache in caches]
    for cache in caches:
        cache.filter([1, 0])
    return caches


def padded_starts(model: Model) -> list[CCACache]:
    """The same rows, prefilled together with padding after the shorter one."""
    caches = model.make_cache()
    for cache in caches:
        cache.prepare(lengths=[3, 2], right_padding=[0, 1])
    model(mx.array([list(ONE.ids[:3]), [*EARLY.ids[:2], 0]]), caches)
    for cache in caches:
        cache.finalize()
    return caches


@pytest.mark.parametrize("starts", [merged_starts, padded_starts])
def test_rows_joined_just_before_their_images(
    models: dict[ImageMask, Model], alone: Alone, starts: Callable[[Model], list[CCACache]]
) -> None:
    """What an image's first token needs of the one before goes with the row."""
    model = models["causal"]
    caches = starts(model)
    rest = [Prompt(one.ids[one.ids.index(IMAGE) :][:6]) for one in (ONE, EARLY)]
    features = np.concatenate([ONE.features, EARLY.features])
    ids = mx.array([list(one.ids) for one in rest])
    embeddings, image_mask = model.embed(ids, mx.array(features))
    logits = np.array(model(ids, caches, embeddings, image_mask))
    for i, one in enumerate((ONE, EARLY)):
        start = one.ids.index(IMAGE)
        close(logits[i], alone(model, one)[start : start + 6])


@pytest.mark.parametrize(("how", "cut"), [("prefix", 2), ("prefix", 6), ("prefix", 9), ("block", 6), ("pair", 9)])
def test_a_pass_that_splits_what_sees_each_other_is_refused(
    models: dict[ImageMask, Model], how: ImageMask, cut: int
) -> None:
    one = ONE if how != "pair" else TWO
    assert any(start < cut < end for start, end in models[how].unsplittable(one.ids))
    with pytest.raises(ValueError, match="see each other"):
        feed(models[how], [one], models[how].make_cache(), [cut])
