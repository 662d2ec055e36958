"""One completion that a server generates: asked for, read, continued where it breaks, and tried again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio
import httpx2

from engine.api import (
    EngineEvent,
    Failure,
    GenerationRequest,
    Interruption,
    Restarted,
)
from engine.detokenizer import REPLACEMENT
from engine.errors import EngineError, ModelError, RequestError
from engine.openai.asking import DONE, is_stream
from engine.openai.calls import Calls
from engine.openai.connection import BrokenError, broken_by, refused_by
from engine.openai.endpoints import Endpoint, Endpoints
from engine.openai.reading import Reader
from engine.openai.remote import Remote
from engine.openai.slots import Slots, Turn
from engine.openai.tokens import Piece
from engine.openai.wire import Delta, ServerError, WireError, read_answer, read_json
from engine.sequence import Sequence

_LOOK_AGAIN_S = 0.2
"""While no endpoint may be asked, how often to see whether one may."""
_LEAST_PROGRESS = 8
"""Tokens that must have come for a broken answer not to count as one more in a row."""
_CLIENT_ERRORS = range(400, 500)
_UNSEEN_TOKENS = 3
"""An end token and what stands around tags: tokens that a server may count, and does not show."""
_END_S = 1.0
"""How long a server may take to end an answer that it has said is done."""


@dataclass(slots=True)
class Link:
    """A client, the endpoints that it asks, and how many requests may go on at once; of one event loop."""

    client: httpx2.AsyncClient
    endpoints: Endpoints
    slots: Slots


@dataclass(slots=True)
class _Answer:
    """One answer of a server while it is read.

    begun_at     tokens that there were before.
    over         nothing more of it is of use.
    ended_there  the server ended it, and has perhaps counts to send after it.
    trouble      what broke it.
    calls        of tools, which the server took out of the text.
    """

    reader: Reader
    begun_at: int
    calls: Calls = field(default_factory=Calls)
    over: bool = False
    ended_there: bool = False
    trouble: Exception | None = None


class Generation:
    """A request until its `Completion`, which is emitted as its last event, or else a `Failure`.

    scope  cancelling it stops the work.
    """

    def __init__(
        self, remote: Remote, request: GenerationRequest, prompt_tokens: int, emit: Callable[[EngineEvent], None]
    ) -> None:
        self.request = request
        self.scope = anyio.CancelScope()
        self._remote, self._emit, self._prompt_tokens = remote, emit, prompt_tokens
        self._interruptions: list[Interruption] = []
        self._prompt_ids: list[int] | None = None  # of the prompt that the server was given first
        self._elsewhere = False  # the answer that is read is of no more use: the next one goes on
        self._ended = False
        self._begin()

    def cancel(self) -> None:
        """End it with what it has."""
        if not self._ended:
            self._sequence.finish("cancelled")
            self.scope.cancel()

    def conclude(self, at: int = 0) -> None:
        """Treat its reasoning budget as used up at so many tokens, at the next one if there are more."""
        self._sequence.conclude(at)

    def fail(self, error: EngineError) -> None:
        """End it with an error, and stop the work."""
        if not self._ended:
            self._ended = True
            self._emit(Failure(self.request.id, error, tuple(self._interruptions)))
            self.scope.cancel()

    async def run(self, link: Link, turn: Turn) -> None:
        """Wait for the turn, and generate to the end. Never raises but for cancellation from outside of `scope`."""
        with self.scope:
            try:
                async with turn:
                    await self._generate(link)
            except EngineError as error:
                self.fail(error)
        if not self._ended and self._sequence.finish_reason is not None:
            self._ended = True
            self._send_chunks()
            self._emit(self._completion())

    def _begin(self) -> None:
        info, request = self._remote.info, self.request
        self._approximate = self._remote.tokenizer.kind == "estimated"
        if not info.conclude:
            sampling = request.sampling.model_copy(update={"force_answer": False})
            request = request.model_copy(update={"sampling": sampling})
        self._sequence = Sequence(
            request,
            self._remote.tokenizer,
            prompt_tokens=self._prompt_tokens,
            opened=info.thinks and request.thinking,
            context_tokens=info.context_tokens,
        )

    def _completion(self) -> Any:
        facts = {"interruptions": tuple(self._interruptions), "approximate": self._approximate}
        return self._sequence.completion().model_copy(update=facts)

    # ---- tries

    async def _generate(self, link: Link) -> None:
        failed, avoid = 0, None
        while self._sequence.finish_reason is None:
            before = len(self._sequence.token_ids)
            endpoint = await self._endpoint(link.endpoints, avoid)
            broken = await self._tried(link, endpoint)
            if broken is None:
                failed, avoid = 0, None
                continue
            failed = 1 if self._came_further(before) else failed + 1
            if failed > self._remote.settings.max_retries:
                raise _given_up(str(broken), failed)
            self._recover(str(broken))
            avoid = endpoint
            await self._pause(link.endpoints, broken, failed)

    async def _tried(self, link: Link, endpoint: Endpoint) -> BrokenError | None:
        """One answer of an endpoint, and what broke it."""
        try:
            await self._exchange(link, endpoint)
        except BrokenError as broken:
            link.endpoints.failed(endpoint, str(broken))
            return broken
        finally:
            link.endpoints.give_back(endpoint)
        return None

    async def _endpoint(self, endpoints: Endpoints, avoid: Endpoint | None) -> Endpoint:
        """The next one to ask; while there is none, wait, and count what others find out."""
        trials, failed = endpoints.failed_trials, 0
        while True:
            endpoint = endpoints.take(avoid)
            if endpoint is not None:
                return endpoint
            await anyio.sleep(min(_LOOK_AGAIN_S, max(0.001, endpoints.wait_s())))
            if endpoints.failed_trials > trials:
                trials, failed = endpoints.failed_trials, failed + 1
            if failed > self._remote.settings.max_retries:
                raise _given_up(endpoints.last_error, failed)

    async def _pause(self, endpoints: Endpoints, broken: BrokenError, failed: int) -> None:
        """Wait before the next try, unless another endpoint may do better at once."""
        if broken.after_s is None and failed < len(endpoints.all):
            return
        await anyio.sleep(max(broken.after_s or 0.0, self._remote.settings.backoff(failed - 1)))

    def _came_further(self, before: int) -> bool:
        """Tokens came that are kept, and not so few that a server which breaks off at once would be asked for ever."""
        came = len(self._sequence.token_ids) - before
        return came >= _LEAST_PROGRESS and self._can_continue

    def _recover(self, error: str) -> None:
        """Keep what there is, if the server can go on with it; else begin again.

        After a single token it begins again, too: mlx_lm.server 0.32 breaks down on a prompt whose continuation by one
        token it has seen.
        """
        tokens = len(self._sequence.token_ids)
        if tokens == 0 or (tokens > 1 and self._can_continue):
            action: Literal["retried", "continued"] = "continued" if tokens else "retried"
            self._interruptions.append(Interruption(action=action, after_tokens=tokens, error=error))
            return
        self._interruptions.append(Interruption(action="restarted", after_tokens=tokens, error=error))
        concludes_at = self._sequence.concludes_at
        self._begin()
        self._sequence.concludes_at = concludes_at
        self._emit(Restarted(self.request.id))

    # ---- one answer

    async def _exchange(self, link: Link, endpoint: Endpoint) -> None:
        """Have the server go on from where the sequence stands, until that ends, or has to go on in another answer.

        Raises BrokenError, EngineError.
        """
        self._elsewhere = False
        path, body = self._remote.asked(self._sequence, self._prompt_ids)
        answer = _Answer(self._reader(path), begun_at=len(self._sequence.token_ids))
        try:
            await self._read(link, endpoint, path, body, answer)
        except httpx2.RequestError as error:  # of the transport, or in what was to be unpacked
            answer.trouble = answer.trouble or error
        if not answer.over:  # else what breaks afterwards breaks nothing
            raise self._meaning(answer.trouble, endpoint.url)

    def _reader(self, path: str) -> Reader:
        can, sequence = self._remote.can, self._sequence
        begins = path == "/chat/completions" and not sequence.token_ids
        return Reader(
            self._remote.tokenizer,
            section=sequence.section,
            thinks=self._remote.info.thinks and self.request.thinking,
            fielded=begins and can.reasoning not in ("tags", "none"),
            takes_ids=not self.request.tools,  # of which there are some for calls, too, which are no text
        )

    async def _read(self, link: Link, endpoint: Endpoint, path: str, body: dict[str, Any], answer: _Answer) -> None:
        """Read an answer until it is over.

        It is never left but by cancelling what waits for more: that goes through all that reads for it, and closes it
        in order, where leaving a loop would leave generators to the garbage collector.
        """
        with anyio.CancelScope() as reading:
            async with link.client.stream("POST", endpoint.url + path, json=body) as response:
                if response.status_code != 200:
                    data, headers = await response.aread(), response.headers
                    answer.trouble = refused_by(
                        response.status_code, data, headers, endpoint.url, self._remote.settings
                    )
                elif not is_stream(response):
                    link.endpoints.answered(endpoint)
                    await self._take(await response.aread(), answer)
                else:
                    link.endpoints.answered(endpoint)
                    async for event in httpx2.EventSource(response):
                        if event.data == DONE:
                            reading.deadline = anyio.current_time() + _END_S
                        if event.data and not (answer.over or answer.trouble):
                            await self._take(event.data, answer)
                            if (answer.over and not answer.ended_there) or answer.trouble:
                                reading.cancel()
                        elif event.data and answer.ended_there:
                            self._note(event.data, answer)

    def _meaning(self, error: Exception | None, url: str) -> Exception:
        """What is to be raised for what an answer came to."""
        if error is None:
            return BrokenError(f"the answer of {url} ended in the midst")
        if isinstance(error, httpx2.RequestError):
            return broken_by(error, url, self._remote.settings)
        if isinstance(error, ServerError):
            message = self._remote.settings.without_key(str(error))
            if error.status in _CLIENT_ERRORS and error.status != 429:
                return RequestError(f"{url} refuses the request ({error.status}: {message})")
            return BrokenError(f"{url} broke off ({error.status}: {message})")
        return BrokenError(f"{url}: {error}") if isinstance(error, WireError) else error

    async def _take(self, data: str | bytes, answer: _Answer) -> None:
        """Take the next part of an answer; what is wrong with it is its trouble. Nobody can cancel this."""
        try:
            await self._took(Delta(finish="stop") if data == DONE else read_answer(read_json(data)), answer)
        except (WireError, ServerError, BrokenError, EngineError) as error:
            answer.trouble = error

    async def _took(self, delta: Delta, answer: _Answer) -> None:
        self._count(delta, answer)
        if delta.finish is not None:  # a character may have been cut off there
            said, text = (part.rstrip(REPLACEMENT) for part in (delta.reasoning, delta.text))
            delta = replace(delta, reasoning=said, text=text)
        await self._feed(await answer.reader.read(delta))
        answer.calls.take(delta.calls)
        if delta.finish is not None and not self._stopped:
            answer.ended_there = True
            if spelled := answer.calls.spelled(whole=delta.finish != "length"):
                self._approximate = True
                await self._feed(await answer.reader.read(Delta(text=spelled)))
            await self._feed(await answer.reader.finish())
            if not self._stopped:
                self._server_ended(delta.finish)
        self._compare(delta, answer)
        answer.over = self._stopped
        self._send_chunks()

    def _note(self, data: str, answer: _Answer) -> None:
        """Take the counts that come after the end of an answer; whatever else is there is of no use."""
        with suppress(WireError, ServerError):
            delta = read_answer(read_json(data))
            self._count(delta, answer)
            self._compare(delta, answer)

    def _compare(self, delta: Delta, answer: _Answer) -> None:
        """Tokens of a text that was encoded, here or there, are those that were drawn only if they are as many."""
        went_on = answer.begun_at > 0 and self._remote.can.continues == "text"
        if went_on and delta.prompt_tokens is not None:
            self._approximate |= delta.prompt_tokens != self._sequence.prompt_tokens + answer.begun_at
        encoded = not self._remote.can.token_ids or bool(self.request.tools)
        if delta.completion_tokens is not None and answer.ended_there and encoded:
            ours = len(self._sequence.token_ids) - answer.begun_at
            self._approximate |= abs(ours - delta.completion_tokens) > _UNSEEN_TOKENS

    def _count(self, delta: Delta, answer: _Answer) -> None:
        if answer.begun_at:
            return
        if delta.prompt_ids is not None:
            self._prompt_ids = list(delta.prompt_ids)
        if delta.prompt_tokens:
            self._sequence.prompt_tokens = delta.prompt_tokens
            self._sequence.cached_tokens = min(delta.cached_tokens or 0, delta.prompt_tokens)

    @property
    def _can_continue(self) -> bool:
        """Whether the server can go on from here; not in an answer that may call tools, for it shows no half of one."""
        may_call = self.request.tools and self._sequence.section == "answer"
        return not may_call and self._remote.can_continue(self._prompt_ids)

    @property
    def _stopped(self) -> bool:
        return self._elsewhere or self._sequence.finish_reason is not None

    async def _feed(self, pieces: list[Piece]) -> None:
        """Give tokens to the sequence, until it ends or its reasoning has to be ended here."""
        for piece in pieces:
            left = self._sequence.tokens_left
            if piece.text is not None and left is not None and 0 < left < len(piece.ids):
                first = (await self._remote.tokenizer.text_of(piece.ids[:left])).rstrip(REPLACEMENT)
                for part in piece.split(left, first):
                    self._accept(part)
            else:
                self._accept(piece)

    def _accept(self, piece: Piece) -> None:
        sequence, text, last = self._sequence, piece.text, len(piece.ids) - 1
        for number, token in enumerate(piece.ids):
            if self._stopped:
                return
            if sequence.forced and token != sequence.forced[0]:
                if sequence.section == "reasoning":  # the server does not close it, so it is done here
                    self._force()
                    return
                sequence.forced.clear()  # the tag is closed; what stands after it is the model's own
            shown = "" if text is not None and number < last else text
            sequence.accept(token, shown, piece.likelihood(number))
            if sequence.forced and (sequence.concluding or not self._remote.keeps_budget(self.request)):
                self._force()

    def _force(self) -> None:
        """Write what is forced, and have the server go on after it, if it can."""
        if not self._can_continue:
            self._sequence.end_at_budget()
        while self._sequence.forced and self._sequence.finish_reason is None:
            self._sequence.accept(self._sequence.forced[0])
        self._elsewhere = True

    def _server_ended(self, why: str) -> None:
        sampling, sequence = self.request.sampling, self._sequence
        if why == "abort":
            raise BrokenError("the server gave the request up")
        if why != "length":
            self._end_turn()
        elif sequence.section == "answer" or sampling.max_tokens is not None or sampling.reasoning_budget is None:
            sequence.finish("length")
        else:  # the server counts otherwise than we do: the budgets are used up
            sequence.end_reasoning()
            self._force()

    def _end_turn(self) -> None:
        """The model ended it: with its end token, which is no text, where nothing else can have been the reason."""
        ends, sampling = self._remote.tokenizer.end_ids, self.request.sampling
        stopped = bool(sampling.stop) or sampling.cue is not None
        if len(ends) == 1 and not stopped and not ends.issuperset(self._sequence.token_ids[-1:]):
            self._sequence.accept(next(iter(ends)), "")
        self._sequence.finish("stop")

    def _send_chunks(self) -> None:
        for chunk in self._sequence.chunks():
            self._emit(chunk)


def _given_up(error: str, tries: int) -> ModelError:
    return ModelError(f"{error}; given up after {tries} {'tries' if tries > 1 else 'try'}")
