"""Families recorded as ordinary evaluations, within a budget, and every variant decided on what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from engine.api import Engine
from evals.errors import ReplayError
from evals.eval_record import DataSource
from evals.events import EvalEvent, EvalStarted, OnEvent, RunEnded
from evals.job import EvalJob
from evals.meter import EngineLoad
from evals.replay.deciding import Remembering
from evals.replay.figures import Measured
from evals.replay.recording import RecordedEval, RecordedRun
from evals.replay.replaying import Rerun
from evals.replay.variants import Variant
from evals.results import EvalResults
from evals.tuning.records import Asked
from rsa.answers.math_pool import MathWorkers

DRAWS = 50
"""Draws of a run's candidates where fewer of them are tried: their mean is over problems, too."""
_LOOK_S = 0.2
"""Seconds after which the tokens that were spent are looked at again."""
Show = Callable[[], AbstractContextManager[OnEvent | None]]
"""Whom to tell the events of an evaluation, for as long as it runs."""


@dataclass(slots=True)
class Recorder:
    """Makes evaluations of one model on one kind of problem; `spent` are the tokens of all of them."""

    asked: Asked
    source: DataSource
    engine: Engine
    show: Show
    spent: int = 0

    async def record(self, settings: Mapping[str, Any], ids: Sequence[str], folder: Path) -> EvalResults | None:
        """The evaluation of settings on these problems, in the folder, of which there may be a part already; None if
        the budget does not suffice for all of it: then it is left as it is. Raises as `EvalJob.run`.

        Whether it suffices depends on the tokens of the whole evaluation alone, not on when it is ended.
        """
        left = self.asked.budget - self.spent
        job = EvalJob.new(
            self.source.benchmark or "",
            model=self.asked.model,
            method="rsa",
            profile=self.asked.profile,
            settings={**self.asked.settings, **settings},
            source=self.source.model_copy(update={"ids": tuple(ids)}),
            shard=None,
            epochs=1,
            budget=None,
            out=folder,
            resume=True,
        )
        with self.show() as tell:
            results = await _within(left, lambda watch: job.run(self.engine, watch), tell)
        if results is None or results.usage.completion_tokens > left:
            return None
        self.spent += results.usage.completion_tokens
        return results


class _Purse:
    """Counts the tokens of an evaluation while it runs."""

    def __init__(self, tell: OnEvent | None) -> None:
        self._tell: OnEvent = tell or (lambda event: None)
        self._meter = EngineLoad()
        self._found = 0

    @property
    def spent(self) -> int:
        """Of runs that were there before, and in this process."""
        return self._found + self._meter.tokens

    def watch(self, event: EvalEvent) -> None:
        if isinstance(event, EvalStarted):
            self._meter = event.meter
        elif isinstance(event, RunEnded) and event.found:
            self._found += event.scores.usage.completion_tokens
        self._tell(event)


async def _within(most: int, run: Callable[[OnEvent], Any], tell: OnEvent | None) -> EvalResults | None:
    """What `run` comes to; None if it spends more, for then it is ended."""
    purse = _Purse(tell)
    results: EvalResults | None = None
    trouble: Exception | None = None
    async with anyio.create_task_group() as group:

        async def look() -> None:
            while True:
                if purse.spent > most:
                    group.cancel_scope.cancel()
                await anyio.sleep(_LOOK_S)

        group.start_soon(look)
        try:
            results = await run(purse.watch)
        except Exception as error:  # out of a task group it would come wrapped
            trouble = error
        group.cancel_scope.cancel()
    if trouble is not None:
        raise trouble
    return results


@dataclass(slots=True)
class Decided:
    """What variants of one family come to, by variant and problem; the first is what all others are compared with.

    clusters  of the problems.
    tokens    that recording took, by problem.
    """

    variants: list[Variant]
    runs: dict[Variant, dict[str, Measured]] = field(default_factory=dict)
    clusters: dict[str, str | None] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)

    async def take(self, folder: Path, math: MathWorkers) -> list[str]:
        """Decide on an evaluation; lines about what should be known of variants. One that needs what was not generated
        is left out from now on. Raises as `evals.replay.recording.RecordedEval`, and ReplayError for the first one."""
        recorded = RecordedEval(folder)
        self.clusters |= {problem.id: problem.cluster for problem in recorded.results.problems}
        said: list[str] = []
        problems = recorded.problems()
        while (runs := await anyio.to_thread.run_sync(next, problems, None)) is not None:
            for run in runs:
                said += await self._decide(run, Remembering(run.result.config.task, math, run.result.rounds))
        return said

    async def _decide(self, run: RecordedRun, matcher: Remembering) -> list[str]:
        rerun = await Rerun.of(run, matcher, DRAWS)
        problem = run.result.problem_id
        self.tokens[problem] = rerun.own.tokens
        said = []
        for variant in list(self.variants):
            try:
                found = await rerun.by(variant)
            except ReplayError as error:
                if variant == self.variants[0]:
                    raise
                self.variants.remove(variant)
                self.runs.pop(variant, None)
                said.append(f"{variant.name} is left out: {error.why}")
                continue
            if found.muted:
                said.append(f"{variant.name}: candidates that it would have made to answer count as without an answer")
            self.runs.setdefault(variant, {})[problem] = found
        return said

    def means(self, ids: Sequence[str]) -> Iterator[tuple[Variant, float, float]]:
        """Of each variant, what it is worth on these problems and what it costs."""
        for variant, runs in self.runs.items():
            there = [runs[each] for each in ids if each in runs]
            values = [run.value for run in there if run.value is not None]
            if values:
                yield variant, sum(values) / len(values), sum(run.tokens for run in there) / len(there)
