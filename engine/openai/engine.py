"""The engine of `--model openai:MODEL --base-url URL`: any server that speaks the OpenAI API."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
import httpx2
from anyio.abc import TaskGroup

from engine.admission import check_requests, check_room, count_images
from engine.api import (
    Completion,
    EngineEvent,
    Failure,
    GenerationRequest,
    GenerationStream,
    ModelInfo,
)
from engine.errors import EngineClosedError
from engine.openai.asking import Asker
from engine.openai.connection import Settings
from engine.openai.endpoints import Endpoints
from engine.openai.generation import Generation, Link
from engine.openai.remote import Remote
from engine.openai.slots import Slots, Turn

if TYPE_CHECKING:
    from engine.openai.tokens import RemoteTokenizer

_PAUSE_BACKOFFS = 10
"""A server that keeps failing is left alone for so many first pauses of a request that is tried again."""


class OpenAIEngine:
    """An `engine.api.Engine` that has a server generate.

    asker  what the tokenizer asks with; closed with the engine.
    """

    def __init__(self, remote: Remote, asker: Asker) -> None:
        self._remote, self._asker = remote, asker
        self._link: Link | None = None
        self._users = 0  # streams that are open; the last one closes the connections
        self._running: set[Generation] = set()
        self._closed = False

    @property
    def model(self) -> ModelInfo:
        return self._remote.info

    @property
    def tokenizer(self) -> RemoteTokenizer:
        return self._remote.tokenizer

    @property
    def settings(self) -> Settings:
        return self._remote.settings

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        """See `engine.api.Engine.generate`."""
        return OpenAIStream(self, requests)

    async def aclose(self) -> None:
        """End what runs with EngineClosedError. Idempotent."""
        self._closed = True
        for generation in list(self._running):
            generation.fail(EngineClosedError("the engine was closed while this request ran"))
        await anyio.lowlevel.checkpoint()
        self._asker.close()

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[Link]:
        """Connections of this event loop, kept as long as any stream is open."""
        if self._link is None:
            settings = self._remote.settings
            self._link = Link(
                httpx2.AsyncClient(**settings.client_options),
                Endpoints(settings.base_urls, first_pause_s=_PAUSE_BACKOFFS * settings.backoff_s, clock=time.monotonic),
                Slots(settings.max_rows),
            )
        link = self._link
        self._users += 1
        try:
            yield link
        finally:
            self._users -= 1
            if self._users == 0:
                self._link = None
                with anyio.CancelScope(shield=True):
                    await link.client.aclose()

    def admitted(
        self, requests: Sequence[GenerationRequest], emit: Callable[[EngineEvent], None]
    ) -> dict[str, Generation]:
        """Raises EngineClosedError, RequestError, ContextError; EngineError where the server is to count a prompt's
        tokens, and does not."""
        if self._closed:
            raise EngineClosedError("the engine is closed: open a new one")
        check_requests(requests, self.model)
        generations: dict[str, Generation] = {}
        for request in requests:
            tokens = self.tokenizer.prompt_tokens(request.messages, thinking=request.thinking, tools=request.tools)
            if self.model.exact_tokens and not count_images(request):
                check_room(request, tokens, self.model)
            generations[request.id] = Generation(self._remote, request, tokens, emit)
        return generations

    async def run(self, generation: Generation, link: Link, turn: Turn) -> None:
        self._running.add(generation)
        try:
            await generation.run(link, turn)
        finally:
            self._running.discard(generation)


class OpenAIStream:
    """Implements `engine.api.GenerationStream`: a task for each request."""

    def __init__(self, engine: OpenAIEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine, self._requests = engine, requests
        self._generations: dict[str, Generation] = {}
        self._events: deque[EngineEvent] = deque()
        self._open = len(requests)
        self._wake: anyio.Event | None = None
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._generations = self._engine.admitted(self._requests, self._put)
        async with AsyncExitStack() as stack:
            link = await stack.enter_async_context(self._engine.linked())
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            for generation in self._generations.values():
                self._tasks.start_soon(self._engine.run, generation, link, link.slots.turn())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        # Only a cancellation is the group's business: any other error of the reader would come out wrapped.
        cancelled = isinstance(exc[1], anyio.get_cancelled_exc_class())
        await self._stack.__aexit__(*(exc if cancelled else (None, None, None)))  # type: ignore[arg-type]

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        if not self._events and self._open == 0:
            raise StopAsyncIteration
        while (
            not self._events
        ):  # no pause is made for what is there: at thousands of tokens a second it would cost most
            self._wake = anyio.Event()
            await self._wake.wait()
        return self._events.popleft()

    def cancel(self, request_id: str) -> None:
        """End a request now; its `Completion` (`cancelled`) still comes. Unknown or finished: no effect."""
        if request_id in self._generations:
            self._generations[request_id].cancel()

    def conclude(self, request_id: str, at: int = 0) -> None:
        """Treat the reasoning budget as used up at so many tokens, or at those that the server has sent by then, if
        these are more: the request answers, or ends with `budget`."""
        if request_id in self._generations:
            self._generations[request_id].conclude(at)

    def _put(self, event: EngineEvent) -> None:
        self._events.append(event)
        self._open -= isinstance(event, Completion | Failure)
        if self._wake is not None:
            self._wake.set()
