"""Finished evaluations scored again from their run folders, without generating."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio.to_thread

from evals.data.benchmarks import Benchmark, load_benchmark
from evals.errors import OtherEvalError, ResultsError
from evals.eval_record import data_identity
from evals.events import OnEvent
from evals.folder import ResultsFolder
from evals.job import make_scorer, metric_name, open_source
from evals.queue import check_gold
from evals.results import EvalResults
from evals.run_scores import failed_scores, score_run
from evals.runner import Evaluation
from evals.scorers.protocol import Scorer
from evals.stints import Headway, Outcome, Stint
from rsa.answers.math_pool import MathWorkers
from rsa.folders import what_differs

AT_ONCE = 8
"""Problems scored again at once: scoring waits for the math workers now and then, and for nothing else."""


async def rescore(
    folder: str | Path,
    metric: str | None = None,
    *,
    benchmark: Benchmark | None = None,
    trust: bool = False,
    on_event: OnEvent | None = None,
) -> EvalResults:
    """Score a finished evaluation again from its run folders, without generating; its results are written anew.

    metric     another one than it has been scored by.
    benchmark  must be given where a program gave the problems.
    trust      what was changed in the folder since it was written is taken as it is, not refused; the warnings of the
               results say so.

    Raises ResultsError if the folder holds no evaluation or one that is not finished, OtherEvalError if its data is
    not what it was, and as `evaluate`.
    """
    async with AsyncExitStack() as stack:
        results = stack.enter_context(ResultsFolder.of(folder, trust=trust))
        record = results.record
        if benchmark is None and record.source.benchmark is None:
            raise ResultsError(f"a program gave the problems of {folder}: call rescore(..., benchmark=...) there")
        found = benchmark or load_benchmark(str(record.source.benchmark))
        # The metric that it was last scored by, unless the benchmark brings a scorer of its own.
        wanted = metric or (record.metric if isinstance(found.metric, str) else None)
        if wanted is not None and wanted != found.metric:
            found = found.model_copy(update={"metric": wanted, "settings": {}})  # settings are of a metric
        data = await anyio.to_thread.run_sync(open_source, found, record.source, record.shard, record)
        keys, details = what_differs(data_identity(record.data), data_identity(data.info))
        if keys:
            raise OtherEvalError(f"the data of {folder} is not what it was. Different: {details}", keys)
        math = await stack.enter_async_context(MathWorkers())
        scorer = await stack.enter_async_context(make_scorer(found, math))
        for question in data:
            check_gold(scorer, question)  # a metric that does not fit leaves the folder as it is
            break
        results.write_metric(metric_name(found), found.settings)
        evaluation = Evaluation(
            results,
            data,
            scorer,
            [_ScoredAgain(results, scorer)],
            in_flight=AT_ONCE,
            reuse=False,
            on_event=on_event,
        )
        return await evaluation.run()


class _ScoredAgain:
    """A results folder as the place where scores come from: see `evals.runner.Place`."""

    name = "the run folders"

    def __init__(self, folder: ResultsFolder, scorer: Scorer) -> None:
        self._folder = folder
        self._scorer = scorer

    async def ready(self) -> int:
        return AT_ONCE

    async def play(self, stint: Stint) -> Outcome:
        """Scores from what a run generated. A run that failed stays failed."""
        question, epoch = stint.question, stint.epoch
        folder, metric = self._folder, self._folder.record.metric
        result = folder.read_result(question.id, epoch)
        gone = result is None or result.stopped_because == "no_candidates"
        failure = folder.read_failure(question.id, epoch) if gone else None
        error = failure.error if failure is not None else None
        if gone and result is not None and error is None:
            error = "all candidates of a round failed"
        if result is not None:
            scores = await score_run(result, question, self._scorer, metric=metric, epoch=epoch, error=error)
        elif failure is not None and error is not None:
            scores = failed_scores(question, metric=metric, epoch=epoch, error=error, ended=failure.ended)
        else:
            raise ResultsError(f"{folder.folder} is not finished; go on with: rsa eval --resume {folder.folder}")
        await anyio.to_thread.run_sync(folder.write_scores, scores)
        return Outcome(scores, Headway(ended=True))
