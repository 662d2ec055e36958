"""Running an evaluation: many problems in flight, each a run folder of `rsa`, scored when it ends.

While some problems wait for the last candidates of a round, others keep the engine's batch full. What is in memory
are the problems in flight and a few figures of the others; everything else is in the results folder. Where problems are
solved is a `Place`'s business: in this process (`evals.solving`), or in others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from engine.errors import EngineError
from evals.budget import SetBudget
from evals.data.question import Question
from evals.events import EvalFinished, EvalStarted, OnEvent, PlaceLost, RunEnded
from evals.folder import ResultsFolder
from evals.laps import Laps
from evals.meter import EngineLoad
from evals.queue import Queue, Supply
from evals.results import EvalResults, EvalTimings, ProblemTiming
from evals.run_scores import RunScores, failed_scores
from evals.scorers.protocol import Scorer
from evals.stints import Headway, Outcome, Stint, ended
from evals.summary import headline_value, summarise
from rsa.folders import this_machine

SHORTEST_S = 1e-6
"""A clock that shows less has measured nothing."""


class Place(Protocol):
    """Where problems are solved, or their scores come from.

    name  for people.
    """

    @property
    def name(self) -> str: ...

    async def ready(self) -> int:
        """Wait until it can take problems; how many at once. Raises PlaceLostError if it never will."""

    async def play(self, stint: Stint) -> Outcome:
        """What becomes of a run that goes as far as it has leave to; it is on the disk when it returns.

        Raises PlaceLostError if it cannot go on: another place may, with what is on the disk. Any other error ends the
        evaluation.
        """


class PlaceLostError(Exception):
    """A place takes no more problems; the message says why. `error` is raised if it was the last one."""

    def __init__(self, error: EngineError) -> None:
        super().__init__(str(error))
        self.error = error


class Evaluation:
    """The way from problems to results, wherever they are solved.

    questions  iterated once; their ids must differ.
    places     where they are solved; what one that is lost had begun goes to the others.
    in_flight  problems at once in each place, for those who watch.
    reuse      keep the scores that there are, those of failed runs apart: they get another try.
    budget     what all runs may take together; None: each is played to its end.
    """

    def __init__(
        self,
        folder: ResultsFolder,
        questions: Iterable[Question],
        scorer: Scorer,
        places: Sequence[Place],
        *,
        in_flight: int,
        reuse: bool,
        budget: SetBudget | None = None,
        meter: EngineLoad | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._folder = folder
        self._places = places
        self._left = list(places)
        self._in_flight = in_flight
        self._reuse = reuse
        self._meter = meter or EngineLoad()
        self._tell: OnEvent = on_event or (lambda event: None)
        self._supply: Supply
        if budget is None:
            self._supply = Queue(questions, folder.record.epochs, scorer)
        else:
            self._supply = Laps(questions, folder, budget, scorer, self._tell)
        self._trouble: Exception | None = None

    async def run(self) -> EvalResults:
        """Everything to the end. Raises what a place raises, and DataError for problems that are no good."""
        record = self._folder.record
        runs = record.data.selected * record.epochs
        self._tell(EvalStarted(self._folder.folder, record, runs, self._in_flight, self._meter, len(self._places)))
        async with anyio.create_task_group() as group:
            for place in self._places:
                group.start_soon(self._staff, place, group)
        if self._trouble is not None:
            raise self._trouble
        results = await anyio.to_thread.run_sync(write_figures, self._folder, self._supply.runs)
        self._tell(EvalFinished(results))
        return results

    # Errors leave the tasks by hand: out of a task group they would come wrapped in an ExceptionGroup.

    async def _staff(self, place: Place, group: TaskGroup) -> None:
        try:
            for _ in range(await place.ready()):
                group.start_soon(self._work, place, group.cancel_scope)
        except Exception as error:
            self._stop(place, error, group.cancel_scope)

    async def _work(self, place: Place, everyone: anyio.CancelScope) -> None:
        try:
            while (stint := await self._supply.next()) is not None:
                try:
                    outcome = await self._take(place, stint)
                except PlaceLostError:
                    self._supply.put_back(stint)
                    raise
                self._supply.done(stint, outcome)
            everyone.cancel()  # every run is done: nobody waits for a place any more
        except Exception as error:
            self._stop(place, error, everyone)

    def _stop(self, place: Place, error: Exception, everyone: anyio.CancelScope) -> None:
        """End a place that is lost, and the whole evaluation if none is left, or for any other error."""
        if isinstance(error, PlaceLostError):
            if place not in self._left:
                return
            self._left.remove(place)
            if self._left:
                self._tell(PlaceLost(place.name, str(error), len(self._left)))
                return
            error = error.error
        self._trouble = self._trouble or error
        everyone.cancel()

    async def _take(self, place: Place, stint: Stint) -> Outcome:
        found = await anyio.to_thread.run_sync(self._found, stint) if self._reuse else None
        if found is not None:
            outcome = found
        elif stint.unbegun is not None:
            scores = failed_scores(
                stint.question,
                metric=self._folder.record.metric,
                epoch=stint.epoch,
                error=stint.unbegun,
                ended="unbegun",
            )
            outcome = Outcome(scores, Headway(ended=True))
            await anyio.to_thread.run_sync(self._folder.write_scores, scores)
        else:
            outcome = await place.play(stint)
        if outcome.scores is not None:
            value = headline_value(self._folder.record, outcome.scores)
            self._tell(RunEnded(outcome.scores, value, found is not None))
        return outcome

    def _found(self, stint: Stint) -> Outcome | None:
        """What became of a run that is done, and did not fail."""
        scores = self._folder.read_scores(stint.question.id, stint.epoch)
        if scores is None or scores.error is not None or scores.question_sha256 != stint.question.sha256:
            return None
        if isinstance(self._supply, Queue):  # it does not ask how far it got
            return Outcome(scores, Headway(ended=True))
        result = self._folder.read_result(stint.question.id, stint.epoch)
        return None if result is None else Outcome(scores, ended(result))


def write_figures(folder: ResultsFolder, runs: Iterable[tuple[str, int]]) -> EvalResults:
    """Finish an evaluation whose runs are all done: read their scores, one at a time, and write what is made of them.

    runs  problem_id and epoch, in order of the data, all epochs of a problem together.

    Raises ResultsError if one has no scores, or what is made of them cannot be written.
    """
    timed: list[ProblemTiming] = []

    def noting(runs: Iterable[RunScores]) -> Iterator[RunScores]:
        for run in runs:
            seconds = {"wall_s": run.wall_s, "generating_s": run.generating_s}
            timed.append(ProblemTiming(problem_id=run.problem_id, epoch=run.epoch, **seconds))
            yield run

    record, wall_s = folder.record, folder.spent_s
    results = summarise(record, noting(folder.write_candidates(folder.scores(runs))))
    timings = EvalTimings(
        started_at=record.created_at,
        wall_s=wall_s,
        tokens_per_s=results.usage.completion_tokens / wall_s if wall_s > SHORTEST_S else 0.0,
        problems=tuple(timed),
        machine=this_machine(),
    )
    return folder.write_results(results.warned(folder.trust.notes), timings)
