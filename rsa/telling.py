"""What a run tells as it goes: events, to its log and to who follows it; and what of them its result repeats."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import anyio
import anyio.to_thread

from rsa.events import CandidateProgress, Event, LimitHit, RunFinished, Warned
from rsa.limits import Hit, Meter
from rsa.runlog import RunLog

Send = Callable[[Event], Awaitable[None]]


class Teller:
    """Tells the events of one run, one after the other.

    hits      limits it ran into.
    warnings  what a person should know.
    """

    def __init__(self, meter: Meter, log: RunLog | None, send: Send | None) -> None:
        self.hits: list[LimitHit] = list(log.hits) if log else []
        self.warnings: list[str] = []
        self._meter, self._log, self._send = meter, log, send
        self._emitting = anyio.Lock()

    async def emit(self, event: Event) -> None:
        """Log it, then send it. Raises RunWriteError."""
        async with self._emitting:
            if self._log is not None and not isinstance(event, CandidateProgress | RunFinished):
                if self._log.waits_for_disk(event):
                    await anyio.to_thread.run_sync(self._log.append, event)
                else:
                    self._log.append(event)
            if self._send is not None:
                await self._send(event)

    async def warn(self, message: str) -> None:
        """Say it, and keep it for the result."""
        self.warnings.append(message)
        await self.emit(Warned(at_s=self._meter.elapsed_s(), message=message))

    async def say_trusted(self) -> None:
        """Warn of what was taken on trust since this was called last."""
        for message in self._log.trust.notes if self._log is not None else ():
            if message not in self.warnings:
                await self.warn(message)

    async def hit(self, hit: Hit, number: int, action: Literal["conclude", "cancel", "no_new_round"]) -> None:
        """A limit was reached in this round, or after it."""
        event = LimitHit(
            at_s=self._meter.elapsed_s(),
            limit=hit.limit,
            round=number,
            action=action,
            used=hit.used,
            allowed=hit.allowed,
        )
        self.hits.append(event)
        await self.emit(event)

    def limited_in(self, number: int) -> bool:
        """Whether a limit said how candidates of a round ended."""
        return any(hit.round == number and hit.action != "no_new_round" for hit in self.hits)
