"""What all doors of a server share: its settings, its models, its runs; and the asking itself."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import anyio
from anyio.abc import TaskGroup

from engine.api import Message
from engine.errors import EngineError
from rsa.errors import RSAError
from rsa.events import Event
from rsa.problem import Problem
from rsa.serve.answering import Answering
from rsa.serve.completions import PlainAnswering
from rsa.serve.errors import SERVER_ERROR, ApiError
from rsa.serve.guard import Slots
from rsa.serve.logs import log
from rsa.serve.metrics import Metrics
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

    slots     how much is worked on at a time.
    metrics   the server's numbers.
    draining  no new requests are taken: the server is about to end.
    active    completions of the model itself that somebody waits for.
    """

    def __init__(self, settings: ServeSettings, served: Served | None = None) -> None:
        self.settings = settings
        self.served = served or Served(settings.models)
        self.slots = Slots(settings.concurrent, settings.queue)
        self.metrics = Metrics()
        self.runs = Runs(settings.runs, self.served, slot=partial(self.slots.ticket, bounded=False), observer=self)
        self.metrics.watch(self.slots, lambda: len(self.runs.live))
        self.started_at = int(time.time())
        self.draining = False
        self.active: set[PlainAnswering] = set()
        self._revived: dict[str, float] = {}
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
            handle = self.runs.start(self._order(asked, route), self.slots.ticket())
            return RunAnswering(
                handle, background=asked.background, stop=asked.wishes.stop, offer=asked.offer, deltas=asked.deltas
            )
        answering = PlainAnswering(
            self.served,
            route.model,
            asked.messages,
            asked.wishes,
            offer=asked.offer,
            deltas=asked.deltas,
            ticket=self.slots.ticket(),
            metrics=self.metrics,
        )
        self.active.add(answering)
        self._group.start_soon(self._answer, answering)
        return answering

    def pictures(self) -> Pictures:
        """What gets the images of one request."""
        chosen = self.settings
        return Pictures(PictureLimits(images=chosen.images, bytes=chosen.image_bytes, fetch=chosen.fetch_images))

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

    def told(self, handle: RunHandle, event: Event) -> None:
        """See `rsa.serve.runs.Observer`."""
        self.metrics.observe(handle.id, handle.summary.model, event)

    def ended(self, handle: RunHandle) -> None:
        """See `rsa.serve.runs.Observer`."""
        run = handle.summary
        self.metrics.run_ended(run.id, run.model, run.state)
        seconds = None if run.finished_at is None else round(run.finished_at - run.created_at, 3)
        tokens = run.usage.completion_tokens or None
        log("run", id=run.id, model=run.name, state=run.state, seconds=seconds, tokens=tokens, error=run.error)

    def revive(self, model: str, *, not_before_s: float) -> None:
        """Open the engine of a model again, without waiting, unless that was tried less than so many seconds ago."""
        now = time.monotonic()
        if now - self._revived.get(model, -math.inf) >= not_before_s:
            self._revived[model] = now
            self._group.start_soon(self._revive, model)

    async def _revive(self, model: str) -> None:
        try:
            await self.served.engine(model)
        except (RSAError, EngineError) as error:
            log("engine", level=logging.ERROR, model=model, state="broken", error=str(error))
        else:
            log("engine", model=model, state="open")

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
