"""The candidates of one round on the engine: started together, watched token by token, all ended at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import anyio

from engine.api import (
    Completion,
    Engine,
    EngineEvent,
    Failure,
    GenerationRequest,
    GenerationStream,
    Interruption,
    Restarted,
    Section,
    TokenChunk,
)
from engine.errors import EngineClosedError, EngineError
from rsa.degenerate import DegenerationMonitor
from rsa.limits import CANCEL_GRACE_S, Hit, Meter
from rsa.results import Decision, RoundKind, Status

if TYPE_CHECKING:
    from rsa.deciding import Deciding

RECENT_CHARACTERS = 200
"""How much of the newest text a progress report holds."""


@dataclass(slots=True)
class Rollout:
    """One candidate while it runs, and how it ended: all its state together."""

    round: int
    kind: RoundKind
    index: int
    parents: tuple[int, ...]
    request: GenerationRequest
    started_s: float
    tokens: int = 0
    section: Section = "reasoning"
    recent: str = ""
    reported: float = float("-inf")  # anyio's clock
    monitor: DegenerationMonitor = field(default_factory=DegenerationMonitor)
    status: Status | None = None
    completion: Completion | None = None
    error: str | None = None
    interruptions: tuple[Interruption, ...] = ()  # of one that failed
    cut: int | None = None  # the tokens at which its round was cut

    def restart(self) -> None:
        """Forget what was generated: the engine begins again. One that repeated itself has been cancelled for it."""
        self.tokens, self.section, self.recent = 0, "reasoning", ""
        if not self.monitor.degenerate:
            self.monitor = DegenerationMonitor()

    def loops_within(self, tokens: int) -> bool:
        """Whether it was found to repeat itself by the time it had written so many."""
        return self.monitor.after is not None and self.monitor.after <= tokens


class Listener(Protocol):
    """Who is told how rollouts go; each call is waited for."""

    async def progressed(self, rollout: Rollout) -> None: ...

    async def finished(self, rollout: Rollout) -> None: ...

    async def limit_hit(self, hit: Hit, action: Literal["conclude", "cancel"]) -> None: ...


async def play(
    engine: Engine,
    rollouts: Sequence[Rollout],
    *,
    meter: Meter,
    listener: Listener,
    progress_every_s: float,
    deciding: Deciding | None = None,
) -> None:
    """Run all rollouts to their end; on return each has a status. One that fails does not touch the others.

    deciding  may end them before; it is told by the listener who has ended. None: nothing but limits does.

    Raises EngineError if the engine as a whole fails, or is closed; rollouts that ended before have been reported.
    """
    if rollouts:
        await _Stage(engine, rollouts, meter, listener, progress_every_s, deciding).run()


class _Stage:
    def __init__(
        self,
        engine: Engine,
        rollouts: Sequence[Rollout],
        meter: Meter,
        listener: Listener,
        progress_every_s: float,
        deciding: Deciding | None,
    ) -> None:
        self.engine = engine
        self.rollouts = {rollout.request.id: rollout for rollout in rollouts}
        self.meter = meter
        self.listener = listener
        self.progress_every_s = progress_every_s
        self.deciding = deciding
        self.concluded = False
        self.cancelled = False
        self.cut = False
        self.trouble: Exception | None = None
        # What is being recorded is recorded to its end: whoever would cut it off waits for these.
        self.taking = anyio.Lock(fast_acquire=True)
        self.telling = anyio.Lock(fast_acquire=True)

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            # Errors leave by hand: out of a task group they would come wrapped in an ExceptionGroup.
            try:
                with anyio.CancelScope() as reading:
                    async with self.engine.generate([r.request for r in self.rollouts.values()]) as stream:
                        group.start_soon(self._watch_clock, stream, reading)
                        async with self.taking:
                            await self._ask_policies(stream)
                            await self._obey_token_limit(stream)
                        async for event in stream:
                            async with self.taking:
                                await self._take(event, stream)
            except Exception as error:
                self.trouble = error
            async with self.telling:
                group.cancel_scope.cancel()
        if self.trouble is not None:
            raise self.trouble
        for rollout in self._unfinished():
            # The engine did not end them in time after the deadline, or forgot them.
            status: Status = "cancelled" if self.cancelled else "failed"
            await self._end(rollout, status, error="the engine did not end it")

    def _unfinished(self) -> list[Rollout]:
        return [rollout for rollout in self.rollouts.values() if rollout.status is None]

    async def _take(self, event: EngineEvent, stream: GenerationStream) -> None:
        rollout = self.rollouts[event.request_id]
        match event:
            case TokenChunk():
                await self._grow(rollout, event, stream)
            case Restarted():  # its tokens stay spent
                rollout.restart()
            case Completion():
                self.meter.spend(event.usage.completion_tokens - rollout.tokens)
                rollout.completion = event
                await self._end(rollout, self._status(rollout, event))
            case Failure(error=EngineClosedError()):
                raise event.error  # it is no candidate's: who resumes the run has it generated
            case Failure():
                rollout.interruptions = event.interruptions
                await self._end(rollout, "failed", error=_describe(event.error))
        await self._ask_policies(stream)
        await self._obey_token_limit(stream)

    async def _grow(self, rollout: Rollout, chunk: TokenChunk, stream: GenerationStream) -> None:
        self.meter.spend(len(chunk.token_ids))
        rollout.tokens += len(chunk.token_ids)
        if chunk.section != rollout.section:
            rollout.section, rollout.recent = chunk.section, ""
        rollout.recent = (rollout.recent + chunk.text)[-RECENT_CHARACTERS:]
        was_degenerate = rollout.monitor.degenerate
        if rollout.monitor.feed(chunk.token_ids) and not was_degenerate:
            stream.cancel(rollout.request.id)
        now = anyio.current_time()
        if now - rollout.reported >= self.progress_every_s:
            rollout.reported = now
            await self.listener.progressed(rollout)

    @staticmethod
    def _status(rollout: Rollout, completion: Completion) -> Status:
        if rollout.monitor.degenerate:
            return "degenerate"
        if rollout.cut is not None:
            return "cut"
        return "cancelled" if completion.finish_reason == "cancelled" else "ok"

    async def _end(self, rollout: Rollout, status: Status, *, error: str | None = None) -> None:
        rollout.status, rollout.error = status, error
        await self.listener.finished(rollout)

    async def _ask_policies(self, stream: GenerationStream) -> None:
        """Settle every level that all who run have passed. This is called at every chunk."""
        while self.deciding is not None and (level := self.deciding.pending) is not None:
            rows = self.rollouts.values()
            if self._limited or any(rollout.status is None and rollout.tokens <= level for rollout in rows):
                return
            running = any(rollout.status is None and not rollout.loops_within(level) for rollout in rows)
            decision = await self.deciding.settle(running=running)
            if decision is not None and not self._limited:  # a limit may have come first
                self._obey(stream, decision)
                await self.deciding.decide(decision)

    @property
    def _limited(self) -> bool:
        """A limit says how the rollouts end."""
        return self.concluded or self.cancelled

    def _obey(self, stream: GenerationStream, decision: Decision) -> None:
        self.cut = decision.action == "cut"
        for rollout in self._unfinished():
            if self.cut:
                rollout.cut = decision.at
                stream.cancel(rollout.request.id)
            else:
                stream.conclude(rollout.request.id, decision.at or 0)

    async def _obey_token_limit(self, stream: GenerationStream) -> None:
        if not self.meter.limits_tokens or self.cut:
            return  # this is asked at every chunk
        waiting = self._unfinished()
        if not waiting:
            return
        if (hit := self.meter.tokens_hit()) is not None:
            await self._cancel(stream, hit)
        elif (hit := self.meter.tokens_near(len(waiting))) is not None:
            await self._conclude(stream, hit)

    async def _watch_clock(self, stream: GenerationStream, reading: anyio.CancelScope) -> None:
        conclude_at, deadline = self.meter.conclude_at(), self.meter.deadline()
        if conclude_at is None or deadline is None:
            return
        try:
            await anyio.sleep_until(conclude_at)
            async with self.telling:
                await self._conclude(stream, self.meter.time_hit())
            await anyio.sleep_until(deadline)
            async with self.telling:
                await self._cancel(stream, self.meter.time_hit())
            await anyio.sleep(CANCEL_GRACE_S)
        except Exception as error:
            self.trouble = error
        async with self.taking:
            reading.cancel()

    async def _conclude(self, stream: GenerationStream, hit: Hit) -> None:
        if self._limited or self.cut:
            return
        self.concluded = True
        for rollout in self._unfinished():
            if rollout.section == "reasoning":
                stream.conclude(rollout.request.id)
        await self.listener.limit_hit(hit, "conclude")

    async def _cancel(self, stream: GenerationStream, hit: Hit) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        for rollout in self._unfinished():
            stream.cancel(rollout.request.id)
        await self.listener.limit_hit(hit, "cancel")


def _describe(error: EngineError) -> str:
    return f"{type(error).__name__}: {error}"
