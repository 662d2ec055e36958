"""All responses of a server: asked for, written by tasks of its own, kept, and taken up again after its death.

A response has a task that writes it from an `Answering`, and any number of followers. In the foreground it ends when
who asked for it leaves; in the background it does not, and a server that is started on the same folder goes on with it:
events count on, and what was begun of an answer is void.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from pydantic import TypeAdapter

from rsa.errors import RSAError
from rsa.serve.answering import AnswerDelta, Answering, Finished, ReasoningDelta, RunEndedError, ToolCalls
from rsa.serve.conversation import conversation
from rsa.serve.errors import ApiError, api_error
from rsa.serve.responses.events import Event
from rsa.serve.responses.live import Line, LiveResponse
from rsa.serve.responses.recall import recalled, replayed
from rsa.serve.responses.request import CreateResponse
from rsa.serve.responses.response import Response
from rsa.serve.responses.store import ResponseStore, StoredResponse, new_id
from rsa.serve.responses.turns import turns
from rsa.serve.responses.wishes import asked_for, blank, offered, renamed, usage_of, with_deltas
from rsa.serve.responses.writer import ResponseWriter
from rsa.serve.runs import RunHandle
from rsa.serve.service import Asked, Service

_logger = logging.getLogger("rsa.serve")


class Responses:
    """Use within `async with`, inside of its service's; it belongs to the same event loop."""

    def __init__(self, service: Service) -> None:
        self.store = ResponseStore(service.settings.runs)
        self._service = service
        self._live: dict[str, LiveResponse] = {}
        self._group: TaskGroup
        self._events: TypeAdapter[Event] = TypeAdapter(Event)

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        if self._service.settings.resume != "none":
            for response_id in await anyio.to_thread.run_sync(self.store.unfinished):
                await self._resume(response_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What still runs in the background is left for the next server."""
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(kind, error, traceback)

    async def begin(self, request: CreateResponse) -> tuple[LiveResponse, Answering]:
        """A new response, which is being written. Raises ApiError and the errors of requests that cannot be."""
        live = LiveResponse(ResponseWriter(blank(request, new_id(), int(time.time()))))
        answering = self._service.ask(await self._asked(request))
        try:
            stored = StoredResponse(request=request, response=live.response, run_id=answering.run_id)
            self._live[live.response.id] = live
            lines = live.tell(live.writer.begin())
            if request.background:
                await anyio.to_thread.run_sync(self.store.write, stored)
                self.store.tell(live.response.id, [line.json for line in lines])
        except BaseException:
            answering.leave()
            self._live.pop(live.response.id, None)
            raise
        self._group.start_soon(self._work, live, stored, answering)
        return live, answering

    def live(self, response_id: str) -> LiveResponse | None:
        """A response that is being written."""
        return self._live.get(response_id)

    async def read(self, response_id: str) -> Response:
        """A response as it stands. Raises ApiError (404)."""
        live = self._live.get(response_id)
        if live is not None:
            return live.response
        stored = await self.stored(response_id)
        return (await self._abandoned(stored))[1] if self._is_abandoned(stored.response) else stored.response

    async def stored(self, response_id: str) -> StoredResponse:
        """Raises ApiError (404)."""
        return await anyio.to_thread.run_sync(self.store.read, response_id)

    async def cancel(self, response_id: str) -> Response:
        """End a response now, if it has not ended; what was written of it stays. Raises ApiError (404)."""
        live = self._live.get(response_id)
        if live is None:
            return await self.read(response_id)
        live.cancel()
        await live.over()
        return live.response

    async def leave(self, live: LiveResponse) -> None:
        """Who asked for a response was never told of it: there is none."""
        live.leave()
        if live.response.background:
            await live.over()
            await anyio.to_thread.run_sync(self.store.delete, live.response.id)

    async def delete(self, response_id: str) -> None:
        """Forget a response; one that is being written is cancelled. Raises ApiError (404)."""
        live = self._live.get(response_id)
        if live is not None:
            live.leave()
            live.cancel()
            await live.over()
            if not live.response.background:
                return
        await anyio.to_thread.run_sync(self.store.delete, response_id)

    async def follow(self, response_id: str, after: int) -> AsyncIterator[Line]:
        """The events of a response with a number above `after`: as it is written, or as they were told, or might have
        been. Raises ApiError (404)."""
        live = self._live.get(response_id)
        if live is not None:
            return live.follow(after)
        stored = await self.stored(response_id)
        if self._is_abandoned(stored.response):
            events, _ = await self._abandoned(stored)
        else:
            events = await self._told(response_id) or replayed(stored.response)
        return _listed([Line.of(event) for event in events if event.sequence_number > after])

    async def _told(self, response_id: str) -> list[Event]:
        """The events that were told of a response in the background."""
        told = await anyio.to_thread.run_sync(self.store.told, response_id)
        return [self._events.validate_json(line) for line in told]

    def _is_abandoned(self, response: Response) -> bool:
        """Whether no server works on a response that has not ended; the one that is about to end left it for the
        next."""
        return not response.ended and not self._service.draining

    async def _abandoned(self, stored: StoredResponse) -> tuple[list[Event], Response]:
        """A response that an earlier server left unfinished and this one does not go on with: as far as it came."""
        events = await self._told(stored.response.id)
        writer = recalled(stored.response, events)
        events += writer.fail("server_error", "the server ended before this was whole, and none has gone on with it")
        return events, writer.response

    async def _asked(self, request: CreateResponse) -> Asked:
        before = await self._before(request.previous_response_id)
        route = self._service.served.route(request.model)
        messages = await conversation(turns(request, before), self._service.pictures())
        return asked_for(request, route, messages)

    async def _before(self, response_id: str | None) -> Sequence[tuple[CreateResponse, Response]]:
        """The responses that a conversation goes on from, the oldest first."""
        found: list[tuple[CreateResponse, Response]] = []
        while response_id is not None:
            if response_id in self._live:
                raise ApiError(
                    409,
                    f"the response {response_id!r} is still being written: wait for its end",
                    param="previous_response_id",
                    code="response_in_progress",
                )
            stored = await anyio.to_thread.run_sync(self._previous, response_id)
            found.append((stored.request, stored.response))
            response_id = stored.request.previous_response_id
        return found[::-1]

    def _previous(self, response_id: str) -> StoredResponse:
        return self.store.read(response_id, param="previous_response_id", code="previous_response_not_found")

    async def _resume(self, response_id: str) -> None:
        """Go on with a response of an earlier server."""
        try:
            stored = await self.stored(response_id)
            events = await self._told(response_id)
        except (RSAError, ValueError) as error:
            _logger.error("cannot go on with %s: %s", response_id, error)
            return
        live = LiveResponse(recalled(stored.response, events), map(Line.of, events))
        self._live[response_id] = live
        self._group.start_soon(self._work, live, stored, None)

    async def _work(self, live: LiveResponse, stored: StoredResponse, answering: Answering | None) -> None:
        """The task of a response: never raises. Without an answering, it is one of an earlier server."""
        events, error = list[Event](), None
        try:
            with live.scope:
                try:
                    events = await self._write(live, stored, answering)
                except Exception as trouble:
                    error = trouble
            if not events:
                events, error = await self._ended_early(live, stored, error)
            if events:
                await self._keep(live, stored, error)
            self._tell(live, events)
        finally:
            del self._live[live.response.id]
            live.end(error)

    async def _write(self, live: LiveResponse, stored: StoredResponse, answering: Answering | None) -> list[Event]:
        """Write it to its end, and give the events of the end, which are not told yet."""
        writer = live.writer
        if answering is None:
            self._tell(live, writer.void() + writer.start())
            answering = await self._again(stored)
        live.run_id = answering.run_id
        try:
            if writer.response.status == "queued":
                await answering.begun()
                self._tell(live, writer.start())
            async for part in answering:
                match part:
                    case ReasoningDelta():
                        self._tell(live, writer.reasoning(part.text))
                    case AnswerDelta():
                        self._tell(live, writer.answer(part.text))
                    case ToolCalls():
                        self._tell(live, writer.tool_calls(part.calls))
                    case Finished():
                        return _finished(writer, part, told=with_deltas(stored.request))
            raise RunEndedError("the answer ended before it was whole")
        finally:
            answering.leave()
            if live.cancelled and live.run_id is not None:
                with anyio.CancelScope(shield=True):
                    (await self._run(live.run_id)).cancel()

    async def _again(self, stored: StoredResponse) -> Answering:
        """The answer to what an earlier server was asked: of the run that goes on, or asked for anew."""
        if stored.run_id is not None:
            try:
                handle = await self._run(stored.run_id)
                return self._service.follow(handle, deltas=True, offer=offered(stored.request))
            except ApiError:  # that server was killed before the run had a folder
                pass
        return self._service.ask(await self._asked(stored.request))

    async def _ended_early(
        self, live: LiveResponse, stored: StoredResponse, error: Exception | None
    ) -> tuple[list[Event], Exception | None]:
        """The events of an end that is none of an answer, and what went wrong, if that is so. Without events, nobody is
        told: the client has gone, or the next server goes on with it."""
        if live.cancelled or await self._was_cancelled(live, error):
            return live.writer.cancel(), None
        if error is None:
            return [], RunEndedError("the request was left before its answer was whole")
        if isinstance(error, RunEndedError) and stored.request.background and self._service.draining:
            return [], error
        told = renamed(api_error(error))
        return live.writer.fail(_code(told), told.message), error

    async def _was_cancelled(self, live: LiveResponse, error: Exception | None) -> bool:
        """Whether somebody cancelled the run itself."""
        if not isinstance(error, RunEndedError) or live.run_id is None:
            return False
        return (await self._run(live.run_id)).summary.state == "cancelled"

    async def _run(self, run_id: str) -> RunHandle:
        return await self._service.runs.get(run_id)

    async def _keep(self, live: LiveResponse, stored: StoredResponse, error: Exception | None) -> None:
        """Keep a response that has ended, unless its id was never told or nobody wants it kept."""
        if live.deleted or not live.response.store or (error is not None and not with_deltas(stored.request)):
            return
        stored = stored.model_copy(update={"response": live.response, "run_id": live.run_id})
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.store.write, stored)
        except RSAError as trouble:
            _logger.error("%s", trouble)

    def _tell(self, live: LiveResponse, events: Iterable[Event]) -> None:
        lines = live.tell(events)
        if live.response.background and lines and not live.deleted:
            self.store.tell(live.response.id, [line.json for line in lines])


def _finished(writer: ResponseWriter, part: Finished, *, told: bool) -> list[Event]:
    """The end of an answer, of which the texts were `told`, or are now."""
    events = [] if told else writer.reasoning(part.reasoning) + writer.answer(part.text) + writer.tool_calls(part.calls)
    return events + writer.finish(
        at=int(time.time()),
        usage=usage_of(part.usage),
        incomplete="max_output_tokens" if part.finish_reason == "length" else None,
        rsa=part.metadata or None,
    )


def items_of(stored: StoredResponse) -> list[dict[str, Any]]:
    """The items that a response was asked with, each with an id, and texts of messages as parts."""
    head = stored.response.id.removeprefix("resp_")
    items = [item.model_dump(mode="json", exclude_none=True) for item in stored.request.items]
    for item in items:
        if isinstance(item.get("content"), str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": item["content"]}]
    return [{"id": f"item_{head}_{number}", **item} for number, item in enumerate(items)]


async def _listed(lines: Iterable[Line]) -> AsyncIterator[Line]:
    for line in lines:
        yield line


def _code(error: ApiError) -> str:
    """The code of a response's error that OpenAI's clients know."""
    if error.status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if error.status < 500 else "server_error"
