"""Running an evaluation: many problems in flight, each a run folder of `rsa`, scored when it ends.

While some problems wait for the last candidates of a round, others keep the engine's batch full. What is in memory
are the problems in flight and a few figures of the others; everything else is in the results folder. Where problems are
solved is a `Place`'s business: in this process (`evals.solving`), or in others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from engine.errors import EngineError
from evals.data.question import Question
from evals.errors import DataError, GoldError
from evals.events import EvalFinished, EvalStarted, OnEvent, PlaceLost, RunEnded
from evals.folder import ResultsFolder
from evals.meter import EngineLoad
from evals.results import EvalResults, EvalTimings, ProblemTiming
from evals.run_scores import RunScores
from evals.scorers.protocol import Scorer
from evals.summary import headline_value, summarise
from rsa.folders import this_machine
from rsa.words import in_one_line

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

    async def scores(self, question: Question, epoch: int) -> RunScores:
        """The scores of a problem in an epoch; they are on the disk when it returns.

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
        meter: EngineLoad | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._folder = folder
        self._queue = _Queue(questions, folder.record.epochs, scorer)
        self._places = places
        self._left = list(places)
        self._in_flight = in_flight
        self._reuse = reuse
        self._meter = meter or EngineLoad()
        self._tell = on_event or (lambda event: None)
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
        results = await anyio.to_thread.run_sync(write_figures, self._folder, self._queue.runs)
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
            while (run := await self._queue.next()) is not None:
                try:
                    await self._take(place, *run)
                except PlaceLostError:
                    self._queue.put_back(run)
                    raise
                self._queue.done()
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

    async def _take(self, place: Place, question: Question, epoch: int) -> None:
        scores = self._folder.read_scores(question.id, epoch) if self._reuse else None
        found = scores is not None and scores.error is None and scores.question_sha256 == question.sha256
        if scores is None or not found:
            scores = await place.scores(question, epoch)
        self._tell(RunEnded(scores, headline_value(self._folder.record, scores), found))


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


class _Queue:
    """Problems times epochs in order of the data, handed out one at a time. `runs`: of the problems read so far."""

    def __init__(self, questions: Iterable[Question], epochs: int, scorer: Scorer) -> None:
        self.runs: list[tuple[str, int]] = []
        self._questions = iter(questions)
        self._epochs = epochs
        self._scorer = scorer
        self._ids: set[str] = set()
        self._waiting: deque[tuple[Question, int]] = deque()
        self._ended = False
        self._taken = 0
        self._turn = anyio.Lock()
        self._change = anyio.Event()

    async def next(self) -> tuple[Question, int] | None:
        """The next run; who took it says when it is `done`, or gives it back. None when all are done: until then it
        waits for one that is given back.

        Raises DataError for an id that came before, and if there are no problems at all; GoldError if already the
        first gold answer is no good: then the metric is the wrong one, and there is no point in going on.
        """
        while True:
            async with self._turn:
                if not self._waiting and not self._ended:
                    # In a thread: the next problem may come from a file or the network.
                    self._read(await anyio.to_thread.run_sync(next, self._questions, None))
            if self._waiting:
                self._taken += 1
                return self._waiting.popleft()
            if self._ended and not self._taken:
                return None
            if self._ended:
                await self._change.wait()

    def done(self) -> None:
        """One of the runs that were taken is done."""
        self._taken -= 1
        self._changed()

    def put_back(self, run: tuple[Question, int]) -> None:
        """A run that was taken is to be the next one."""
        self._waiting.appendleft(run)
        self.done()

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()

    def _read(self, question: Question | None) -> None:
        if question is None:
            if not self._ids:
                raise DataError("there are no problems to evaluate")
            self._ended = True
            return
        if not self._ids:
            check_gold(self._scorer, question)
        if question.id in self._ids:
            raise DataError(f"two problems have the id {question.id!r}: give each its own")
        self._ids.add(question.id)
        self._waiting.extend((question, epoch) for epoch in range(self._epochs))
        self.runs.extend((question.id, epoch) for epoch in range(self._epochs))


def check_gold(scorer: Scorer, question: Question) -> None:
    """Raises GoldError, naming the problem, if its gold answer is not what the metric needs."""
    try:
        scorer.check(question.gold, question.fields)
    except GoldError as error:
        raise GoldError(in_one_line(f"problem {question.id!r}: {error}")) from None
