"""Folders replayed: every variant over every run, and the policies that ran first of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import anyio.to_thread

from engine.paths import path_named
from evals.errors import ReplayError, ResultsError
from evals.folder import RESULTS
from evals.replay.deciding import Course, Remembering, replay
from evals.replay.drawing import DRAWS, MOST_DRAWS, drawn
from evals.replay.figures import Figures, Measured, Replayed, Replays, Tally
from evals.replay.recording import RecordedEval, RecordedRun, holds_evaluation, recorded_run
from evals.replay.variants import Variant
from rsa.answers.math_pool import MathWorkers
from rsa.digests import TAKEN
from rsa.errors import ConfigError
from rsa.results import RunResult
from rsa.settings.config import RSAConfig
from rsa.words import plural

RECORDED = Variant()


async def replay_folders(
    folders: Sequence[str | Path], variants: Sequence[Variant] = (), *, draws: int = DRAWS, trust: bool = False
) -> Replays:
    """Decide again what was recorded in these folders, of evaluations and of runs: each evaluation by itself, all runs
    together.

    draws  of a run's candidates, where a variant has fewer of them.
    trust  what was changed in the folders since it was written is taken as it is, not refused; a note says so.

    A variant whose settings do not fit each other, or a record, is left out, and a note says why, unless none is left.

    Raises ResultsError, ReplayError (what a variant needs was not recorded), ConfigError, RunFolderError.
    """
    for variant in variants:
        variant.check()
    if not 1 <= draws <= MOST_DRAWS:
        raise ReplayError(f"draws = {draws}: should be 1 to {MOST_DRAWS}")
    paths = [path_named(folder, ResultsError) for folder in folders]
    evaluations = [path for path in paths if holds_evaluation(path)]
    runs = [path for path in paths if path not in evaluations]
    async with MathWorkers() as math:
        found = [
            await _Replaying(variants, draws, math).evaluation(RecordedEval(path, trust=trust)) for path in evaluations
        ]
        if runs:
            found.append(await _Replaying(variants, draws, math).runs(runs, trust=trust))
    return Replays(replays=tuple(found))


@dataclass(frozen=True, slots=True)
class _Totals:
    recorded: Figures
    variants: tuple[Figures, ...]


class _Replaying:
    """All variants over the runs of one table."""

    def __init__(self, variants: Sequence[Variant], draws: int, math: MathWorkers) -> None:
        self._draws = draws
        self._math = math
        self._tallies = [Tally(variant) for variant in (RECORDED, *variants)]
        self._reproduced = self._limited = 0
        self._left_out: list[str] = []

    async def evaluation(self, recorded: RecordedEval) -> Replayed:
        """An evaluation. Its own policies must come to the figures that it recorded."""
        results = recorded.results
        self._leave_out(results.config)  # before anything is read: what makes no sense makes none for any run
        problems = recorded.problems()
        while (runs := await anyio.to_thread.run_sync(next, problems, None)) is not None:
            for run in runs:
                await self._take(run.result.problem_id, run)
        totals = self._totals({problem.id: problem.cluster for problem in results.problems})
        if totals.recorded.answer != results.answer:
            raise ReplayError(
                f"the runs in {recorded.folder} do not come to the figures of {RESULTS}: rsa eval --rescore "
                f"{recorded.folder} writes these anew"
            )
        return Replayed(
            kind="evaluation",
            folders=(str(recorded.folder),),
            benchmark=results.benchmark,
            method=results.method,
            metric=results.metric,
            problems=len(results.problems),
            reproduced=self._reproduced,
            draws=self._draws,
            recorded=totals.recorded,
            variants=totals.variants,
            candidates_digest=results.candidates_digest,
            notes=tuple(self._notes(recorded)),
        )

    async def runs(self, folders: Sequence[Path], *, trust: bool) -> Replayed:
        """Runs of problems whose gold answers nobody knows."""
        said: list[str] = []
        for number, folder in enumerate(folders):
            run = await anyio.to_thread.run_sync(partial(recorded_run, folder, trust=trust))
            said += [warning for warning in run.result.warnings if warning.startswith(TAKEN)]
            self._leave_out(run.result.config, folder if len(folders) > 1 else None)
            await self._take(str(number), run)
        totals = self._totals(None)
        return Replayed(
            kind="runs",
            folders=tuple(map(str, folders)),
            problems=len(folders),
            reproduced=self._reproduced,
            draws=self._draws,
            recorded=totals.recorded,
            variants=totals.variants,
            notes=(*self._left_out, *self._met_limits(), *dict.fromkeys(said)),
        )

    def _leave_out(self, recorded: RSAConfig, folder: Path | None = None) -> None:
        """Leave out variants that make no sense of what was recorded, in this folder where there are several. Raises
        what is wrong with the first of them if no other is left."""
        fitting, wrong = self._tallies[:1], list[ConfigError | ReplayError]()
        for tally in self._tallies[1:]:
            try:
                tally.variant.settings(recorded)
            except (ConfigError, ReplayError) as error:
                wrong.append(error)
                where = f", for the run in {folder}" if folder is not None else ""
                self._left_out.append(f"left out{where}: {tally.variant.name}: {error}")
            else:
                fitting.append(tally)
        if wrong and len(fitting) == 1:
            raise wrong[0]
        self._tallies = fitting

    async def _take(self, key: str, run: RecordedRun) -> None:
        """One run, by every variant."""
        matcher = Remembering(run.result.config.task, self._math)
        rerun = await Rerun.of(run, matcher, self._draws)
        self._reproduced += 1
        self._limited += bool(run.result.limits_hit)
        for tally in self._tallies:
            tally.runs[key].append(await rerun.by(tally.variant))

    def _notes(self, recorded: RecordedEval) -> Iterable[str]:
        results = recorded.results
        yield from self._left_out
        missing = len(results.problems) * results.epochs - self._reproduced
        if missing:
            yield f"{plural(missing, 'run')} without any candidate, left out here"
        yield from self._met_limits()
        yield from recorded.trust.notes
        yield from results.warnings

    def _met_limits(self) -> Iterable[str]:
        if self._limited:
            yield (
                f"{plural(self._limited, 'run')} met a limit of tokens or time, and can be followed as far as that "
                "only, whatever would have been spent until then"
            )

    def _totals(self, clusters: dict[str, str | None] | None) -> _Totals:
        recorded = self._tallies[0]
        figures = [tally.figures(recorded, clusters) for tally in self._tallies]
        return _Totals(figures[0], tuple(figures[1:]))


class Rerun:
    """A recorded run whose own policies decided again as they did, for any number of variants.

    own  what it comes to by its own policies.
    """

    def __init__(self, run: RecordedRun, own: Course, matcher: Remembering, draws: int) -> None:
        self.own = own
        self._run = run
        self._matcher = matcher
        self._draws = draws
        self._parts: dict[int, list[RecordedRun]] = {}  # by how many candidates they have

    @classmethod
    async def of(cls, run: RecordedRun, matcher: Remembering, draws: int = DRAWS) -> Self:
        """Raises ReplayError if its policies do not decide again what they decided."""
        own = await replay(run, RECORDED, matcher)
        _check_own(run, own)
        return cls(run, own, matcher, draws)

    async def by(self, variant: Variant) -> Measured:
        """What it comes to by a variant. Raises as `replay`."""
        n = variant.settings(self._run.result.config).n
        if n == self._run.result.config.n:
            course = self.own if variant == RECORDED else await replay(self._run, variant, self._matcher)
            return await _measure(self._run, self.own, course, self._matcher)
        if n not in self._parts:
            self._parts[n] = await drawn(self._run, n, self._draws, self._matcher)
        again = [(part, await replay(part, variant, self._matcher)) for part in self._parts[n]]
        return Measured.mean([await _measure(part, self.own, course, self._matcher) for part, course in again])


async def _measure(run: RecordedRun, own: Course, course: Course, matcher: Remembering) -> Measured:
    was, now = own.answer, course.answer
    same = was == now or (was is not None and now is not None and await matcher.same(was, now))
    return Measured(
        value=None if course.failed or run.scores is None else run.worth(course.choice),
        same=float(same),
        tokens=course.tokens,
        steps=course.steps,
        stopped=float(bool(course.decisions)),
        muted=course.muted,
        answer=now,
    )


def _check_own(run: RecordedRun, own: Course) -> None:
    """Raises ReplayError if the policies of a run do not decide again what they decided."""
    result: RunResult = run.result
    choice = own.choice
    found: dict[str, object] = {
        "answer": own.answer,
        "answered_from_round": choice.round.round if choice else None,
        "votes": choice.round.votes if choice else (),
        "decisions": own.decisions,
        "tokens": own.tokens,
    }
    was: dict[str, object] = {
        "answer": result.answer,
        "answered_from_round": result.answered_from_round,
        "votes": result.votes,
        "decisions": result.decisions,
        "tokens": result.usage.completion_tokens,
    }
    if run.scores is not None and run.scores.answer is not None:
        found["value"], was["value"] = run.worth(choice), run.scores.answer.value
    for name, value in found.items():
        if value != was[name]:
            raise ReplayError(
                f"the run in {run.folder} does not reproduce itself: its {name}: {was[name]!r} is recorded, {value!r} "
                "follows; it was changed, or another version of this package decided it",
                "it does not reproduce itself: it was changed, or another version of this package decided it",
            )
