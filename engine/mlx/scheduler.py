"""Who runs when: a queue, admission by the likely length, prefill in chunks, one decode batch.

A row is admitted when its likely length fits beside those of the others. Where rows become longer together than there
is memory, the youngest goes back into line, and goes on later from its tokens. The oldest is never sent back, and any
row fits alone, so all come to their end; and the draws of a row do not depend on when they are made.

Requests with the same prompt form a group: the prompt is computed once and each row starts from a copy of its cache.
A step advances one chunk of prefill, or the features of one image, and one decode step, so that neither starves the
other. Short prompts share a chunk: those of a round, all different, are computed in one pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

import mlx.core as mx

from engine.api import Failure
from engine.errors import EngineError, OutOfMemoryError
from engine.mlx.batch import DecodeBatch
from engine.mlx.memory import CacheCost, LikelyLength, ModelMemory
from engine.mlx.model import RowCache, TextModel
from engine.mlx.prefill import Prefill, Prefiller
from engine.mlx.row import Row

_FLUSH_INTERVAL_S = 0.05
"""Seconds between two sendings of chunks: more often would cost more time than people and programs gain from it."""
_FLUSH_SHARE, _MAX_FLUSH_INTERVAL_S = 0.05, 0.5
"""The largest share of the time that sending chunks may take, so that hundreds of rows send less often; and the longest
interval, for limits on a run are checked as chunks come."""
_OUT_OF_MEMORY = ("malloc", "out of memory", "insufficient memory")
"""What MLX's errors say when memory is short: on CPUs and CUDA, and on Metal when a command buffer finds too little."""


@dataclass(slots=True, eq=False)
class Group:
    """Rows of one prompt that wait to run."""

    waiting: deque[Row]
    prefill: Prefill
    started: bool = False  # a row has been started from it before


class Scheduler:
    """Runs rows to their end. All methods are for the one thread that touches MLX.

    max_rows        rows that may decode together.
    kv_bytes        memory for their caches: no row is taken whose longest possible completion does not fit. What rows
                    leave free of it holds prompts that are computed and wait for room, and beginnings of prompts that
                    may come again (`prefixes`): they give way to rows, and are computed again if need be.
    context_tokens  used as a row's length where nothing else bounds it.
    image_token     stands in prompts for images; None: the model reads text only.
    """

    def __init__(
        self,
        model: TextModel,
        *,
        max_rows: int,
        kv_bytes: int,
        prefill_chunk: int,
        context_tokens: int | None,
        image_token: int | None = None,
    ) -> None:
        self.max_rows = max_rows
        self._model = model
        self._kv_bytes = kv_bytes
        self._unbounded_tokens = context_tokens or 32768
        self._cost = CacheCost.of(model)
        self._likely = LikelyLength()
        self._prefiller = Prefiller(model, chunk=prefill_chunk, image_token=image_token)
        self._queue: deque[Group] = deque()  # by the number of their first row
        self._submitted = 0
        self._most_rows = max_rows  # fewer after memory was short
        self._batch = DecodeBatch(model)
        self._flush_at = 0.0

    @property
    def idle(self) -> bool:
        return not self._queue and not self._batch.rows

    def submit(self, rows: Iterable[Row]) -> None:
        """Queue rows, those of one prompt together, in order of their first. What can never run fails at once."""
        new = list(rows)
        for row in new:
            row.number, row.budget = self._submitted, self._budget(row)
            self._submitted += 1
        self._line_up(new)

    def step(self) -> None:
        """Advance everything by one step and send what is new.

        Where memory is too short for it, rows start again from their tokens, half as many at a time; one that fails
        alone ends with an OutOfMemoryError. Raises what else went wrong: then nobody knows what caches hold, and
        `fail_all` must follow.
        """
        shortage: OutOfMemoryError | None = None
        try:
            self._drop_finished()
            self._make_room()
            self._admit()
            if self._batch.rows:
                for row in self._batch.step():
                    self._end(row)
        except Exception as error:
            explained = explain(error)
            if not isinstance(explained, OutOfMemoryError):
                raise
            shortage = explained
        if shortage is not None:  # the arrays that the error held on to are gone by now
            self._retreat(shortage)
        self._flush()

    def memory(self) -> ModelMemory:
        """What the model takes of its memory; measured now."""
        return ModelMemory.of(self._model, self._kv_bytes)

    def fail_all(self, error: EngineError) -> None:
        """End every row, running or waiting, with `error`, and let go of beginnings: it may have been their memory
        that was missing."""
        waiting = [row for group in self._queue for row in group.waiting]
        self._queue.clear()
        self._prefiller.prefixes.shrink(0)
        for row in [*self._batch.clear(), *waiting]:
            row.emit(Failure(row.request.id, error))  # not `fail`: the error may be in what the row does

    def _line_up(self, rows: Iterable[Row]) -> None:
        """Put rows in line, by their numbers, with what they have written as a part of their prompts."""
        groups: dict[tuple[object, ...], Group] = {}
        for row in rows:
            key = (tuple(row.ids), tuple(image.sha256 for image in row.images))
            try:
                self._check_size(row)
                if key not in groups:
                    groups[key] = Group(deque(), self._prefiller.plan(row.prompt_ids, row.images, row.token_ids))
            except Exception as error:  # of this prompt alone
                row.fail(explain(error))
                row.send_end()
            else:
                groups[key].waiting.append(row)
        self._queue = deque(sorted([*self._queue, *groups.values()], key=lambda group: group.waiting[0].number))

    def _retreat(self, shortage: OutOfMemoryError) -> None:
        """After a step for which memory was too short: let go of all caches, and go on with half of the rows.

        A step that failed may have left any of them half written, so all rows are computed again from their tokens.
        Their draws go on where they were, since noise depends on (seed, draw) alone.
        """
        rows = self._batch.clear()
        held = [group.prefill for group in self._queue if group.prefill.caches]
        for prefill in held:
            prefill.reset()
            prefill.alone = True
        self._prefiller.prefixes.shrink(0)
        mx.clear_cache()
        if len(rows) > 1 or (rows and held):
            self._most_rows = max(len(rows) // 2, 1)
            self._send_back(rows)
        elif rows:
            rows[0].fail(shortage)
            rows[0].send_end()
        elif self._queue:
            self._fail(self._queue[0], shortage)

    def _make_room(self) -> None:
        """Send back the youngest rows if the next step would need more memory than there is."""
        fitting, leaving = self._batch.rows, list[Row]()
        while len(fitting) > 1 and not self._cost.fit((row.length + 1 for row in fitting), self._kv_bytes):
            leaving.append(max(fitting, key=lambda row: row.number))
            fitting = [row for row in fitting if row is not leaving[-1]]
        if leaving:
            self._batch.take_out(leaving)
            self._send_back(leaving)

    def _send_back(self, rows: list[Row]) -> None:
        """Put rows that ran in line again."""
        for row in rows:
            for chunk in row.chunks():
                row.emit(chunk)
        self._line_up(rows)

    def _end(self, row: Row) -> None:
        """Tell how a row ended. One that did by itself tells of others' lengths, and shows that there is memory: one
        more may run than before."""
        if row.finish_reason != "cancelled":
            self._likely.learn(len(row.token_ids), row.budget)
            self._most_rows = min(self._most_rows + 1, self.max_rows)
        row.send_end()

    def _drop_finished(self) -> None:
        """Let go of what was cancelled since the last step."""
        for row in self._batch.drop_finished():
            row.send_end()
        for group in list(self._queue):
            for row in [r for r in group.waiting if r.finish_reason is not None]:
                group.waiting.remove(row)
                row.send_end()
            if not group.waiting:
                self._queue.remove(group)

    def _admit(self) -> None:
        """Compute the next part of the first prompts in line; start their rows once they are complete."""
        groups = self._together()
        if not groups:
            self._make_way()
            return
        try:
            caches = self._prefill(groups)
        except Exception as error:  # nobody else's business: the rows that decode have not been touched
            self._set_back(groups, explain(error))
            return
        if groups[0].prefill.complete:
            self._start_rows(groups, caches)

    def _set_back(self, groups: list[Group], error: EngineError) -> None:
        """After a prefill that failed: try each prompt alone, then once fewer rows decode, if that may help."""
        if len(groups) == 1 and isinstance(error, OutOfMemoryError) and self._batch.rows:
            self._most_rows = len(self._batch.rows)
        elif len(groups) == 1:
            self._fail(groups[0], error)
        for group in groups:
            group.prefill.reset()
            group.prefill.alone = True

    def _together(self) -> list[Group]:
        """The first groups in line for which there is room, as many as share a pass."""
        if not self._queue:
            return []
        lengths = self._lengths()
        groups = list[Group]()
        for group in self._queue:
            if groups and not self._prefiller.may_share([each.prefill for each in groups], group.prefill):
                break
            if not self._take_room(group.waiting[0], lengths):
                break
            groups.append(group)
        return groups

    def _prefill(self, groups: list[Group]) -> Sequence[RowCache]:
        """Compute the next part of some prompts; returns caches with a row for each, in order."""
        waited_for = {name for group in self._queue if group not in groups for name in group.prefill.prompt.names}
        free_bytes = self._make_way([group.waiting[0] for group in groups], groups)
        return self._prefiller.advance([group.prefill for group in groups], max_bytes=free_bytes, waited_for=waited_for)

    def _start_rows(self, groups: list[Group], caches: Sequence[RowCache]) -> None:
        """Start what there is room for, of prompts that are computed; `caches` have a row for each."""
        rows: list[Row] = []
        places: list[int] = []
        lengths = self._lengths()
        for place, group in enumerate(groups):
            for row in group.waiting:
                if not self._take_room(row, lengths):
                    self._prefiller.keep_row(group.prefill, caches, place)  # if it fails, no row has left the queue
                    break
                rows.append(row)
                places.append(place)
        for row, place in zip(rows, places, strict=True):
            group = groups[place]
            if not row.token_ids:
                row.cached_tokens = group.prefill.prompt.tokens if group.started else group.prefill.cached
            group.started = True
            group.waiting.popleft()
            if not group.waiting:
                self._queue.remove(group)
        self._make_way(rows)
        self._batch.join(rows, caches, places)

    def _fail(self, group: Group, error: EngineError) -> None:
        self._queue.remove(group)
        for row in group.waiting:
            row.fail(error)
            row.send_end()

    def _make_way(self, more: Sequence[Row] = (), growing: Sequence[Group] = ()) -> int:
        """Let go of what rows leave no room for, `more` beside those of the batch: of beginnings, and of prompts that
        are computed and wait, the last in line first. Those that are `growing` are counted as rows.

        Returns the bytes that are left for beginnings.
        """
        held = [group.prefill for group in self._queue if group.prefill.caches and group not in growing]
        if not (more or held or self._prefiller.prefixes.nbytes):
            return 0
        rows = self._cost.of_rows(map(self._likely_tokens, [*self._batch.rows, *more]))
        # Where rows have left, their caches may still have the room that they had.
        free = self._kv_bytes - max(rows, self._batch.nbytes)
        free -= sum(prefill.nbytes for prefill in held)
        while held and free < 0:
            free += held[-1].nbytes
            held.pop().reset()
        self._prefiller.prefixes.shrink(free)
        return free

    def _lengths(self) -> list[int]:
        """The likely length of each row of the batch."""
        return [self._likely_tokens(row) for row in self._batch.rows]

    def _take_room(self, row: Row, lengths: list[int]) -> bool:
        """True if this row may run with those of likely `lengths`; its own is then one of them. Alone, any may."""
        more = [*lengths, self._likely_tokens(row)]
        if len(more) > 1 and not (len(more) <= self._most_rows and self._cost.fit(more, self._kv_bytes)):
            return False
        lengths.append(more[-1])
        return True

    def _check_size(self, row: Row) -> None:
        longest = row.prompt_tokens + row.budget
        needed = self._cost.of_rows([longest])
        if needed > self._kv_bytes:
            raise OutOfMemoryError(
                f"one completion of {longest:,} tokens needs {needed / 2**30:.1f} GiB of KV cache and "
                f"{self._kv_bytes / 2**30:.1f} GiB are free: lower `beta`, `tau` or `answer_budget`"
                f"{', or use smaller images' if row.images else ''}"
            )

    def _likely_tokens(self, row: Row) -> int:
        return self._likely.of(row.prompt_tokens, len(row.token_ids), row.budget)

    def _budget(self, row: Row) -> int:
        """The most tokens that a row may write."""
        total = row.total_tokens or self._unbounded_tokens
        return max(total - row.prompt_tokens, 1)

    def _flush(self) -> None:
        start = monotonic()
        if start < self._flush_at:
            return
        for row in self._batch.rows:
            for chunk in row.chunks():
                row.emit(chunk)
        rest = (monotonic() - start) / _FLUSH_SHARE
        self._flush_at = start + min(max(rest, _FLUSH_INTERVAL_S), _MAX_FLUSH_INTERVAL_S)


def explain(error: Exception) -> EngineError:
    """What went wrong in a step, in words for people."""
    if isinstance(error, EngineError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY):
        return OutOfMemoryError(f"out of memory while generating ({text}): lower `n`, `beta` or `tau`")
    return EngineError(f"the model failed while generating: {type(error).__name__}: {text}")
