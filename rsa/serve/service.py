"""What all doors of a server share: its settings, its models, its runs; and the asking itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import anyio
from anyio.abc import TaskGroup

from engine.api import Message
from rsa.problem import Problem
from rsa.serve.answering import Answering
from rsa.serve.completions import PlainAnswering
from rsa.serve.errors import SERVER_ERROR, ApiError
from rsa.serve.models import Route, Served
from rsa.serve.offers import Offer
from rsa.serve.orders import Order
from rsa.serve.pictures import PictureLimits, Pictures
from rsa.serve.runs import RunHandle, Runs
from rsa.serve.settings import ServeSettings
from rsa.serve.solving import RunAnswering
from rsa.serve.wishes import Wishes, routed, run_config

_logger = logging.getLogger("rsa.serve")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a door asks for.

    route       see `Served.route`.
    messages    see `rsa.serve.conversation.conversation`.
    offer       tools that the model may call.
    deltas      somebody reads along, so that deltas are worth their work.
    background  a run goes on when nobody reads any more; of a plain completion this means nothing.
    metadata    kept with a run.
    """

    route: Route
    messages: Sequence[Message]
    wishes: Wishes = field(default_factory=Wishes)
    offer: Offer = field(default_factory=Offer)
    deltas: bool = False
    background: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class Service:
    """Use within `async with`; it belongs to one event loop, asyncio's.

    draining  no new requests are taken: the server is about to end.
    active    completions of the model itself that somebody waits for.
    """

    def __init__(self, settings: ServeSettings, served: Served | None = None) -> None:
        self.settings = settings
        self.served = served or Served(settings.models)
        self.runs = Runs(settings.runs, self.served)
        self.started_at = int(time.time())
        self.draining = False
        self.active: set[PlainAnswering] = set()
        self._group: TaskGroup
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.served.aclose)
            await stack.enter_async_context(self.runs)
            self._group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self.interrupt)
            if self.settings.resume != "none":
                resumed = await self.runs.resume_unfinished(foreground=self.settings.resume == "all")
                for handle in resumed:
                    _logger.info("going on with run %s", handle.id)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.__aexit__(None, None, None)

    def ask(self, asked: Asked) -> Answering:
        """Begin to answer. Whoever gets the `Answering` must `leave` it.

        Raises ApiError and the errors of wishes that cannot be; what else is wrong comes from the `Answering`.
        """
        self.refuse_if_draining()
        route = routed(asked.route, asked.wishes)
        if route.rsa:
            handle = self.runs.start(self._order(asked, route))
            return RunAnswering(
                handle, background=asked.background, stop=asked.wishes.stop, offer=asked.offer, deltas=asked.deltas
            )
        answering = PlainAnswering(
            self.served, route.model, asked.messages, asked.wishes, offer=asked.offer, deltas=asked.deltas
        )
        self.active.add(answering)
        self._group.start_soon(self._answer, answering)
        return answering

    def pictures(self) -> Pictures:
        """What gets the images of one request."""
        return Pictures(PictureLimits(images=self.settings.images, bytes=self.settings.image_bytes))

    def follow(self, handle: RunHandle, *, deltas: bool, offer: Offer | None = None) -> Answering:
        """The answer of a run that is there already, to be read again; leaving it changes nothing. `offer`: as it was
        asked with."""
        return RunAnswering(handle, background=True, deltas=deltas, offer=offer)

    def refuse_if_draining(self) -> None:
        """Raises ApiError (503) when the server is about to end."""
        if self.draining:
            raise ApiError(
                503,
                "the server is about to end and takes no new requests",
                type=SERVER_ERROR,
                code="shutting_down",
                headers={"Retry-After": "5"},
            )

    def interrupt(self) -> None:
        """End all that runs: completions are lost, runs can be gone on with."""
        for answering in self.active:
            answering.interrupt()
        self.runs.interrupt()

    async def idle(self) -> None:
        """Wait until nothing is being worked on; for when nothing new is taken."""
        for answering in list(self.active):
            await answering.over()
        for handle in self.runs.live:
            await handle.over()

    @property
    def busy(self) -> int:
        """Requests and runs that are being worked on."""
        return len(self.active) + len(self.runs.live)

    def _order(self, asked: Asked, route: Route) -> Order:
        return Order(
            problem=Problem.conversation(asked.messages, tools=asked.offer.tools),
            config=run_config(asked.wishes, route, self.served),
            model=route.model,
            name=route.name,
            background=asked.background,
            metadata=asked.metadata,
        )

    async def _answer(self, answering: PlainAnswering) -> None:
        try:
            await answering.work()
        finally:
            self.active.remove(answering)
