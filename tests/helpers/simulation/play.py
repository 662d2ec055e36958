"""A story from its first number to its last: processes that solve a problem, each going on where the last one ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import anyio
from anyio.lowlevel import checkpoint
from simulation.choices import Choices
from simulation.clock import Backend, run_leaping
from simulation.engine import SimulatedEngine, Stage
from simulation.world import World, drawn

from engine.api import GenerationRequest
from engine.byte_tokenizer import ByteTokenizer
from engine.errors import EngineError
from engine.script import Script
from engine.scripted import ScriptedEngine
from rsa import (
    Candidate,
    ConfigError,
    MarkovianRSA,
    NoCandidatesError,
    Problem,
    ProblemError,
    Round,
    RSAConfig,
    RunResult,
    read_events,
)
from rsa.degenerate import DegenerationMonitor
from rsa.events import CandidateFinished, CandidateStarted, Event
from rsa.results import Decision, RoundKind

Ended = Literal["finished", "no candidates", "left", "broken", "refused"]
"""How a process ended: with a result, since a whole round failed, left by its reader, by its engine's end, or before
anything began, since the problem does not fit."""
LATEST = 24
"""The last event after which a reader may leave, or look into the run folder."""


class LeavingError(Exception):
    """What a reader raises who leaves by an error of their own."""


@dataclass
class Process:
    """One process at work on one problem.

    logged    the events in the run folder when it began.
    looks     the log as it was read, and how many events the reader had had by then.
    requests  what the engine was asked for.
    result    also of a run in which a whole round failed: as far as it came.
    rows      those that were left on the engine after it.
    alive     the engine was when it ended.
    """

    logged: list[Event]
    events: list[Event] = field(default_factory=list)
    looks: list[tuple[int, list[Event]]] = field(default_factory=list)
    requests: list[GenerationRequest] = field(default_factory=list)
    ended: Ended = "left"
    result: RunResult | None = None
    rows: int = 0
    alive: bool = True


@dataclass
class Telling:
    """What became of one problem; `unbroken` is its result on an engine to which nothing happens, `whole` the one where
    no round ends because it is decided, if that must give the same answer."""

    problem: Problem
    folder: Path | None
    processes: list[Process] = field(default_factory=list)
    unbroken: RunResult | None = None
    whole: RunResult | None = None

    @property
    def last(self) -> Process:
        return self.processes[-1]

    def log(self) -> list[Event]:
        """The events in the run folder."""
        return read_events(self.folder) if self.folder is not None and self.folder.exists() else []


@dataclass
class Story:
    """All that happened: what the invariants look at."""

    world: World
    stage: Stage
    tellings: list[Telling]

    @cached_property
    def tokenizer(self) -> ByteTokenizer:
        """As the engines of the story have it."""
        return ByteTokenizer(thinks=self.world.model["thinks"])


def play(choices: Choices, folder: Path, backend: Backend = "asyncio") -> Story:
    """Tell the story of these choices; run folders are made in `folder`, which must be empty.

    Raises what the product should never raise.
    """
    world = drawn(choices)
    kept = choices.one_in(3)
    story = Story(
        world,
        Stage(choices, slow=world.config.limits.deadline_s is not None),
        [Telling(problem, folder / str(at) if kept else None) for at, problem in enumerate(world.problems)],
    )
    run_leaping(lambda: _tell(story, kept=kept), backend)
    return story


async def _tell(story: Story, *, kept: bool) -> None:
    choices, last = story.stage.choices, 0
    if kept:
        last = choices.pick(4)
    for number in range(last + 1):
        calm = number == last and (kept or not choices.one_in(4))
        story.stage.troubled = not calm and choices.one_in(2)
        story.stage.tell(f"process {number + 1}")
        await _work(story, calm=calm)
        for telling in story.tellings:
            if number < last and telling.folder is not None:
                _cut(telling.folder, story.stage)
    if not story.world.limited:
        for telling in story.tellings:
            telling.unbroken = await _undisturbed(story, telling, story.world.config)
            if "decided" in story.world.config.stop and not story.world.config.waves:
                telling.whole = await _undisturbed(story, telling, story.world.undecided)


async def _work(story: Story, *, calm: bool) -> None:
    """One process: all problems at once, on an engine of its own."""
    engine = SimulatedEngine(story.world, story.stage)
    often = story.stage.choices.of((0.25, 0.0))
    rsa = MarkovianRSA(engine, config=story.world.config, progress_every_s=often)
    async with anyio.create_task_group() as group:
        for telling in story.tellings:
            process = Process(logged=telling.log())
            telling.processes.append(process)
            group.start_soon(_solve, rsa, engine, telling, process, calm)
    for telling in story.tellings:
        telling.last.requests = [each for each in engine.requests if engine.problem_of(each) is telling.problem]


async def _solve(rsa: MarkovianRSA, engine: SimulatedEngine, telling: Telling, process: Process, calm: bool) -> None:
    try:
        await _read(rsa, engine.stage, telling, process, calm)
    except LeavingError:
        pass
    except NoCandidatesError as error:
        process.ended, process.result = "no candidates", error.result
    except EngineError:
        process.ended = "broken"
    except (ProblemError, ConfigError):
        process.ended = "refused"
    process.rows, process.alive = engine.rows_of(telling.problem), engine.alive
    engine.stage.tell(telling.problem.text, process.ended)


async def _read(rsa: MarkovianRSA, stage: Stage, telling: Telling, process: Process, calm: bool) -> None:
    leaves_at = 0 if calm else stage.choices.pick(LATEST)
    looks_at = 0 if telling.folder is None else stage.choices.pick(LATEST)
    lags = stage.choices.one_in(6)
    with anyio.CancelScope() as scope:
        async with rsa.stream(telling.problem, out=telling.folder, resume=telling.folder is not None) as events:
            async for event in events:
                process.events.append(event)
                if event.type == "run_finished":
                    process.ended, process.result = "finished", event.result
                if len(process.events) == looks_at:
                    process.looks.append((looks_at, telling.log()))
                if len(process.events) == leaves_at:
                    stage.tell(telling.problem.text, "the reader leaves after event", leaves_at)
                    await _leave(stage.choices, scope)
                    return
                for _ in range(3 if lags else 0):
                    await checkpoint()


async def _leave(choices: Choices, scope: anyio.CancelScope) -> None:
    match choices.pick(3):
        case 1:
            raise LeavingError
        case 2:
            scope.cancel()
            await checkpoint()


def _cut(folder: Path, stage: Stage) -> None:
    """As after a power cut: what was written last may be missing from any byte on. A result is written after the log
    has come to the disk, so then the log is whole."""
    log = folder / "events.jsonl"
    if not log.exists() or (folder / "result.json").exists():
        return
    if stage.choices.one_in(2):
        data = log.read_bytes()
        lost = stage.choices.pick(len(data) + 1)
        log.write_bytes(data[: len(data) - lost])
        stage.tell(f"the last {lost} bytes of the log of {folder.name} are lost")
    if stage.choices.one_in(4):
        (folder / ".result.json.77.tmp").write_bytes(b'{"answer')


async def _undisturbed(story: Story, telling: Telling, config: RSAConfig) -> RunResult | None:
    """The result by these settings where the same candidates fail at once, and nothing else happens."""
    found, world = telling.last.result, story.world
    if found is None:
        return None
    failed = {name_of(played.kind, each): each.error for played in rounds_of(found) for each in played.candidates}

    def script(request: GenerationRequest) -> Script:
        fault, script = story.stage.faults.get((telling.problem.text, request.id)), world.script(request)
        for error in filter(None, (fault, script.error)):
            if f"{type(error).__name__}: {error}" == failed.get(request.id):
                return Script(error=error)
        # In a round that is cut, whether a candidate comes to its failure is a matter of who was quick.
        return replace(script, error=None) if world.cuts else script

    calm = MarkovianRSA(ScriptedEngine(script, **world.model), config=config)
    try:
        return await calm.solve(telling.problem)
    except NoCandidatesError as error:
        return error.result


def results_of(telling: Telling) -> Iterator[RunResult]:
    """Those of all processes that came to one."""
    yield from (process.result for process in telling.processes if process.result is not None)


def rounds_of(result: RunResult) -> list[Round]:
    """All rounds of a run, in order: the last ones may be the one more aggregation, or matches."""
    return list(result.played)


def name_of(kind: RoundKind, candidate: Candidate | CandidateStarted) -> str:
    """What its request is called."""
    return (
        "select"
        if kind == "selection"
        else f"{kind[0] if kind == 'match' else 'r'}{candidate.round}-c{candidate.index:02}"
    )


def candidates_in(events: Sequence[Event]) -> dict[str, Candidate]:
    """The candidates that finished, by the names of their requests; of a round that was tried again, the last try."""
    found: dict[str, Candidate] = {}
    for event in events:
        if isinstance(event, CandidateFinished):
            name = name_of(event.kind, event.candidate)
            if name in found:
                found = {other: each for other, each in found.items() if each.round != event.candidate.round}
            found[name] = event.candidate
    return found


def not_begun(candidate: Candidate) -> bool:
    """It is of a wave that was left out."""
    return candidate.status in ("cut", "cancelled") and candidate.completion is None


def tokens_of(candidates: Sequence[Candidate]) -> int:
    """All that they generated."""
    return sum(each.completion.usage.completion_tokens for each in candidates if each.completion)


def cut_short(candidate: Candidate, cut: Decision | None) -> Candidate:
    """What is left of it, as far as it is counted, in a round of which this was decided."""
    completion = candidate.completion
    if cut is None or completion is None or candidate.status not in ("ok", "degenerate"):
        return candidate
    at, wave = cut.at or 0, cut.wave or (0, 0)
    if not wave[0] <= candidate.index < wave[1]:
        return candidate
    if completion.usage.completion_tokens <= at or loops_within(completion.token_ids, at):
        return candidate
    usage = completion.usage.model_copy(update={"completion_tokens": at})
    short = completion.model_copy(update={"token_ids": completion.token_ids[:at], "usage": usage})
    return candidate.model_copy(update={"status": "cut", "completion": short, "answer": None})


def loops_within(token_ids: Sequence[int], at: int) -> bool:
    """Whether so many tokens are enough to see that they repeat themselves."""
    monitor = DegenerationMonitor()
    return monitor.feed(token_ids[:at])
