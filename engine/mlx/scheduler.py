"""Who runs when: a queue, admission by KV bytes, prefill in chunks, one decode batch.

Requests with the same prompt form a group: the prompt is computed once and each row starts from a copy of its cache.
A step advances one chunk of prefill, or the features of one image, and one decode step, so that neither starves the
other. Short prompts share a chunk: those of a round, all different, are computed in one pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from engine.api import Failure
from engine.errors import EngineError, OutOfMemoryError
from engine.families.zaya.cache import CCACache
from engine.mlx.batch import DecodeBatch
from engine.mlx.features import FeatureCache
from engine.mlx.prefixes import PrefixCache, Prompt
from engine.mlx.row import Row

_FLUSH_INTERVAL_S = 0.05
"""Seconds between two sendings of chunks: more often would cost more time than people and programs gain from it."""
_FLUSH_SHARE, _MAX_FLUSH_INTERVAL_S = 0.05, 0.5
"""The largest share of the time that sending chunks may take, so that hundreds of rows send less often; and the longest
interval, for limits on a run are checked as chunks come."""
_OUT_OF_MEMORY = ("malloc", "out of memory", "insufficient memory")
"""What MLX's errors say when memory is short: on CPUs and CUDA, and on Metal when a command buffer finds too little."""
_PADDING_SHARE = 0.25
"""The largest share of a chunk that may be padding: prompts of very different lengths do not share one."""
_ROOM_TOKENS = 256
"""Tokens by which caches grow, if that is more than an eighth of their length: a row takes that much more than it
uses."""


@dataclass(slots=True)
class Group:
    """Rollouts of one prompt that wait to run. `caches` hold the first `done` tokens of the prompt.

    features  of the images of the next chunk, as far as they are computed.
    cached    tokens of the prompt that were found in the prefix cache.
    alone     its prompt shares no pass: it was in one that failed.
    """

    waiting: deque[Row]
    prompt: Prompt
    caches: list[Any] = field(default_factory=list)
    features: list[mx.array] = field(default_factory=list)
    done: int = 0
    cached: int = 0
    shared: bool = False  # a row has been started from it before
    alone: bool = False

    @property
    def prefilled(self) -> bool:
        return self.done == self.prompt.tokens

    @property
    def beginning(self) -> bytes:
        """The name of what is done, at a cut."""
        return self.prompt.names[self.prompt.cuts.index(self.done)]


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Memory of one row's caches: a fixed part, and bytes for each token."""

    row_bytes: int
    token_bytes: int

    @classmethod
    def of(cls, model: Any) -> CacheCost:
        """As the model says, or measured on a prompt that is never computed: shapes are known without evaluation."""
        if hasattr(model, "cache_bytes"):
            return cls(
                model.cache_bytes(_ROOM_TOKENS), (model.cache_bytes(8192) - model.cache_bytes(0)) * 9 // 8 // 8192
            )
        sizes = []
        for tokens in (1, 1025):
            caches = make_prompt_cache(model)
            model(mx.zeros((1, tokens), dtype=mx.uint32), cache=caches)
            sizes.append(sum(cache.nbytes for cache in caches))
        per_token = (sizes[1] - sizes[0]) // 1024
        return cls(row_bytes=sizes[0], token_bytes=per_token)

    def of_rows(self, rows: int, tokens: int) -> int:
        """Bytes of a batch that is `tokens` wide: every row takes the width of the longest."""
        return rows * (self.row_bytes + tokens * self.token_bytes)


class Scheduler:
    """Runs rollouts to their end. All methods are for the one thread that touches MLX.

    max_rows        rows that may decode together.
    kv_bytes        memory for their caches; a row is admitted when its longest possible completion fits. What rows
                    leave free of it holds beginnings of prompts (`prefixes`).
    context_tokens  used as a row's length where nothing else bounds it.
    image_token     stands in prompts for images; None: the model reads text only.
    """

    def __init__(
        self,
        model: Any,
        *,
        max_rows: int,
        kv_bytes: int,
        prefill_chunk: int,
        context_tokens: int | None,
        image_token: int | None = None,
    ) -> None:
        self._model = model
        self.max_rows = max_rows
        self._kv_bytes = kv_bytes
        self._prefill_chunk = prefill_chunk
        self._unbounded_tokens = context_tokens or 32768
        self._image_token = image_token
        self._cost = CacheCost.of(model)
        self._features = FeatureCache(model.vision_tower) if image_token is not None else None
        self._prefixes = PrefixCache()
        self._takes_padding = all(isinstance(cache, CCACache) for cache in make_prompt_cache(model))
        self._queue: deque[Group] = deque()
        self._batch = DecodeBatch(model)
        self._flush_at = 0.0

    @property
    def idle(self) -> bool:
        return not self._queue and not self._batch.rows

    def submit(self, rollouts: Iterable[Row]) -> None:
        """Queue rollouts, those of one prompt together, in order of their first. What can never run fails at once."""
        groups: dict[tuple[object, ...], Group] = {}
        for rollout in rollouts:
            key = (tuple(rollout.prompt_ids), tuple(image.sha256 for image in rollout.images))
            try:
                self._check_size(rollout)
                if key not in groups:
                    groups[key] = Group(deque(), self._plan(rollout))
            except Exception as error:  # of this prompt alone
                rollout.emit(Failure(rollout.request.id, explain(error)))
            else:
                groups[key].waiting.append(rollout)
        self._queue.extend(groups.values())

    def step(self) -> None:
        """Advance everything by one step and send what is new."""
        self._drop_finished()
        self._admit()
        if self._batch.rows:
            for row in self._batch.step():
                _send_completion(row)
        self._flush()

    def fail_all(self, error: EngineError) -> None:
        """End every rollout, running or waiting, with `error`, and let go of beginnings: it may have been their memory
        that was missing."""
        waiting = [rollout for group in self._queue for rollout in group.waiting]
        self._queue.clear()
        self._prefixes.shrink(0)
        for rollout in [*self._batch.clear(), *waiting]:
            rollout.emit(Failure(rollout.request.id, error))

    def _plan(self, rollout: Row) -> Prompt:
        ids, images = rollout.prompt_ids, rollout.images
        spans = self._model.unsplittable(ids) if images else ()
        return Prompt.of(ids, images, chunk=self._prefill_chunk, spans=spans, image_token=self._image_token)

    def _drop_finished(self) -> None:
        """Let go of what was cancelled since the last step."""
        for row in self._batch.drop_finished():
            _send_completion(row)
        for group in list(self._queue):
            for rollout in [r for r in group.waiting if r.finish_reason is not None]:
                group.waiting.remove(rollout)
                _send_completion(rollout)
            if not group.waiting:
                self._queue.remove(group)

    def _admit(self) -> None:
        """Compute the next part of the first prompts in line; start their rows once they are complete."""
        if not self._queue or not self._has_room(self._queue[0].waiting[0]):
            return
        groups = self._together()
        try:
            caches = self._prefill_together(groups) if len(groups) > 1 else self._prefill_alone(groups[0])
        except Exception as error:  # nobody else's business: the rows that decode have not been touched
            if len(groups) == 1:
                self._fail(groups[0], explain(error))
            for group in groups:
                group.alone = True  # who is to blame, or whether less memory is enough, shows when each is tried alone
            return
        if groups[0].prefilled:
            self._start_rows(groups, caches)

    def _together(self) -> list[Group]:
        """The first groups in line that share a chunk; at least the first."""
        groups, tokens = [self._queue[0]], [self._queue[0].prompt.tokens]
        if not self._is_short(groups[0]):
            return groups
        for group in islice(self._queue, 1, None):
            tokens.append(group.prompt.tokens)
            size = len(tokens) * max(tokens)
            if size > self._prefill_chunk or sum(tokens) < (1 - _PADDING_SHARE) * size:
                break
            if not self._is_short(group) or not self._has_room(group.waiting[0], [g.waiting[0] for g in groups]):
                break
            if any(group.prompt.names == other.prompt.names for other in groups):
                break  # of another call: it will find this one's beginning
            groups.append(group)
        return groups

    def _is_short(self, group: Group) -> bool:
        """True for a prompt of one chunk, without images, of which nothing is known yet."""
        prompt = group.prompt
        if not self._takes_padding or group.alone or group.caches:
            return False
        return len(prompt.cuts) == 1 and not prompt.images and prompt.names[0] not in self._prefixes

    def _prefill_together(self, groups: list[Group]) -> list[Any]:
        """Compute short prompts in one pass; returns caches with a row for each, in order."""
        self._prefixes.shrink(self._free_bytes([group.waiting[0] for group in groups]))
        lengths = [group.prompt.tokens for group in groups]
        padding = [max(lengths) - length for length in lengths]
        ids = [group.prompt.ids[:-1] + [0] * pad for group, pad in zip(groups, padding, strict=True)]
        caches = make_prompt_cache(self._model)
        for cache in caches:
            cache.prepare(lengths=lengths, right_padding=padding)
        self._model(mx.array(ids, dtype=mx.uint32), cache=caches)  # its logits are never evaluated
        for cache in caches:
            cache.finalize()
        mx.eval([cache.state for cache in caches])
        for place, group in enumerate(groups):
            group.done = group.prompt.tokens
            if self._is_wanted(group):
                group.caches = _extracted(caches, place)
                self._keep_beginning(group)
        return caches

    def _prefill_alone(self, group: Group) -> list[Any]:
        """Compute the next chunk of a prompt; returns its caches, of one row."""
        if not group.caches:
            self._begin(group)
        if not group.prefilled:
            self._prefill(group)
        return group.caches

    def _begin(self, group: Group) -> None:
        """Caches to fill: those of the longest beginning that is known, or empty ones."""
        found = self._prefixes.longest(group.prompt)
        if found is not None:
            group.done, group.caches = found
            group.cached = group.done
        else:
            group.caches = make_prompt_cache(self._model)
        self._prefixes.shrink(self._free_bytes([group.waiting[0]]))

    def _prefill(self, group: Group) -> None:
        """Compute the next chunk, or, before it, the features of one image that it shows."""
        prompt = group.prompt
        end = next(cut for cut in prompt.cuts if cut > group.done)
        images, rows = prompt.images_within(group.done, end)
        if len(group.features) < len(images):
            assert self._features is not None, "a model that reads text only is given none"
            group.features.append(self._features.get(images[len(group.features)]))
        if len(group.features) < len(images):
            return
        chunk = mx.array(prompt.ids[group.done : end], dtype=mx.uint32)[None]  # [1, chunk]
        if images:
            features = mx.concatenate(group.features)[slice(*rows)]  # [image tokens in the chunk, hidden]
            embeddings, mask = self._model.embed(chunk, features)
            self._model(chunk, cache=group.caches, input_embeddings=embeddings, image_mask=mask)
        else:
            self._model(chunk, cache=group.caches)  # its logits are never evaluated
        mx.eval([cache.state for cache in group.caches])
        group.done, group.features = end, []
        if self._is_wanted(group):
            self._keep_beginning(group)

    def _is_wanted(self, group: Group) -> bool:
        """True if what is done may well be asked for again: a prompt's images, and what somebody who waits begins with
        too."""
        name = group.beginning
        waited_for = any(name in other.prompt.names for other in self._queue if other is not group)
        return waited_for or group.done == group.prompt.images_cut

    def _keep_beginning(self, group: Group) -> None:
        self._prefixes.keep(group.beginning, group.caches, self._free_bytes([group.waiting[0]]))

    def _start_rows(self, groups: list[Group], caches: list[Any]) -> None:
        """Start what there is room for, of prompts that are computed; `caches` have a row for each."""
        rows: list[Row] = []
        places: list[int] = []
        for place, group in enumerate(groups):
            while group.waiting and self._has_room(group.waiting[0], beside=rows):
                row = group.waiting.popleft()
                row.cached_tokens = group.prompt.tokens if group.shared else group.cached
                row.images = ()
                group.shared = True
                rows.append(row)
                places.append(place)
            if not group.waiting:
                self._queue.remove(group)
            elif not group.caches:
                group.caches = _extracted(caches, place)
        self._prefixes.shrink(self._free_bytes(rows))
        self._batch.join(rows, caches, places if len(groups) > 1 else None)

    def _fail(self, group: Group, error: EngineError) -> None:
        self._queue.remove(group)
        for rollout in group.waiting:
            rollout.emit(Failure(rollout.request.id, error))

    def _free_bytes(self, more: list[Row]) -> int:
        """What rows leave free of the memory for caches, with `more` beside those of the batch."""
        rows = [*self._batch.rows, *more]
        return self._kv_bytes - self._cost.of_rows(len(rows), max(map(self._tokens, rows), default=0))

    def _has_room(self, rollout: Row, beside: Sequence[Row] = ()) -> bool:
        """True if this rollout may run with those of the batch and `beside`."""
        rows = [*self._batch.rows, *beside, rollout]
        return (
            len(rows) <= self.max_rows and self._cost.of_rows(len(rows), max(map(self._tokens, rows))) <= self._kv_bytes
        )

    def _check_size(self, rollout: Row) -> None:
        needed = self._cost.of_rows(1, self._tokens(rollout))
        if needed > self._kv_bytes:
            raise OutOfMemoryError(
                f"one rollout of {self._tokens(rollout):,} tokens needs {needed / 2**30:.1f} GiB of KV cache and "
                f"{self._kv_bytes / 2**30:.1f} GiB are free: lower --beta, --tau or --answer-budget"
                f"{', or use smaller images' if rollout.images else ''}"
            )

    def _tokens(self, rollout: Row) -> int:
        return rollout.total_tokens or self._unbounded_tokens

    def _flush(self) -> None:
        start = monotonic()
        if start < self._flush_at:
            return
        for row in self._batch.rows:
            for chunk in row.chunks():
                row.emit(chunk)
        rest = (monotonic() - start) / _FLUSH_SHARE
        self._flush_at = start + min(max(rest, _FLUSH_INTERVAL_S), _MAX_FLUSH_INTERVAL_S)


def _extracted(caches: Sequence[Any], place: int) -> list[Any]:
    """Caches of one row, copied now: as views they would keep all of the others in memory."""
    row = [cache.extract(place) for cache in caches]
    mx.eval([cache.state for cache in row])
    return row


def _send_completion(row: Row) -> None:
    for chunk in row.chunks():
        row.emit(chunk)
    row.emit(row.completion())


def explain(error: Exception) -> EngineError:
    """What went wrong in a step, in words for people."""
    if isinstance(error, EngineError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY):
        return OutOfMemoryError(f"out of memory while generating ({text}): lower --n, --beta or --tau")
    return EngineError(f"the model failed while generating: {type(error).__name__}: {text}")
