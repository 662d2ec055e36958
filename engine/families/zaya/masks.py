"""Who sees whom around images.

Text is causal: a token sees itself and what came before. For image tokens there are four readings (`image_mask` in
the configuration), of which the published model's own code holds two:

    prefix   all tokens up to the second after the last image see each other, but the first token (BOS) only itself;
             later ones are causal. The authors' flash-attention path, which their model card offers; the default
    block    the tokens of one image see each other
    pair     the image tokens of a row see each other, across its images
    causal   as text. The authors' other paths

Each adds groups of tokens that see each other to the causal mask. A group must be in one pass whole: its first
tokens' keys and values depend on its last. Positions here are a row's own, from its first token, padding apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from engine.families.zaya.config import ImageMask

Flags = Sequence[bool] | np.ndarray
"""Whether each token of a row is an image's."""
_AFTER_LAST_IMAGE = 2
"""Tokens after the last image that `prefix` takes in, as the authors' code does."""


def spans(image: Flags, how: ImageMask) -> list[tuple[int, int]]:
    """Half-open ranges of tokens that one pass must hold whole, in order; `image` tells a row's image tokens."""
    images = _runs(image)
    if not images or how == "causal":
        return []
    if how == "block":
        return images
    last = images[-1][1]
    return [(images[0][0], last)] if how == "pair" else [(0, min(last + _AFTER_LAST_IMAGE, len(image)))]


def _runs(image: Flags) -> list[tuple[int, int]]:
    """Ranges of neighbouring image tokens: the images, since other tokens stand between two of them."""
    edges = np.flatnonzero(np.diff(np.asarray(image, np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def refuse_split(image: Flags, start: int, images_end: int, how: ImageMask) -> None:
    """Raise ValueError if a pass begins within a range that `spans` gives.

    image       which of the row's tokens in this pass are image tokens, the row's padding left out
    start       position of the first of them; `images_end`: that after the last image token of earlier passes, or 0
    """
    if not start or how == "causal":
        return
    if how == "prefix":
        # One token alone may be the first that is written after a prompt that ends there.
        split = any(image) or (len(image) > 1 and bool(images_end) and start < images_end + _AFTER_LAST_IMAGE)
    elif how == "pair":
        split = any(image) and bool(images_end)
    else:
        split = bool(len(image)) and bool(image[0]) and images_end == start
    if split:
        raise ValueError(
            f"tokens from position {start} on were given apart from those before them, but with image_mask "
            f"{how!r} they see each other (the last image before ends at {images_end}); see Model.unsplittable"
        )


def groups(image: np.ndarray, real: Sequence[tuple[int, int]], how: ImageMask) -> tuple[np.ndarray, np.ndarray]:
    """The group of each token of a pass as one that sees and as one that is seen, each [B, n]; 0 is none.

    image [B, n] bool; `real` gives each row's columns that are not padding. A row with images begins in this pass,
    or has its groups whole in it: see `refuse_split`.
    """
    seen = np.zeros(image.shape, np.int32)
    for b, (first, end) in enumerate(real):
        for number, (i, j) in enumerate(spans(image[b, first:end], how), 1):
            seen[b, first + i : first + j] = number
    if how == "pair":
        seen[~image] = 0  # the text between images
    sees = seen.copy()
    if how == "prefix":
        for b, (first, end) in enumerate(real):
            if first < end:
                sees[b, first] = 0
    return sees, seen


def with_groups(mask: mx.array, sees: np.ndarray, seen: np.ndarray) -> mx.array:
    """mask [B, 1, n, total], to which the last n keys' groups are added; sees and seen [B, n] as from `groups`."""
    past = mask.shape[-1] - seen.shape[1]
    keys = mx.array(np.pad(seen, ((0, 0), (past, 0))))[:, None, None]  # [B, 1, 1, total]
    queries = mx.array(sees)[:, None, :, None]  # [B, 1, n, 1]
    return mask | ((queries == keys) & (queries > 0))
