"""A small evaluation on the scripted engine, for the tests of the runner; run as a program, it can be killed anywhere.

Usage: eval_child.py FOLDER [SHARD]. It says `generated`, `scored` and `writing` on standard output as these happen.
Having said HOLD_AFTER of them, if that is in the environment, it waits to be killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import anyio

from engine.api import Completion, EngineEvent, GenerationRequest
from engine.errors import EngineClosedError, OutOfMemoryError
from engine.scripted import Script, ScriptedEngine, ScriptedStream
from evals.data.benchmarks import Benchmark
from evals.data.question import Question
from evals.errors import GoldError
from evals.events import EvalEvent, RunEnded
from evals.folder import ResultsFolder
from evals.job import evaluate
from evals.results import CandidateRecord, EvalResults
from evals.scorers.protocol import Score
from rsa.answers.extract import last_boxed
from rsa.digests import unseal

SETTINGS: dict[str, Any] = {"n": 4, "c": 2, "t": 1, "beta": 512, "tau": 16, "answer_budget": 32, "seed": 5}
LOOPING, HALTING, FAILING, SILENT = 2, 3, 4, 5
"""Problems with a candidate that loops, one that the engine fails on, only such, and only answers without a box."""


class Exactly:
    """A metric: the last box is the gold answer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def check(self, gold: Any, fields: Mapping[str, Any]) -> None:
        if not isinstance(gold, str):
            raise GoldError(f"the gold answer should be text, not {gold!r}")

    async def score(self, answer: str, gold: Any, fields: Mapping[str, Any]) -> Score:
        self.check(gold, fields)
        box = last_boxed(answer)
        if box is None:
            return Score(value=0.0, status="no_answer")
        return Score(value=float(box == gold), extracted=box)

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        groups: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                groups.setdefault(answer, []).append(index)
        return sorted((tuple(group) for group in groups.values()), key=lambda group: (-len(group), group[0]))


def problem_of(request: GenerationRequest) -> int:
    return int(request.messages[0].text.split("number ")[1].split("?")[0])


def script(request: GenerationRequest) -> Script:
    """Answers 0, 1 or 2 by the seed, but for the problems that are special."""
    number, seed = problem_of(request), request.sampling.seed
    answer = "it is hard to say" if number == SILENT else rf"\boxed{{{seed % 3}}}"
    if number == LOOPING and request.id == "r0-c01":
        return Script("again ", never_ends=True)
    fails = number == FAILING or (number == HALTING and request.id == "r1-c02")
    error = OutOfMemoryError("no room: lower n") if fails else None
    return Script(f"{seed} in {request.id}", answer, error=error, fail_after=5)


def questions(count: int = 8) -> list[Question]:
    return [
        Question(id=f"p/{i}", problem=f"what is number {i}?", gold=str(i % 3), cluster=f"c{i // 2}")
        for i in range(count)
    ]


def benchmark(count: int = 8) -> Benchmark:
    return Benchmark(name="thirds", metric=Exactly(), questions=questions(count))


_said: list[str] = []


def say(word: str) -> None:
    print(word, flush=True)
    _said.append(word)
    if os.environ.get("HOLD_AFTER") == str(len(_said)):
        signal.pause()


class _TellingStream(ScriptedStream):
    async def __anext__(self) -> EngineEvent:
        event = await super().__anext__()
        if isinstance(event, Completion):
            say("generated")
        return event


class Telling(ScriptedEngine):
    """Says when it has completed a candidate."""

    def generate(self, requests: Sequence[GenerationRequest]) -> ScriptedStream:
        return _TellingStream(self, requests)


def tell(event: EvalEvent) -> None:
    if isinstance(event, RunEnded) and not event.found:
        say("scored")


def run(folder: Path, engine: ScriptedEngine | None = None, *, of: Benchmark | None = None, **more: Any) -> EvalResults:
    """The evaluation, in this process; `more`: arguments of `evaluate`."""

    async def main() -> EvalResults:
        settings = {**SETTINGS, "out": folder, **more}
        return await evaluate(of or benchmark(), engine or ScriptedEngine(script), **settings)

    return anyio.run(main)


def written(folder: Path) -> list[bytes]:
    """What must not depend on what happened on the way."""
    return [(folder / name).read_bytes() for name in ("results.json", "candidates.jsonl")]


def records(folder: Path) -> list[CandidateRecord]:
    """The lines of candidates.jsonl."""
    lines = (folder / "candidates.jsonl").read_bytes().splitlines()
    return [CandidateRecord.model_validate_json(unseal(line).content) for line in lines]


class Dying(ScriptedEngine):
    """Breaks down as a whole after so many completions."""

    def __init__(self, completions: int, played: Callable[[GenerationRequest], Script] = script) -> None:
        super().__init__(played)
        self.left = completions

    def generate(self, requests: Sequence[GenerationRequest]) -> ScriptedStream:
        return _DyingStream(self, requests)


class _DyingStream(ScriptedStream):
    async def __anext__(self) -> EngineEvent:
        event = await super().__anext__()
        engine = self._engine
        assert isinstance(engine, Dying)
        engine.left -= isinstance(event, Completion)
        if engine.left < 0:
            raise EngineClosedError("the engine's worker died")
        return event


def main(folder: Path, shard: str | None = None) -> None:
    write = ResultsFolder.write_results

    def telling_write(*arguments: Any) -> None:
        say("writing")
        write(*arguments)

    ResultsFolder.write_results = telling_write  # type: ignore[method-assign, assignment]

    async def run() -> None:
        settings = {**SETTINGS, "out": folder, "epochs": 2, "in_flight": 3, "resume": True, "on_event": tell}
        await evaluate(benchmark(), Telling(script), shard=shard, **settings)

    anyio.run(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
