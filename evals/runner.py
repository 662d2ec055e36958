"""Running an evaluation: many problems in flight, each a run folder of `rsa`, scored when it ends.

While some problems wait for the last candidates of a round, others keep the engine's batch full. What is in memory
are the problems in flight and a few figures of the others; everything else is in the results folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator

import anyio
import anyio.to_thread

from engine.api import Engine
from engine.errors import RequestError
from evals.data.question import Question
from evals.errors import DataError, GoldError
from evals.events import EvalFinished, EvalStarted, OnEvent, RunEnded
from evals.folder import ResultsFolder
from evals.meter import EngineLoad, MeteredEngine
from evals.results import EvalResults, EvalTimings, ProblemTiming
from evals.run_scores import RunScores, failed_scores, score_run
from evals.scorers.protocol import Scorer
from evals.summary import headline_value, summarise
from rsa.answers.math_pool import MathWorkers
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, NoCandidatesError, ProblemError
from rsa.folders import this_machine
from rsa.problem import Problem
from rsa.results import RunResult

UNBOUNDED_ROWS = 64
"""Candidates that are wanted at once of an engine that takes all it is asked for."""
Produce = Callable[[Question, int], Awaitable[RunScores]]
"""A function that gets the scores of a problem in an epoch, however they are come by; they are on the disk when it
returns."""


def default_in_flight(n: int, max_rows: int | None) -> int:
    """Problems at once so that twice the rows of the engine are wanted: it stays full while rounds end."""
    return max(2, -(-2 * (max_rows or UNBOUNDED_ROWS) // n))


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of the runs of an epoch: the run seed itself in epoch 0, one derived from it in every other."""
    if epoch == 0:
        return seed
    name = json.dumps([seed, "epoch", epoch])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


class Solving:
    """Solves problems with the settings of a results folder, and scores them."""

    def __init__(self, engine: Engine, folder: ResultsFolder, scorer: Scorer, math: MathWorkers) -> None:
        record = folder.record
        self.meter = EngineLoad()
        self._began = anyio.current_time() - folder.spent_s
        self._folder = folder
        self._scorer = scorer
        self._rsa = MarkovianRSA(
            MeteredEngine(engine, self.meter), config=record.config, sync="round", math_workers=math
        )

    async def scores(self, question: Question, epoch: int) -> RunScores:
        """Run a problem to its end and score it. A failure that is the problem's own is part of the scores.

        Raises EngineError if the engine as a whole failed, ConfigError, RunFolderError, ResultsError.
        """
        metric = self._folder.record.metric
        failed: RunResult | None = None
        try:
            self._scorer.check(question.gold, question.fields)  # before anything is generated
            result = await self._solve(question, epoch)
            scores = await score_run(result, question, self._scorer, metric=metric, epoch=epoch)
        except NoCandidatesError as error:
            failed = error.result
            scores = await score_run(failed, question, self._scorer, metric=metric, epoch=epoch, error=str(error))
        except (ProblemError, RequestError, GoldError) as error:
            scores = failed_scores(question, metric=metric, epoch=epoch, error=str(error))
        except ConfigError as error:
            error.add_note(f"(at problem {question.id!r})")
            raise
        await anyio.to_thread.run_sync(self._folder.write_scores, scores, failed)
        self._folder.note_progress(anyio.current_time() - self._began)
        return scores

    async def _solve(self, question: Question, epoch: int) -> RunResult:
        return await self._rsa.solve(
            Problem(question.problem, images=question.images, problem_id=question.id),
            out=self._folder.run_folder(question.id, epoch),
            resume=True,
            seed=epoch_seed(self._folder.record.config.seed, epoch),
        )


class Evaluation:
    """The way from problems to results, whatever makes the scores.

    questions  iterated once; their ids must differ.
    produce   makes the scores of one problem and epoch.
    tasks     problems at once.
    reuse     keep the scores that there are, those of failed runs apart: they get another try.
    """

    def __init__(
        self,
        folder: ResultsFolder,
        questions: Iterable[Question],
        scorer: Scorer,
        produce: Produce,
        *,
        tasks: int,
        reuse: bool,
        meter: EngineLoad | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._folder = folder
        self._queue = _Queue(questions, folder.record.epochs, scorer)
        self._produce = produce
        self._tasks = tasks
        self._reuse = reuse
        self._meter = meter or EngineLoad()
        self._tell = on_event or (lambda event: None)
        self._trouble: Exception | None = None

    async def run(self) -> EvalResults:
        """Everything to the end. Raises what `produce` raises, and DataError for problems that are no good."""
        record = self._folder.record
        runs = record.data.selected * record.epochs
        self._tell(EvalStarted(self._folder.folder, record, runs, self._tasks, self._meter))
        async with anyio.create_task_group() as group:
            for _ in range(self._tasks):
                group.start_soon(self._work, group.cancel_scope)
        if self._trouble is not None:
            raise self._trouble
        results = await anyio.to_thread.run_sync(write_figures, self._folder, self._queue.runs)
        self._tell(EvalFinished(results))
        return results

    async def _work(self, everyone: anyio.CancelScope) -> None:
        # Errors leave by hand: out of a task group they would come wrapped in an ExceptionGroup.
        try:
            while (task := await self._queue.next()) is not None:
                await self._take(*task)
        except Exception as error:
            self._trouble = self._trouble or error
            everyone.cancel()

    async def _take(self, question: Question, epoch: int) -> None:
        scores = self._folder.read_scores(question.id, epoch) if self._reuse else None
        found = scores is not None and scores.error is None and scores.question_sha256 == question.sha256
        if scores is None or not found:
            scores = await self._produce(question, epoch)
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
        tokens_per_s=results.usage.completion_tokens / wall_s if wall_s else 0.0,
        problems=tuple(timed),
        machine=this_machine(),
    )
    folder.write_results(results, timings)
    return results


class _Queue:
    """Problems times epochs in order of the data, handed out one at a time. `runs`: those handed out so far."""

    def __init__(self, questions: Iterable[Question], epochs: int, scorer: Scorer) -> None:
        self.runs: list[tuple[str, int]] = []
        self._questions = iter(questions)
        self._epochs = epochs
        self._scorer = scorer
        self._ids: set[str] = set()
        self._waiting: deque[tuple[Question, int]] = deque()
        self._turn = anyio.Lock()

    async def next(self) -> tuple[Question, int] | None:
        """None after the last one.

        Raises DataError for an id that came before, and if there are no problems at all; GoldError if already the
        first gold answer is no good: then the metric is the wrong one, and there is no point in going on.
        """
        async with self._turn:
            if not self._waiting:
                # In a thread: the next problem may come from a file or the network.
                question = await anyio.to_thread.run_sync(next, self._questions, None)
                if question is None:
                    if not self._ids:
                        raise DataError("there are no problems to evaluate")
                    return None
                if not self._ids:
                    check_gold(self._scorer, question)
                if question.id in self._ids:
                    raise DataError(f"two problems have the id {question.id!r}: give each its own")
                self._ids.add(question.id)
                self._waiting.extend((question, epoch) for epoch in range(self._epochs))
            question, epoch = self._waiting.popleft()
            self.runs.append((question.id, epoch))
            return question, epoch


def check_gold(scorer: Scorer, question: Question) -> None:
    """Raises GoldError, naming the problem, if its gold answer is not what the metric needs."""
    try:
        scorer.check(question.gold, question.fields)
    except GoldError as error:
        raise GoldError(f"problem {question.id!r}: {error}") from None
