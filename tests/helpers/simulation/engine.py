"""The scripted engine under a scheduler that decides what happens next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
from anyio.lowlevel import checkpoint
from simulation.choices import Choices
from simulation.world import SLOW_S, World

from engine.api import EngineEvent, Failure, GenerationRequest, GenerationStream, Restarted
from engine.errors import EngineClosedError, EngineError, OutOfMemoryError
from engine.script import ScriptedRow
from engine.scripted import ScriptedEngine, ScriptedStream
from rsa import Problem

STEPS = (64, 16, 5, 1, 200)
"""Tokens that a row writes at once."""


@dataclass
class Stage:
    """Where a story happens: who chooses, what was told, and what may go wrong.

    troubled  engines close and die, and requests fail that would not by themselves.
    slow      time passes between steps.
    faults    of requests, by problem and name, that did not fail by themselves.
    """

    choices: Choices
    troubled: bool = False
    slow: bool = False
    told: list[tuple[object, ...]] = field(default_factory=list)
    faults: dict[tuple[str, str], EngineError] = field(default_factory=dict)

    def tell(self, *words: object) -> None:
        """Note what happens, for people who read the story."""
        self.told.append(words)


class SimulatedEngine(ScriptedEngine):
    """Plays a world; each thing that happens is a choice.

    hung  rows that nothing reaches any more: neither tokens nor cancelling.
    """

    def __init__(self, world: World, stage: Stage) -> None:
        super().__init__(world.script, **world.model)
        self.world, self.stage = world, stage
        self.hung: set[ScriptedRow] = set()

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return SimulatedStream(self, requests)

    def rows_of(self, problem: Problem) -> int:
        """How many rows a problem has here."""
        return sum(self.problem_of(row.request) is problem for row in self._rows)

    def problem_of(self, request: GenerationRequest) -> Problem:
        """Whose request it is."""
        return next(problem for problem in self.world.problems if problem.text in request.messages[0].text)


class SimulatedStream(ScriptedStream):
    """One thing after the other: a row writes, fails, starts again; time passes; the engine comes to its end."""

    _engine: SimulatedEngine

    async def __anext__(self) -> EngineEvent:
        await checkpoint()
        while not self._ready:
            if not self._rows:
                raise StopAsyncIteration
            if self._engine._closed:
                for name in list(self._rows):
                    self._break(name, EngineClosedError("the engine was closed while this request ran"))
            else:
                await self._happen()
        return self._ready.popleft()

    async def _happen(self) -> None:
        engine, choices = self._engine, self._engine.stage.choices
        running = [row for row in self._rows.values() if engine._may_run(row) and row not in engine.hung]
        if not running:
            await engine._changed()
            return
        row = running[choices.pick(len(running))]
        match choices.pick(16):
            case 12:
                self._tell("all write")
                self._step()
            case 13:
                await self._let_time_pass(row)
            case 14 if engine.stage.troubled:
                self._trouble(row)
            case 15 if engine.stage.troubled and choices.one_in(6):
                await self._end_of_engine()
            case _:
                self._write(row, choices.of(STEPS))

    def _write(self, row: ScriptedRow, size: int) -> None:
        before = len(row.token_ids)
        events = row.step(size)
        self._ready.extend(events)
        self._tell(row.request.id, "writes", len(row.token_ids) - before, row.finish_reason or "")
        if row.finish_reason is not None or (events and isinstance(events[-1], Failure)):
            self._end(row.request.id)

    async def _let_time_pass(self, row: ScriptedRow) -> None:
        stage = self._engine.stage
        if not stage.slow:
            return
        if stage.choices.one_in(8):
            self._tell(row.request.id, "hangs")
            self._engine.hung.add(row)
            return
        seconds = stage.choices.of((0.5, SLOW_S, 1.5))
        self._tell(seconds, "s pass")
        await anyio.sleep(seconds)

    def _trouble(self, row: ScriptedRow) -> None:
        engine, name = self._engine, row.request.id
        if engine.stage.choices.one_in(2) and row.finish_reason is None:  # who is cancelled does not start again
            self._tell(name, "starts again")
            again = ScriptedRow(row.request, row.script, engine.tokenizer, context_tokens=engine.model.context_tokens)
            engine._rows[engine._rows.index(row)] = self._rows[name] = again
            if row.concludes_at is not None:
                again.conclude(row.concludes_at)
            self._ready.append(Restarted(name))
            return
        self._tell(name, "fails")
        self._break(name, OutOfMemoryError("a fault of the story"))

    def _break(self, name: str, error: EngineError) -> None:
        self._engine.stage.faults[self._problem, name] = error
        self._ready.append(Failure(name, error))
        self._end(name)

    async def _end_of_engine(self) -> None:
        if self._engine.stage.choices.one_in(2):
            self._tell("the engine dies")
            self._engine._closed = True
            raise EngineError("the engine died")
        self._tell("the engine is closed")
        await self._engine.aclose()

    def _tell(self, *words: object) -> None:
        self._engine.stage.tell(self._problem, *words)

    @property
    def _problem(self) -> str:
        return self._engine.problem_of(self._requests[0]).text
