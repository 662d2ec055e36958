"""Answers of the model itself: one completion for each choice, its tokens passed on as they come."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio
import anyio.lowlevel

from engine.api import Completion, Failure, GenerationRequest, Message, Restarted, Section, TokenChunk
from engine.errors import EngineClosedError, EngineError
from rsa.serve.answering import (
    AnswerDelta,
    Answering,
    Finished,
    FinishReason,
    Part,
    ReasoningDelta,
    RunEndedError,
    ToolCalls,
)
from rsa.serve.conversation import check_length
from rsa.serve.guard import Ticket
from rsa.serve.metrics import Metrics
from rsa.serve.models import Served
from rsa.serve.offers import Offer
from rsa.serve.wishes import Wishes, samplings
from rsa.tools.reading import CallReader, as_call, read_calls
from rsa.tools.reading import Part as Written

DELTA_EVERY_S = 0.04
"""The least time between two deltas that are read: what comes meanwhile is one delta. Smooth for the eye, and at 100
tokens a second a fourth of the work."""


@dataclass(slots=True)
class _Sent:
    """What was passed on of a section; `owed` is what of it still has to come again, after the engine began anew.
    `begun`: there was more of it than white space."""

    texts: list[str] = field(default_factory=list)
    owed: str = ""
    begun: bool = False


class _Choice:
    """The answer of one choice while it comes: its text, and calls, with the ids that they have in its `Finished`."""

    def __init__(self, offer: Offer, salt: str) -> None:
        self.salt = salt
        self._offer = offer
        self._reader = CallReader(offer.tools)
        self._called = 0

    def feed(self, text: str) -> list[AnswerDelta | ToolCalls]:
        return self._told(self._reader.feed(text))

    def finish(self, *, whole: bool) -> list[AnswerDelta | ToolCalls]:
        return self._told(self._reader.finish(whole=whole))

    def _told(self, written: Sequence[Written]) -> list[AnswerDelta | ToolCalls]:
        told: list[AnswerDelta | ToolCalls] = []
        for part in written:
            if isinstance(part, str):
                told.append(AnswerDelta(part))
                continue
            if self._called == 0 or self._offer.parallel:
                told.append(ToolCalls((as_call(part, self.salt, self._called),)))
            self._called += 1
        return told


class PlainAnswering(Answering):
    """The parts between a task of the server, `work`, which must be started once, and the request that reads them.

    What is not read yet is bounded by token budgets; whoever is slow to read gets longer deltas. Without `deltas`,
    nothing is done for a token.

    ticket  its place among the requests of the server.
    """

    def __init__(
        self,
        served: Served,
        model: str,
        messages: Sequence[Message],
        wishes: Wishes,
        *,
        offer: Offer | None = None,
        deltas: bool,
        ticket: Ticket,
        metrics: Metrics,
    ) -> None:
        self._ticket, self._metrics = ticket, metrics
        self._served, self._model, self._messages, self._wishes = served, model, tuple(messages), wishes
        self._offer, self._id = offer or Offer(), secrets.token_hex(8)
        self._choices: dict[str, _Choice] = {}
        self._deltas = deltas
        self._scope = anyio.CancelScope()
        self._sent: dict[tuple[str, Section], _Sent] = {}
        self._thinks = True
        self._parts: deque[Part] = deque()
        self._next_delta_at = float("-inf")
        self._changed = anyio.Event()
        self._begun = anyio.Event()
        self._over = anyio.Event()
        self._interrupted = False
        self._error: Exception | None = None

    async def begun(self) -> None:
        await self._begun.wait()
        if self._error is not None and not self._parts:
            raise self._error

    def leave(self) -> None:
        self._scope.cancel()

    def interrupt(self) -> None:
        """End it because the server is about to."""
        self._interrupted = True
        self._scope.cancel()

    async def over(self) -> None:
        """Wait until its task has ended."""
        await self._over.wait()

    async def __anext__(self) -> Part:
        # Where parts come as fast as they are read, no wait would be long enough for a cancellation to be noticed.
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._parts:
            if self._over.is_set():
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed = anyio.Event()
            await self._changed.wait()
        if isinstance(self._parts[0], ReasoningDelta | AnswerDelta):
            if not self._over.is_set():
                await anyio.sleep_until(self._next_delta_at)
            self._next_delta_at = anyio.current_time() + DELTA_EVERY_S
        return _next(self._parts)

    async def work(self) -> None:
        """Generate to the end. Never raises: errors are for who reads."""
        with self._scope:
            try:
                async with self._ticket:
                    await self._generate()
            except Exception as error:
                self._error = error
        self._ticket.close()
        if self._scope.cancelled_caught:
            why = "the server is about to end" if self._interrupted else "the request was left"
            self._error = RunEndedError(f"{why}, before its answer was whole", interrupted=self._interrupted)
        self._over.set()
        self._begun.set()
        self._changed.set()

    async def _generate(self) -> None:
        engine = await self._served.engine(self._model)
        check_length(self._messages, engine.model)
        self._thinks = engine.model.thinks
        requests = [
            GenerationRequest(
                id=str(index),
                messages=self._messages,
                sampling=sampling,
                thinking=self._wishes.effort != "none",
                tools=self._offer.tools,
            )
            for index, sampling in enumerate(samplings(self._wishes, engine.model))
        ]
        self._metrics.rows(len(requests))
        try:
            async with engine.generate(requests) as stream:
                self._begun.set()
                async for event in stream:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    match event:
                        case TokenChunk():
                            self._grow(event)
                        case Restarted():
                            self._restart(event.request_id)
                        case Completion():
                            self._finish(event)
                        case Failure():
                            raise event.error
        except EngineClosedError as error:
            await self._served.lost(self._model, engine, str(error))
            raise
        finally:
            self._metrics.rows(-len(requests))

    def _grow(self, chunk: TokenChunk) -> None:
        if not self._deltas or not chunk.text:
            return
        sent = self._sent.setdefault((chunk.request_id, chunk.section), _Sent())
        text = chunk.text
        if chunk.section == "answer" and self._thinks and not sent.begun:
            text = text.lstrip()  # chat templates have a blank line after a think tag
        sent.begun = sent.begun or bool(text)
        if sent.owed:
            text = _new(text, sent)
        if not text:
            return
        sent.texts.append(text)
        if chunk.section == "reasoning" and self._thinks:
            self._put(ReasoningDelta(text, int(chunk.request_id)))
        else:
            self._put_all(self._choice(chunk.request_id).feed(text), chunk.request_id)

    def _choice(self, request_id: str) -> _Choice:
        if request_id not in self._choices:
            self._choices[request_id] = _Choice(self._offer, f"{self._id} {request_id}")
        return self._choices[request_id]

    def _put_all(self, parts: Sequence[AnswerDelta | ToolCalls], request_id: str) -> None:
        for part in parts:
            self._put(replace(part, index=int(request_id)))

    def _put(self, part: Part) -> None:
        self._parts.append(part)
        self._changed.set()

    def _restart(self, request_id: str) -> None:
        for (request, _), sent in self._sent.items():
            if request == request_id:
                sent.owed, sent.begun = "".join(sent.texts), False

    def _finish(self, completion: Completion) -> None:
        self._metrics.spent(self._model, completion.usage)
        whole = completion.finish_reason == "stop"
        choice = self._choice(completion.request_id)
        if self._deltas:
            self._put_all(choice.finish(whole=whole), completion.request_id)
        text = completion.text.lstrip() if self._thinks else completion.text
        written = read_calls(text, self._offer.tools, whole=whole, salt=choice.salt)
        calls = self._offer.kept(written.calls)
        ended: FinishReason = "stop" if whole else "length"
        self._put(
            Finished(
                text=written.text,
                reasoning=completion.reasoning if self._thinks else "",
                usage=completion.usage,
                finish_reason="tool_calls" if calls else ended,
                calls=calls,
                index=int(completion.request_id),
            )
        )


def _next(parts: deque[Part]) -> Part:
    """The next part: a delta together with all of its kind that came right after it."""
    part = parts.popleft()
    if not isinstance(part, ReasoningDelta | AnswerDelta):
        return part
    texts = [part.text]
    while parts and isinstance(parts[0], type(part)) and parts[0].index == part.index:
        following = parts.popleft()
        assert isinstance(following, ReasoningDelta | AnswerDelta)
        texts.append(following.text)
    return type(part)("".join(texts), part.index)


def _new(text: str, sent: _Sent) -> str:
    """What of a text was not passed on before."""
    again = min(len(text), len(sent.owed))
    if text[:again] != sent.owed[:again]:
        raise EngineError("the connection to who generates broke, and the answer began anew as another one: ask again")
    sent.owed = sent.owed[again:]
    return text[again:]
