"""Where prompts are cut, what their beginnings are called, and the cache of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

from engine.errors import RequestError
from engine.families.mlx_lm.model import AdaptedModel
from engine.families.zaya import masks
from engine.families.zaya.cache import CCACache
from engine.families.zaya.config import ImageMask
from engine.families.zaya.weights import load
from engine.mlx.prefixes import PrefixCache, Prompt

IMAGE = 127
TINY = Path(__file__).parents[2] / "golden" / "tiny_hf"


@dataclass(frozen=True)
class Picture:
    sha256: str
    tokens: int
    grid: tuple[int, int, int] = (1, 2, 2)

    @property
    def patches(self) -> np.ndarray:
        return np.zeros((4, 588), np.float32)


@dataclass(frozen=True)
class Drawn:
    """A prompt as hypothesis draws it: text and images in turn."""

    ids: list[int]
    images: list[Picture]


@st.composite
def prompts(draw: st.DrawFn) -> Drawn:
    ids, images = [2], []
    for tokens in draw(st.lists(st.integers(0, 9), max_size=6)):
        if tokens % 2:
            images.append(Picture(draw(st.sampled_from("abc")) * 64, tokens))
            ids += [IMAGE] * tokens
        ids += draw(st.lists(st.integers(3, 5), max_size=tokens))
    return Drawn([*ids, 9, 9, 9, 9], images)


def plan(drawn: Drawn, chunk: int, mask: ImageMask = "prefix") -> Prompt:
    spans = masks.spans([token == IMAGE for token in drawn.ids], mask) if drawn.images else ()
    return Prompt.of(drawn.ids, drawn.images, chunk=chunk, spans=spans, image_token=IMAGE)


mask_names = st.sampled_from(["prefix", "block", "pair", "causal"])


@given(drawn=prompts(), chunk=st.integers(1, 12), mask=mask_names)
def test_chunks_are_short_whole_and_split_no_span(drawn: Drawn, chunk: int, mask: ImageMask) -> None:
    prompt = plan(drawn, chunk, mask)
    spans = masks.spans([token == IMAGE for token in drawn.ids], mask)
    edges = [0, *prompt.cuts]
    assert edges[-1] == prompt.tokens == len(drawn.ids) - 1
    for start, end in pairwise(edges):
        assert start < end
        assert end - start <= chunk or any(start == first and end == stop for first, stop in spans)
        assert not any(first < end < stop for first, stop in spans)
    if drawn.images:
        assert prompt.images_cut in prompt.cuts


@given(drawn=prompts(), chunk=st.integers(1, 12), mask=mask_names)
def test_each_chunk_gets_the_features_of_its_places(drawn: Drawn, chunk: int, mask: ImageMask) -> None:
    """Features numbered through: what the chunks get, one after the other, is all of them in order."""
    prompt = plan(drawn, chunk, mask)
    rows = iter(range(sum(image.tokens for image in drawn.images)))
    features = [(image, [next(rows) for _ in range(image.tokens)]) for image in drawn.images]
    given_rows: list[int] = []
    for start, end in pairwise([0, *prompt.cuts]):
        images, (first, stop) = prompt.images_within(start, end)
        at = next((i for i in range(len(features)) if [f[0] for f in features[i : i + len(images)]] == images), 0)
        # The same image may be there twice: the rows tell which of them is meant.
        while images and first + features[at][1][0] < len(given_rows):
            at += 1
        joined = [row for _, numbers in features[at : at + len(images)] for row in numbers]
        given_rows += joined[first:stop]
        assert stop - first == drawn.ids[start:end].count(IMAGE)
    assert given_rows == list(range(len(prompt.places)))


@settings(max_examples=200)
@given(one=prompts(), two=prompts(), chunk=st.integers(1, 6), mask=mask_names)
def test_a_shared_name_means_the_same_tokens_images_and_chunks(
    one: Drawn, two: Drawn, chunk: int, mask: ImageMask
) -> None:
    a, b = plan(one, chunk, mask), plan(two, chunk, mask)
    for name in set(a.names) & set(b.names):
        i, j = a.names.index(name), b.names.index(name)
        assert a.cuts[: i + 1] == b.cuts[: j + 1]
        cut = a.cuts[i]
        assert one.ids[:cut] == two.ids[:cut]
        shown = [p.images_within(0, cut)[0] for p in (a, b)]
        assert [image.sha256 for image in shown[0]] == [image.sha256 for image in shown[1]]


def test_the_same_text_with_another_image_has_another_name() -> None:
    ids = [2, IMAGE, IMAGE, 5, 6, 7, 8, 9, 9]
    cat, dog = (plan(Drawn(ids, [Picture(letter * 64, 2)]), chunk=3) for letter in "cd")
    assert cat.cuts == dog.cuts == (5, 8)
    assert not set(cat.names) & set(dog.names)


def test_images_in_another_order_have_another_name() -> None:
    ids = [2, IMAGE, IMAGE, 5, IMAGE, IMAGE, 6, 7, 8, 9]
    pictures = [Picture("a" * 64, 2), Picture("b" * 64, 2)]
    one, two = (plan(Drawn(ids, order), chunk=4) for order in (pictures, pictures[::-1]))
    assert not set(one.names) & set(two.names)


@pytest.mark.parametrize("mask", ["prefix", "block", "pair", "causal"])
def test_a_prompt_that_ends_with_its_image_is_refused(mask: ImageMask) -> None:
    with pytest.raises(RequestError, match="put text after it"):
        plan(Drawn([2, IMAGE, IMAGE], [Picture("a" * 64, 2)]), chunk=4, mask=mask)


# ---- the cache


def kv_cache(tokens: int, seed: int = 0) -> KVCache:
    cache = KVCache()
    mx.random.seed(seed)
    cache.update_and_fetch(mx.random.normal((1, 2, tokens, 8)), mx.random.normal((1, 2, tokens, 8)))
    return cache


def cca_cache(tokens: int) -> CCACache:
    cache = CCACache()
    cache.fetch_tail(1, 4, mx.float32)
    cache.update_tail(mx.random.normal((1, tokens + 2, 4)))
    cache.update_and_fetch(mx.random.normal((1, 2, tokens, 8)), mx.random.normal((1, 2, tokens, 8)))
    return cache


def copied(caches: Sequence[Any]) -> list[Any]:
    """As the model copies them whose caches they are."""
    model = AdaptedModel(nn.Module()) if isinstance(caches[0], KVCache) else load(TINY)[0]
    return list(model.copy_cache(caches) or [])


def arrays(cache: KVCache | CCACache) -> list[np.ndarray]:
    if isinstance(cache, KVCache):
        return [np.array(x) for x in cache.keys_and_values()]
    return [np.array(x[:, :, : cache.size()] if x.ndim == 4 else x) for x in cache.state]


@pytest.mark.parametrize("make", [kv_cache, cca_cache])
@pytest.mark.parametrize("tokens", [5, 256])
def test_a_copy_and_its_original_do_not_touch_each_other(make: type, tokens: int) -> None:
    original = make(tokens)
    before = arrays(original)
    (copy,) = copied([original])
    for writer, other in ((original, copy), (copy, original)):
        kept = arrays(other)
        for _ in range(2):  # the second write is in place
            if isinstance(writer, CCACache):
                writer.update_tail(mx.zeros((1, 3, 4)))
            writer.update_and_fetch(mx.zeros((1, 2, 1, 8)), mx.zeros((1, 2, 1, 8)))
        assert all(np.array_equal(a, b) for a, b in zip(kept, arrays(other), strict=True))
    for grown in (original, copy):
        assert all(np.array_equal(a[:, :, :tokens], b) for a, b in zip(arrays(grown)[:2], before[:2], strict=True))


def test_caches_of_unknown_kinds_are_not_kept() -> None:
    adapted = AdaptedModel(nn.Module())
    assert adapted.copy_cache([KVCache(), RotatingKVCache(8)]) is None
    prefixes = PrefixCache(adapted.copy_cache)
    prefixes.keep(b"a", [ArraysCache(1)], 1 << 20)
    assert prefixes.nbytes == 0
    assert b"a" not in prefixes


def named(name: bytes, tokens: int = 4) -> Prompt:
    return Prompt(list(range(tokens + 1)), (), (), (tokens,), (name,), None)


def test_the_least_recently_used_is_let_go_of_first() -> None:
    each = kv_cache(4).nbytes // 64  # without the room to grow
    prefixes = PrefixCache(copied)
    for i, name in enumerate((b"a", b"b")):
        prefixes.keep(name, [kv_cache(4, seed=i)], 1 << 20)
    assert prefixes.nbytes == 2 * each
    found = prefixes.longest(named(b"a"))  # b is now the older one
    assert found is not None
    assert found[0] == 4
    prefixes.keep(b"c", [kv_cache(4)], 2 * each + 64 * each)
    prefixes.shrink(2 * each)
    assert [name in prefixes for name in (b"a", b"b", b"c")] == [True, False, True]
    assert prefixes.nbytes == 2 * each
    prefixes.shrink(0)
    assert prefixes.nbytes == 0
    assert prefixes.longest(named(b"a")) is None


def test_what_exceeds_the_room_alone_is_not_kept() -> None:
    prefixes = PrefixCache(copied)
    prefixes.keep(b"a", [kv_cache(4)], 100)
    assert prefixes.nbytes == 0


def test_the_longest_beginning_is_found() -> None:
    prefixes = PrefixCache(copied)
    prompt = Prompt(list(range(10)), (), (), (3, 6, 9), (b"3", b"6", b"9"), None)
    prefixes.keep(b"3", [kv_cache(3)], 1 << 20)
    prefixes.keep(b"6", [kv_cache(6)], 1 << 20)
    found = prefixes.longest(prompt)
    assert found is not None
    (cache,) = found[1]
    assert isinstance(cache, KVCache)
    assert found[0] == cache.size() == 6
