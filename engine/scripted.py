"""A public test double: an engine whose answers come from a function instead of a model.

It keeps every promise of `engine.api` (budgets, forced answers, stop strings, cancel, conclude, failures), so
whatever is built on that boundary can be tested without weights, without MLX and without waiting:

    engine = ScriptedEngine(lambda request: Script(reasoning="2 + 2 is 4", answer=r"\\boxed{4}"))

Rows take turns, one step each, as the events are read; nothing runs between reads and nothing sleeps. A test
holds rows with `hold` and lets them go with `release`. The same requests give the same events.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import anyio
import anyio.lowlevel

from engine.api import (
    Completion,
    EngineEvent,
    Failure,
    FinishReason,
    GenerationRequest,
    GenerationStream,
    ModelInfo,
    RecommendedSampling,
    Section,
    TokenChunk,
    Usage,
)
from engine.byte_tokenizer import END, THINK_CLOSE, THINK_OPEN, ByteTokenizer, whole_characters
from engine.errors import ContextError, EngineClosedError, EngineError, RequestError

__all__ = ["END", "THINK_CLOSE", "THINK_OPEN", "ByteTokenizer", "Script", "ScriptLike", "ScriptedEngine"]


@dataclass(frozen=True, slots=True)
class Script:
    """What one request gets.

    reasoning, answer   text of the two sections. A model without think tags writes both, one after the other.
    token_ids           raw tokens instead of the two texts; `THINK_CLOSE` ends the reasoning.
    never_ends          repeat the reasoning for ever: only a budget, `conclude` or `cancel` ends it. The
                        answer is written if it is asked for then.
    error, fail_after   fail with this error once `fail_after` tokens are generated.
    tokens_per_step     how many tokens a step adds at most; None: as the engine was told.
    """

    reasoning: str = ""
    answer: str = ""
    token_ids: tuple[int, ...] | None = None
    never_ends: bool = False
    error: EngineError | None = None
    fail_after: int = 0
    tokens_per_step: int | None = None


ScriptLike = Script | str | Sequence[int]
"""A string is `reasoning</think>answer`; without the tag the same text is reasoned and answered."""


def as_script(value: ScriptLike) -> Script:
    """Read the short forms of a script."""
    if isinstance(value, Script):
        return value
    if isinstance(value, str):
        reasoning, tag, answer = value.removeprefix("<think>").partition("</think>")
        return Script(reasoning=reasoning, answer=answer if tag else reasoning)
    return Script(token_ids=tuple(value))


@dataclass(slots=True)
class _Writer:
    """The text of one section, as its tokens come in."""

    stop: tuple[str, ...]
    data: bytearray = field(default_factory=bytearray)
    sent: int = 0  # characters of the text that went out in chunks
    stopped_at: int | None = None  # where a stop string begins

    @property
    def text(self) -> str:
        data = bytes(self.data)
        whole = data[: whole_characters(data)].decode("utf-8", errors="replace")
        return whole[: self.stopped_at]

    def add(self, token: int) -> None:
        if token < THINK_OPEN:
            self.data.append(token)
            if self.stop:
                starts = [at for at in map(self.text.find, self.stop) if at >= 0]
                self.stopped_at = min(starts, default=None)

    def take(self, *, last: bool) -> str:
        """Text that no chunk carried yet, short of what may turn out to be a stop string."""
        text = self.text
        end = len(text) if last or self.stopped_at is not None else len(text) - self._held_back(text)
        new, self.sent = text[self.sent : end], max(self.sent, end)
        return new

    def _held_back(self, text: str) -> int:
        return max(
            (size for stop in self.stop for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )


class _Row:
    """One request while it runs."""

    def __init__(self, request: GenerationRequest, script: Script, prompt_tokens: int, thinks: bool, room: int | None):
        self.request = request
        self.script = script
        self.thinks = thinks
        self.tagged = thinks and request.thinking
        self.prompt_tokens = prompt_tokens
        self.room = room  # tokens that the context leaves for the completion
        self.ids: list[int] = []
        self.section: Section = "answer" if thinks and not request.thinking else "reasoning"
        self.reasoning_tokens = 0
        self.answer_tokens = 0
        self.closed = thinks and not request.thinking
        self.forced = False
        self.cancelled = False
        self.concluded = False
        self.writers = {"reasoning": _Writer(request.sampling.stop), "answer": _Writer(request.sampling.stop)}
        self.queues = self._queues(script)

    def _queues(self, script: Script) -> dict[Section, Iterator[int]]:
        if script.token_ids is None:
            reasoning, answer = tuple(script.reasoning.encode()), tuple(script.answer.encode())
        elif THINK_CLOSE in script.token_ids:
            split = script.token_ids.index(THINK_CLOSE)
            reasoning, answer = script.token_ids[:split], script.token_ids[split + 1 :]
        else:
            reasoning, answer = script.token_ids, ()
        if not self.thinks:
            reasoning, answer = reasoning + answer, ()
        endless = script.never_ends and reasoning
        return {
            "reasoning": itertools.cycle(reasoning) if endless else iter(reasoning),
            "answer": iter(answer),
        }

    def step(self, size: int) -> list[EngineEvent]:
        """Generate up to `size` tokens; the last event is the row's end once it came."""
        events: list[EngineEvent] = []
        new: list[int] = []
        reason: FinishReason | None = None
        for _ in range(size):
            if self.script.error is not None and len(self.ids) >= self.script.fail_after:
                return [*self._chunk(new), Failure(self.request.id, self.script.error)]
            section = self.section
            reason = self._before_token()
            if reason is None and self.section == section:
                reason = self._token(new)
            if self.section != section:
                events += self._chunk(new, section, last=True)
                new = []
            if reason is not None:
                break
        events += self._chunk(new, last=reason is not None)
        if reason is not None:
            events.append(self._completion(reason))
        return events

    def _before_token(self) -> FinishReason | None:
        """End the row, or its reasoning, if a bound is reached."""
        sampling = self.request.sampling
        if self.cancelled:
            return "cancelled"
        if sampling.max_tokens is not None and len(self.ids) >= sampling.max_tokens:
            return "length"
        if self.room is not None and len(self.ids) >= self.room:
            return "length"
        if self.section == "answer":
            return "length" if self._used_up(self.answer_tokens, sampling.answer_budget) else None
        if self.concluded or self._used_up(self.reasoning_tokens, sampling.reasoning_budget):
            if not self.tagged or not sampling.force_answer or sampling.answer_budget == 0:
                return "budget"
            self.forced = True
            self._close()
        return None

    @staticmethod
    def _used_up(used: int, budget: int | None) -> bool:
        return budget is not None and used >= budget

    def _close(self) -> None:
        self.ids.append(THINK_CLOSE)
        self.closed = True
        self.section = "answer"

    def _token(self, new: list[int]) -> FinishReason | None:
        token = next(self.queues[self.section], None)
        if token is None and self.section == "reasoning" and self.tagged:
            self._close()
            return "stop" if self.request.sampling.answer_budget == 0 else None
        if token is None:
            self.ids.append(END)
            return "stop"
        self.ids.append(token)
        new.append(token)
        writer = self.writers[self.section]
        writer.add(token)
        if self.section == "reasoning":
            self.reasoning_tokens += 1
        else:
            self.answer_tokens += 1
        return "stop" if writer.stopped_at is not None else None

    def _chunk(self, new: list[int], section: Section | None = None, *, last: bool = False) -> list[EngineEvent]:
        section = section or self.section
        text = self.writers[section].take(last=last)
        return [TokenChunk(self.request.id, tuple(new), text, section)] if new or text else []

    def _completion(self, reason: FinishReason) -> Completion:
        reasoning, answer = self.writers["reasoning"].text, self.writers["answer"].text
        return Completion(
            request_id=self.request.id,
            token_ids=tuple(self.ids),
            reasoning=reasoning,
            text=answer if self.thinks else reasoning,
            finish_reason=reason,
            closed=self.closed,
            forced=self.forced,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=len(self.ids),
                reasoning_tokens=self.reasoning_tokens,
            ),
        )


class ScriptedStream:
    """The events of one `ScriptedEngine.generate` call; see `engine.api.GenerationStream`."""

    def __init__(self, engine: ScriptedEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine = engine
        self._requests = tuple(requests)
        self._rows: dict[str, _Row] = {}
        self._ready: deque[EngineEvent] = deque()

    async def __aenter__(self) -> Self:
        self._rows = self._engine._admit(self._requests)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for request_id in list(self._rows):
            self._end(request_id)

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        await anyio.lowlevel.checkpoint()
        while not self._ready:
            if not self._rows:
                raise StopAsyncIteration
            if self._engine._closed:
                raise EngineClosedError("the scripted engine was closed while requests were running")
            if not self._step():
                await self._engine._changed()
        return self._ready.popleft()

    def _step(self) -> bool:
        """Give every row that is not held one step. False: all are held."""
        running = [row for row in self._rows.values() if not self._engine._holds(row)]
        self._engine.steps += 1 if running else 0
        for row in running:
            events = row.step(row.script.tokens_per_step or self._engine.tokens_per_step)
            self._ready.extend(events)
            if events and isinstance(events[-1], Completion | Failure):
                self._end(row.request.id)
        return bool(running)

    def _end(self, request_id: str) -> None:
        del self._rows[request_id]
        self._engine.active -= 1

    def cancel(self, request_id: str) -> None:
        if request_id in self._rows:
            self._rows[request_id].cancelled = True
            self._engine.cancelled.append(request_id)
            self._engine._wake()

    def conclude(self, request_id: str) -> None:
        if request_id in self._rows:
            self._rows[request_id].concluded = True
            self._engine.concluded.append(request_id)
            self._engine._wake()


class ScriptedEngine:
    """An `engine.api.Engine` that plays scripts.

    script           gives each request its script; a single script is played to all.
    hold             requests for which it is true wait before their first token until `release`d; cancelling
                     or concluding one lets it go too.
    tokens_per_step  size of a step, and so of a chunk.
    thinks           False: a model without think tags.
    sampling         what the makers of the model recommend, if they say.

    What tests look at: `requests` (all it ever got, in order), `cancelled` and `concluded` (request ids),
    `active`, `max_active` (rows at once, over all streams), `steps`.
    """

    def __init__(
        self,
        script: Callable[[GenerationRequest], ScriptLike] | ScriptLike,
        *,
        hold: Callable[[GenerationRequest], bool] | None = None,
        tokens_per_step: int = 16,
        context_tokens: int | None = None,
        thinks: bool = True,
        sampling: RecommendedSampling | None = None,
        name: str = "scripted",
        fingerprint: str = "scripted-1",
    ) -> None:
        self._script = script
        self._hold = hold or (lambda request: False)
        self._released: set[str] = set()
        self._change: anyio.Event | None = None  # made when waited for: an event belongs to one event loop
        self._closed = False
        self.tokens_per_step = tokens_per_step
        self._model = ModelInfo(
            name=name,
            context_tokens=context_tokens,
            fingerprint=fingerprint,
            thinks=thinks,
            sees=True,
            sampling=sampling,
        )
        self._tokenizer = ByteTokenizer()
        self.requests: list[GenerationRequest] = []
        self.cancelled: list[str] = []
        self.concluded: list[str] = []
        self.active = 0
        self.max_active = 0
        self.steps = 0

    @property
    def model(self) -> ModelInfo:
        return self._model

    @property
    def tokenizer(self) -> ByteTokenizer:
        return self._tokenizer

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return ScriptedStream(self, requests)

    async def aclose(self) -> None:
        self._closed = True
        self._wake()

    def release(self, *request_ids: str) -> None:
        """Let held requests go; without an id, all of them, also those still to come."""
        self._released.update(request_ids)
        if not request_ids:
            self._hold = lambda request: False
        self._wake()

    def _wake(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _changed(self) -> None:
        if self._change is None:
            self._change = anyio.Event()
        await self._change.wait()

    def _holds(self, row: _Row) -> bool:
        free = row.cancelled or row.concluded or row.ids or row.request.id in self._released
        return not free and self._hold(row.request)

    def _admit(self, requests: Sequence[GenerationRequest]) -> dict[str, _Row]:
        """Rows of new requests, or the error that the boundary promises on entering a stream."""
        if self._closed:
            raise EngineClosedError("the scripted engine is closed")
        rows: dict[str, _Row] = {}
        for request in requests:
            if request.id in rows:
                raise RequestError(f"two requests have the id {request.id!r}; give each its own")
            if not any(message.text or message.images for message in request.messages):
                raise RequestError(f"request {request.id!r} has an empty prompt")
            prompt = self._tokenizer.prompt_tokens(request.messages, thinking=request.thinking)
            room = None if self._model.context_tokens is None else self._model.context_tokens - prompt
            if room is not None and room < 1:
                raise ContextError(
                    f"the prompt of {request.id!r} has {prompt} tokens, the context {self._model.context_tokens}"
                )
            script = self._script(request) if callable(self._script) else self._script
            rows[request.id] = _Row(request, as_script(script), prompt, self._model.thinks, room)
        self.requests.extend(requests)
        self.active += len(rows)
        self.max_active = max(self.max_active, self.active)
        return rows
