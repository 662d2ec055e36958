"""Who sees whom around images: against the definition, position by position."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.families.zaya import CCACache, Model, ModelArgs
from engine.families.zaya.config import ImageMask
from engine.families.zaya.masks import groups, refuse_split, spans, with_groups

MASKS: tuple[ImageMask, ...] = get_args(ImageMask)
CLOSED: tuple[ImageMask, ...] = ("prefix", "block", "pair")

quick = settings(max_examples=60, deadline=None, derandomize=True)
rows_of_flags = st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=4)
flags = st.lists(st.booleans(), min_size=1, max_size=12)


def sees(image: list[bool], how: ImageMask, q: int, k: int) -> bool:
    """The rule for one pair of positions of a row that is in one pass whole."""
    if k <= q:
        return True
    match how:
        case "causal":
            return False
        case "pair":
            return image[q] and image[k]
        case "block":
            return all(image[q : k + 1])
        case "prefix":
            return any(image) and q > 0 and k < max(i for i, flag in enumerate(image) if flag) + 3


@quick
@given(rows=rows_of_flags, how=st.sampled_from(MASKS), side=st.sampled_from(["left", "right"]))
def test_the_mask_is_the_definition(rows: list[list[bool]], how: ImageMask, side: Literal["left", "right"]) -> None:
    width = max(map(len, rows))
    padding = [width - len(row) for row in rows]
    cache = CCACache()
    if side == "left":
        cache.prepare(left_padding=padding)
    else:
        cache.prepare(lengths=[len(row) for row in rows], right_padding=padding)
    cache.adopt(len(rows))
    columns = cache.columns(width)
    image = np.zeros((len(rows), width), bool)
    for b, (first, end) in enumerate(columns):
        assert end - first == len(rows[b])
        image[b, first:end] = rows[b]
    mask = np.array(with_groups(cache.mask_array(width), *groups(image, columns, how)))
    assert mask.shape == (len(rows), 1, width, width)
    for b, (first, end) in enumerate(columns):
        n = len(rows[b])
        expected = [[sees(rows[b], how, q, k) for k in range(n)] for q in range(n)]
        np.testing.assert_array_equal(mask[b, 0, first:end, first:end], expected)
        assert not mask[b, 0, first:end, :first].any()  # no real token sees padding before it ...
        assert not mask[b, 0, first:end, end:].any()  # ... or after it
        assert mask[b, 0].diagonal().all()  # and no softmax is empty


def test_keys_of_earlier_passes_are_in_no_group() -> None:
    past, image = 3, np.array([[True, True, False]])
    mask = mx.array(np.tri(3, past + 3, past, dtype=bool))[None, None]
    seen = np.array(with_groups(mask, *groups(image, [(0, 3)], "block")))[0, 0, :, past:].astype(int)
    np.testing.assert_array_equal(seen, [[1, 1, 0], [1, 1, 0], [1, 1, 1]])


@quick
@given(image=flags, how=st.sampled_from(MASKS))
def test_spans_hold_all_who_see_each_other_and_no_more(image: list[bool], how: ImageMask) -> None:
    found = spans(image, how)
    assert found == sorted(found)
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    positions = range(len(image))
    ahead = [(q, k) for q in positions for k in positions[q + 1 :] if sees(image, how, q, k)]
    assert all(any(start <= q and k < end for start, end in found) for q, k in ahead)
    for start, end in found:
        for cut in range(start + 1, end):
            # BOS sees itself only, so that `prefix` could begin after it; it is kept with the rest.
            assert any(q < cut <= k for q, k in ahead) or (how == "prefix" and cut == 1)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("prefix", [(0, 12)]), ("block", [(2, 5), (8, 10)]), ("pair", [(2, 10)]), ("causal", [])],
)
def test_spans_of_a_prompt_with_two_images(tiny: Model, how: ImageMask, expected: list[tuple[int, int]]) -> None:
    ids = [2, 125, 127, 127, 127, 126, 40, 125, 127, 127, 126, 30, 31, 32]
    assert spans([token == 127 for token in ids], how) == expected
    model = Model(ModelArgs(**{**vars(tiny.args), "image_mask": how}))
    assert model.unsplittable(ids) == expected
    assert model.unsplittable([2, 30, 31]) == []


def test_a_prefix_ends_with_the_prompt() -> None:
    assert spans([False, True], "prefix") == [(0, 2)]
    assert spans([False, True, False], "prefix") == [(0, 3)]


@quick
@given(image=flags, cut=st.integers(0, 12), how=st.sampled_from(MASKS))
def test_a_pass_may_begin_where_no_span_is_open(image: list[bool], cut: int, how: ImageMask) -> None:
    cut = min(cut, len(image))
    before, after = image[:cut], image[cut:]
    images_end = max((i + 1 for i, flag in enumerate(before) if flag), default=0)
    inside = any(start < cut < end for start, end in spans(image, how))
    # One text token alone cannot be told from the first that is written after the prompt.
    if inside and (len(after) > 1 or any(after)):
        with pytest.raises(ValueError, match="see each other"):
            refuse_split(after, cut, images_end, how)
    else:
        refuse_split(after, cut, images_end, how)
