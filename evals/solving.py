"""Problems solved and scored with the settings of an evaluation, on an engine that is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import anyio.to_thread

from engine.api import Engine, ModelInfo
from engine.errors import RequestError
from evals.errors import GoldError
from evals.folder import PACKAGES, ResultsFolder
from evals.meter import EngineLoad, MeteredEngine
from evals.run_scores import failed_scores, score_run
from evals.scorers.protocol import Scorer
from evals.stints import Outcome, Stint, ended, headway_of
from rsa.answers.math_pool import MathWorkers
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, NoCandidatesError, PausedError, ProblemError
from rsa.events import Event
from rsa.folders import versions_of
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


class Solver:
    """Solves the problems of an evaluation on one engine, which stays its owner's to close.

    metric  what results call the scorer's.
    meter   of the engine.
    trust   what was changed in a run folder since it was written is taken as it is.
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
        trust: bool,
    ) -> None:
        self._config = config
        self._scorer = scorer
        self._metric = metric
        self._trust = trust
        self._rsa = MarkovianRSA(MeteredEngine(engine, meter), config=config, sync=sync, math_workers=math)

    async def solve(self, stint: Stint, out: Path, watch: Callable[[Event], None] | None = None) -> Outcome:
        """Run a problem as far as it has leave to, or go on with the run in the folder `out`; score it at its end. A
        failure that is the problem's own is part of the scores.

        watch  is told the run's events, in order.

        Raises EngineError if the engine as a whole failed, ConfigError, RunFolderError.
        """
        question, epoch = stint.question, stint.epoch
        result: RunResult | None = None
        failed: RunResult | None = None
        try:
            self._scorer.check(question.gold, question.fields)  # before anything is generated
            result = await self._run(stint, out, watch)
            scores = await score_run(result, question, self._scorer, metric=self._metric, epoch=epoch)
        except PausedError as pause:
            return Outcome(None, headway_of(pause.rounds))
        except NoCandidatesError as error:
            result = failed = error.result
            scores = await score_run(failed, question, self._scorer, metric=self._metric, epoch=epoch, error=str(error))
        except (ProblemError, RequestError, GoldError) as error:
            scores = failed_scores(question, metric=self._metric, epoch=epoch, error=str(error))
        except ConfigError as error:
            error.add_note(f"(at problem {question.id!r})")
            raise
        return Outcome(scores, ended(result), failed)

    async def _run(self, stint: Stint, out: Path, watch: Callable[[Event], None] | None) -> RunResult:
        question = stint.question
        problem = Problem(question.problem, images=question.images, problem_id=question.id)
        seed = epoch_seed(self._config.seed, stint.epoch)
        going: dict[str, Any] = {"out": out, "resume": True, "trust": self._trust, "leave": stint.leave, "seed": seed}
        if watch is None:
            return await self._rsa.solve(problem, **going)
        async with self._rsa.stream(problem, **going) as events:
            async for event in events:
                watch(event)
        assert event.type == "run_finished", "it is the last event"
        return event.result


class Here:
    """An engine in this process, and the one place where it solves problems. Use within `async with`.

    engine     stays the caller's to close; or the name of a model, whose engine is opened and closed again.
    options    for opening it: see `rsa.compose.open_engine`.
    meter      of the engine.
    in_flight  problems at once; None: so many that the engine stays full.

    Entering it raises what opening the model's engine raises. Then `model` is what the engine runs.
    """

    def __init__(
        self,
        engine: Engine | str,
        options: Mapping[str, Any],
        scorer: Scorer,
        math: MathWorkers,
        *,
        n: int,
        meter: EngineLoad,
        in_flight: int | None,
    ) -> None:
        self._given = engine
        self._options = options
        self._engine: Engine
        self._scorer = scorer
        self._math = math
        self._n = n
        self._meter = meter
        self._in_flight = in_flight

    async def __aenter__(self) -> Self:
        if isinstance(self._given, str):
            from rsa.compose import open_in_thread

            self._engine = await open_in_thread(self._given, **self._options)
        else:
            self._engine = self._given
        return self

    async def __aexit__(self, *exc: object) -> None:
        if isinstance(self._given, str):
            await self._engine.aclose()

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def versions(self) -> dict[str, str]:
        """What is installed here."""
        return versions_of(*PACKAGES)

    @property
    def in_flight(self) -> int:
        """Problems at once."""
        return self._in_flight or default_in_flight(self._n, self.model)

    def places(self, folder: ResultsFolder) -> list[Solving]:
        """This process as a place for the problems of a results folder."""
        record = folder.record
        solver = Solver(
            self._engine,
            record.config,
            self._scorer,
            self._math,
            metric=record.metric,
            meter=self._meter,
            sync="round",
            trust=folder.trust.given,
        )
        return [Solving(solver, folder, self.in_flight)]


class Solving:
    """This process as a place where problems are solved: see `evals.runner.Place`."""

    name = "this process"

    def __init__(self, solver: Solver, folder: ResultsFolder, in_flight: int) -> None:
        self._solver = solver
        self._folder = folder
        self._in_flight = in_flight

    async def ready(self) -> int:
        return self._in_flight

    async def play(self, stint: Stint) -> Outcome:
        """Raises as `Solver.solve`, and ResultsError."""
        outcome = await self._solver.solve(stint, self._folder.run_folder(stint.question.id, stint.epoch))
        if outcome.scores is not None:
            await anyio.to_thread.run_sync(self._folder.write_scores, outcome.scores, outcome.failed)
        self._folder.note_progress()
        return outcome
