"""Problems solved and scored with the settings of an evaluation, on an engine that is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from engine.api import Engine, ModelInfo
from engine.errors import RequestError
from evals.data.question import Question
from evals.errors import GoldError
from evals.folder import ResultsFolder
from evals.meter import EngineLoad, MeteredEngine
from evals.run_scores import RunScores, failed_scores, score_run
from evals.scorers.protocol import Scorer
from rsa.answers.math_pool import MathWorkers
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, NoCandidatesError, ProblemError
from rsa.events import Event
from rsa.problem import Problem
from rsa.results import RunResult
from rsa.runlog import Sync
from rsa.settings.config import RSAConfig

UNBOUNDED_ROWS = 64
"""Candidates that are wanted at once of an engine that takes all it is asked for."""


def default_in_flight(n: int, model: ModelInfo) -> int:
    """Problems at once so that twice the rows of a model's engine are wanted: it stays full while rounds end."""
    return max(2, -(-2 * (model.max_rows or UNBOUNDED_ROWS) // n))


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of the runs of an epoch: the run seed itself in epoch 0, one derived from it in every other."""
    if epoch == 0:
        return seed
    name = json.dumps([seed, "epoch", epoch])
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run. `failed`: what there is of it if it failed as a whole."""

    scores: RunScores
    failed: RunResult | None = None


class Solver:
    """Solves the problems of an evaluation on one engine, which stays its owner's to close.

    metric  what results call the scorer's.
    meter   of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        config: RSAConfig,
        scorer: Scorer,
        math: MathWorkers,
        *,
        metric: str,
        meter: EngineLoad,
        sync: Sync,
    ) -> None:
        self._config = config
        self._scorer = scorer
        self._metric = metric
        self._rsa = MarkovianRSA(MeteredEngine(engine, meter), config=config, sync=sync, math_workers=math)

    async def solve(
        self, question: Question, epoch: int, out: Path, watch: Callable[[Event], None] | None = None
    ) -> Outcome:
        """Run a problem to its end, or go on with the run in the folder `out`, and score it. A failure that is the
        problem's own is part of the scores.

        watch  is told the run's events, in order.

        Raises EngineError if the engine as a whole failed, ConfigError, RunFolderError.
        """
        failed: RunResult | None = None
        try:
            self._scorer.check(question.gold, question.fields)  # before anything is generated
            result = await self._run(question, epoch, out, watch)
            scores = await score_run(result, question, self._scorer, metric=self._metric, epoch=epoch)
        except NoCandidatesError as error:
            failed = error.result
            scores = await score_run(failed, question, self._scorer, metric=self._metric, epoch=epoch, error=str(error))
        except (ProblemError, RequestError, GoldError) as error:
            scores = failed_scores(question, metric=self._metric, epoch=epoch, error=str(error))
        except ConfigError as error:
            error.add_note(f"(at problem {question.id!r})")
            raise
        return Outcome(scores, failed)

    async def _run(self, question: Question, epoch: int, out: Path, watch: Callable[[Event], None] | None) -> RunResult:
        problem = Problem(question.problem, images=question.images, problem_id=question.id)
        seed = epoch_seed(self._config.seed, epoch)
        if watch is None:
            return await self._rsa.solve(problem, out=out, resume=True, seed=seed)
        async with self._rsa.stream(problem, out=out, resume=True, seed=seed) as events:
            async for event in events:
                watch(event)
        assert event.type == "run_finished", "it is the last event"
        return event.result


class Solving:
    """This process as the place where the problems of a results folder are solved: see `evals.runner.Place`.

    in_flight  problems at once.
    """

    name = "this process"

    def __init__(
        self,
        engine: Engine,
        folder: ResultsFolder,
        scorer: Scorer,
        math: MathWorkers,
        *,
        meter: EngineLoad,
        in_flight: int,
    ) -> None:
        record = folder.record
        self._folder = folder
        self._in_flight = in_flight
        self._solver = Solver(engine, record.config, scorer, math, metric=record.metric, meter=meter, sync="round")

    async def ready(self) -> int:
        return self._in_flight

    async def scores(self, question: Question, epoch: int) -> RunScores:
        """Raises as `Solver.solve`, and ResultsError."""
        outcome = await self._solver.solve(question, epoch, self._folder.run_folder(question.id, epoch))
        await anyio.to_thread.run_sync(self._folder.write_scores, outcome.scores, outcome.failed)
        self._folder.note_progress()
        return outcome.scores
