"""Prompts on their way into caches: chunk by chunk, with the images that they show, from beginnings that are known.

A chunk is one prompt's, or several short prompts share one: those of a round, all different, are computed in one pass.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx

from engine.mlx.features import FeatureCache, PreparedImage
from engine.mlx.model import PaddedCache, RowCache, SeeingModel, TextModel
from engine.mlx.prefixes import PrefixCache, Prompt

_PADDING_SHARE = 0.25
"""The largest share of a chunk that may be padding: prompts of very different lengths do not share one."""


@dataclass(slots=True)
class Prefill:
    """A prompt that is being computed. `caches`, one per layer, hold its first `done` tokens.

    features  of the images of the next chunk, as far as they are computed.
    cached    tokens that were found among known beginnings.
    alone     it shares no pass: it was in one that failed.
    """

    prompt: Prompt
    caches: Sequence[RowCache] = ()
    features: list[mx.array] = field(default_factory=list)
    done: int = 0
    cached: int = 0
    alone: bool = False

    @property
    def complete(self) -> bool:
        return self.done == self.prompt.tokens

    @property
    def nbytes(self) -> int:
        """Memory of its caches."""
        return sum(cache.nbytes for cache in self.caches)

    def reset(self) -> None:
        """Let go of what is computed: it is to be computed again from its beginning."""
        self.caches, self.features = (), []
        self.done = self.cached = 0

    @property
    def beginning(self) -> bytes:
        """The name of what is done, at a cut."""
        return self.prompt.names[self.prompt.cuts.index(self.done)]


class Prefiller:
    """Computes prompts with a model, and keeps beginnings that may be asked for again.

    chunk        tokens of a pass, but for spans that no pass may split.
    image_token  stands in prompts for images; None: the model reads text only.
    """

    def __init__(self, model: TextModel, *, chunk: int, image_token: int | None = None) -> None:
        self._model = model
        self._chunk = chunk
        self._image_token = image_token
        self._features = FeatureCache(self._seeing.vision_tower) if image_token is not None else None
        self.prefixes = PrefixCache(model.copy_cache)

    @property
    def _seeing(self) -> SeeingModel:
        return cast(SeeingModel, self._model)  # whoever gives an image token gives such a model

    def plan(self, ids: list[int], images: Sequence[PreparedImage], written: Sequence[int] = ()) -> Prefill:
        """A prompt to compute, and behind it what a row has `written`. Raises RequestError: see `Prompt.of`."""
        spans = self._seeing.unsplittable(ids) if images else ()
        return Prefill(
            Prompt.of(ids, images, written=written, chunk=self._chunk, spans=spans, image_token=self._image_token)
        )

    def may_share(self, others: Sequence[Prefill], prefill: Prefill) -> bool:
        """True if a prompt may join others in one pass."""
        if not (self._is_short(others[0]) and self._is_short(prefill)):
            return False
        if any(prefill.prompt.names == other.prompt.names for other in others):
            return False  # of another call: it will find this one's beginning
        lengths = [each.prompt.tokens for each in (*others, prefill)]
        size = len(lengths) * max(lengths)
        return size <= self._chunk and sum(lengths) >= (1 - _PADDING_SHARE) * size

    def _is_short(self, prefill: Prefill) -> bool:
        """True for a prompt of one chunk, without images, of which nothing is known yet."""
        prompt = prefill.prompt
        if not self._model.takes_padding or prefill.alone or prefill.caches:
            return False
        return len(prompt.cuts) == 1 and not prompt.images and prompt.names[0] not in self.prefixes

    def advance(
        self, prefills: Sequence[Prefill], *, max_bytes: int, waited_for: Container[bytes] = ()
    ) -> Sequence[RowCache]:
        """Compute the next chunk of a prompt, or the features of one image in it, or several short prompts whole.

        max_bytes   memory for the beginnings that are kept.
        waited_for  names of the beginnings of other prompts in line: these are kept.

        Returns caches with a row for each prompt, in order. If it raises, no other prompt has been touched.
        """
        if len(prefills) > 1:
            return self._compute_together(prefills, max_bytes, waited_for)
        (prefill,) = prefills
        if not prefill.caches:
            self._begin(prefill, max_bytes)
        if not prefill.complete:
            self._compute_chunk(prefill, max_bytes, waited_for)
        return prefill.caches

    def keep_row(self, prefill: Prefill, caches: Sequence[Any], place: int) -> None:
        """Let a prompt have its own caches: a copy of its row in those that `advance` gave for several."""
        if not prefill.caches:
            prefill.caches = [cache.extract(place) for cache in caches]
            _evaluate(prefill.caches)  # as views they would keep all of the others in memory

    def _compute_together(
        self, prefills: Sequence[Prefill], max_bytes: int, waited_for: Container[bytes]
    ) -> Sequence[PaddedCache]:
        """Compute short prompts in one pass."""
        self.prefixes.shrink(max_bytes)
        lengths = [prefill.prompt.tokens for prefill in prefills]
        padding = [max(lengths) - length for length in lengths]
        ids = [prefill.prompt.ids[:-1] + [0] * pad for prefill, pad in zip(prefills, padding, strict=True)]
        caches = cast(Sequence[PaddedCache], self._model.make_cache(len(prefills)))
        for cache in caches:
            cache.prepare(lengths=lengths, right_padding=padding)
        self._model(mx.array(ids, dtype=mx.uint32), cache=caches)  # its logits are never evaluated
        for cache in caches:
            cache.finalize()
        _evaluate(caches)
        for place, prefill in enumerate(prefills):
            prefill.done = prefill.prompt.tokens
            if prefill.beginning in waited_for:
                self.keep_row(prefill, caches, place)
                self.prefixes.keep(prefill.beginning, prefill.caches, max_bytes)
        return caches

    def _begin(self, prefill: Prefill, max_bytes: int) -> None:
        """Caches to fill: those of the longest beginning that is known, or empty ones."""
        found = self.prefixes.longest(prefill.prompt)
        if found is not None:
            prefill.done, prefill.caches = found
            prefill.cached = prefill.done
        else:
            prefill.caches = self._model.make_cache()
        self.prefixes.shrink(max_bytes)

    def _compute_chunk(self, prefill: Prefill, max_bytes: int, waited_for: Container[bytes]) -> None:
        """Compute the next chunk, or, before it, the features of one image that it shows."""
        prompt = prefill.prompt
        end = next(cut for cut in prompt.cuts if cut > prefill.done)
        images, rows = prompt.images_within(prefill.done, end)
        if len(prefill.features) < len(images):
            assert self._features is not None, "a model that reads text only is given none"
            prefill.features.append(self._features.get(images[len(prefill.features)]))
        if len(prefill.features) < len(images):
            return
        chunk = mx.array(prompt.ids[prefill.done : end], dtype=mx.uint32)[None]  # [1, chunk]
        if images:
            features = mx.concatenate(prefill.features)[slice(*rows)]  # [image tokens in the chunk, hidden]
            embeddings, mask = self._seeing.embed(chunk, features)
            self._seeing(chunk, cache=prefill.caches, input_embeddings=embeddings, image_mask=mask)
        else:
            self._model(chunk, cache=prefill.caches)  # its logits are never evaluated
        mx.async_eval([cache.state for cache in prefill.caches])  # Python writes the next pass meanwhile
        prefill.done, prefill.features = end, []
        if prefill.beginning in waited_for or end == prompt.images_cut:  # a prompt's images may well come again
            self.prefixes.keep(prefill.beginning, prefill.caches, max_bytes)


def _evaluate(caches: Sequence[RowCache]) -> None:
    mx.eval([cache.state for cache in caches])
