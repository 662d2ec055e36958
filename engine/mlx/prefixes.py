"""Beginnings of prompts that need not be computed twice.

A prompt is computed in chunks. Where it is cut depends on the prompt alone, never on what is cached or who else
waits: a prompt that starts from a cached beginning then goes on in the very chunks that it would have had without,
and gets the same numbers. Only at cuts are caches kept and found. That is all there can be: the state of ZAYA1's
convolutions cannot be trimmed to an earlier token, nor can a beginning end inside a span whose tokens see each other
both ways.

    tokens   B I I I I I E t t t t t t t t        I: image; [0, 7) is unsplittable; chunks of 4
    cuts                   ^       ^     ^        7, 11 and 14: the last token is fed by the decode batch

A beginning is named by a digest of its tokens *and* of the images inside: the tokens of all images are alike.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from engine.errors import RequestError
from engine.mlx.features import PreparedImage
from engine.mlx.model import RowCache

Span = tuple[int, int]
"""A half-open range of tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as it is computed.

    images        in the order of their places.
    places        positions of image tokens.
    cuts          where chunks end, ascending; the last is len(ids) - 1.
    names         of the beginnings that end there.
    images_cut    the first cut with all images before it; None without images.
    """

    ids: list[int]
    images: tuple[PreparedImage, ...]
    places: tuple[int, ...]
    cuts: tuple[int, ...]
    names: tuple[bytes, ...]
    images_cut: int | None

    @classmethod
    def of(
        cls,
        ids: list[int],
        images: Sequence[PreparedImage],
        *,
        written: Sequence[int] = (),
        chunk: int,
        spans: Sequence[Span] = (),
        image_token: int | None = None,
    ) -> Prompt:
        """Plan a prompt. `spans` may not be split, so a chunk may exceed `chunk`; they are in order, without overlap.

        written  follows the prompt's ids: the model's text, in which an image token shows no image.

        Raises RequestError if the prompt ends with an image or inside a span: its last token is fed alone.
        """
        places = tuple(i for i, token in enumerate(ids) if token == image_token) if images else ()
        images_end = max([place + 1 for place in places[-1:]] + [stop for _, stop in spans], default=0)
        if images_end >= len(ids):
            raise RequestError(
                "the prompt ends right behind an image: put text after it, or use the model's own chat template"
            )
        ids = [*ids, *written]
        cuts = _cuts(len(ids) - 1, chunk, spans, images_end)
        names = _names(ids, cuts, images, places)
        return cls(ids, tuple(images), places, cuts, names, images_end if images else None)

    @property
    def tokens(self) -> int:
        """To compute before the rows start: all but the last."""
        return len(self.ids) - 1

    def images_within(self, start: int, end: int) -> tuple[list[PreparedImage], Span]:
        """The images that have places among tokens [start, end), and which rows of all their features these are."""
        first, stop = bisect_left(self.places, start), bisect_left(self.places, end)
        found, begin, skipped = [], 0, 0
        for image in self.images:
            if begin + image.tokens <= first:
                skipped += image.tokens
            elif begin < stop:
                found.append(image)
            begin += image.tokens
        return found, (first - skipped, stop - skipped)


def _cuts(tokens: int, chunk: int, spans: Sequence[Span], images_end: int) -> tuple[int, ...]:
    """Ends of the chunks of `tokens` tokens. Each depends on the one before and on the prompt, on nothing else."""
    cuts: list[int] = []
    at = 0
    while at < tokens:
        end = min(at + chunk, tokens, images_end if images_end > at else tokens)
        for start, stop in spans:
            if start < end < stop:
                end = start if start > at else stop
        cuts.append(end)
        at = end
    return tuple(cuts)


def _names(
    ids: Sequence[int], cuts: Sequence[int], images: Sequence[PreparedImage], places: Sequence[int]
) -> tuple[bytes, ...]:
    """Digests of the beginnings that end at `cuts`; an image counts from its first token on."""
    starts, begin = [], 0
    for image in images:
        starts.append(places[begin])
        begin += image.tokens
    names: list[bytes] = []
    at, name = 0, b""
    for cut in cuts:
        inside = [image.sha256 for image, start in zip(images, starts, strict=True) if at <= start < cut]
        name = hashlib.sha256(name + array("I", ids[at:cut]).tobytes() + "".join(inside).encode()).digest()
        names.append(name)
        at = cut
    return tuple(names)


@dataclass(frozen=True, slots=True)
class _Entry:
    caches: Sequence[RowCache]
    nbytes: int


class PrefixCache:
    """Caches of one row at cuts of prompts that came before, the least recently used let go of first.

    For the one thread that touches MLX.

    copy  `TextModel.copy_cache`; of a model whose caches cannot be copied, nothing is kept.
    """

    def __init__(self, copy: Callable[[Sequence[Any]], Sequence[RowCache] | None]) -> None:
        self._copy = copy
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the most recently used last
        self.nbytes = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._entries

    def longest(self, prompt: Prompt) -> tuple[int, Sequence[RowCache]] | None:
        """How many tokens of a prompt are here, and caches that hold them: the caller's own. None: no beginning."""
        for cut, name in zip(reversed(prompt.cuts), reversed(prompt.names), strict=True):
            entry = self._entries.get(name)
            if entry is not None:
                self._entries.move_to_end(name)
                caches = self._copy(entry.caches)
                assert caches is not None, "what was copied once can be copied again"
                return cut, caches
        return None

    def keep(self, name: bytes, caches: Sequence[RowCache], max_bytes: int) -> None:
        """Keep a copy of caches that stand at a cut, within `max_bytes` for all that is kept."""
        if name in self._entries or sum(cache.nbytes for cache in caches) > max_bytes:
            return
        copies = self._copy(caches)
        if copies is None:
            return
        mx.eval([cache.state for cache in copies])
        entry = _Entry(copies, sum(cache.nbytes for cache in copies))
        self._entries[name] = entry
        self.nbytes += entry.nbytes
        self.shrink(max_bytes)

    def shrink(self, max_bytes: int) -> None:
        """Let go of what exceeds `max_bytes`."""
        while self.nbytes > max_bytes and self._entries:
            _, entry = self._entries.popitem(last=False)
            self.nbytes -= entry.nbytes
