"""What `rsa eval` does, without its flags: make a job, run it, keep it resumable."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from engine.errors import EngineError
from evals.budget import SetBudget
from evals.data.benchmarks import benchmark_names
from evals.display import watching
from evals.eval_record import DataSource
from evals.events import OnEvent
from evals.folder import EVAL, read_eval
from evals.job import EvalJob, check_in_flight
from evals.rescoring import rescore
from evals.results import EvalResults
from evals.workers.executor import Executor
from rsa import compose
from rsa.command.options import DEFAULT_METHOD
from rsa.command.terminal import bars, interrupted, new_folder
from rsa.errors import ConfigError, RunWriteError


def new_job(
    given: dict[str, Any],
    settings: dict[str, Any],
    model: str,
    out: Path | None,
    stack: ExitStack,
) -> tuple[EvalJob, str]:
    """The job of flags that were given by these names, and its model. A folder that is made for it goes with the stack
    if nothing comes of it."""
    if "benchmark" not in given:
        raise ConfigError(f"no benchmark given: rsa eval BENCHMARK. There are {', '.join(benchmark_names())}")
    method = given.get("method", DEFAULT_METHOD)
    source = DataSource(**{key: given[key] for key in DataSource.model_fields if key in given})
    part = f"-{given['shard'].replace('/', 'of')}" if "shard" in given else ""
    label = f"{Path(given['benchmark']).stem}-{method}{part}"
    job = EvalJob.new(
        given["benchmark"],
        model=model,
        method=method,
        profile=given.get("profile"),
        settings=settings,
        source=source,
        shard=given.get("shard"),
        epochs=given.get("epochs", 1),
        budget=SetBudget.of(given.get("total_tokens"), given.get("deadline_s")),
        out=out or stack.enter_context(new_folder(label)),
    )
    return job, model


def resumed_job(
    folder: Path,
    given: dict[str, Any],
    settings: dict[str, Any],
    model: str | None,
    *,
    trust: bool,
) -> tuple[EvalJob, str, dict[str, Any]]:
    """As `new_job`, of the evaluation in a folder; and what opens its model besides the name."""
    job = EvalJob.resumed(folder, given, settings, trust=trust)
    if model is not None:
        return job, model, {}
    theirs = read_eval(folder, trust=trust).model
    return job, compose.model_to_open(theirs), compose.options_to_open(theirs)


def run_job(
    job: EvalJob,
    model: str,
    options: dict[str, Any],
    executor: Executor | None,
    in_flight: int | None,
    *,
    quiet: bool,
) -> EvalResults:
    """Run a job with its display on standard error. Who leaves early is told the command that goes on."""
    go_on = f"go on with: rsa eval --resume {shlex.quote(str(job.folder))}"

    def begun() -> bool:
        return (job.folder / EVAL).is_file()

    check_in_flight(in_flight)
    try:
        data = job.open_data()  # before a model of many gigabytes is fetched for nothing
        if executor is None or not executor.elsewhere:
            with bars(quiet=quiet) as progress:
                compose.fetch_if_missing(model, progress)
        run = partial(job.run, model, engine_options=options, data=data, executor=executor, in_flight=in_flight)
        return _shown(run, quiet=quiet)
    except KeyboardInterrupt:
        raise interrupted(f"interrupted; {go_on}" if begun() else "interrupted before the evaluation began") from None
    except (EngineError, RunWriteError) as error:
        if begun():
            error.add_note(f"what was done until then is kept; {go_on}")
        raise


def rescored(folder: Path, metric: str | None, *, trust: bool, quiet: bool) -> EvalResults:
    """Score a folder again, without generating."""
    try:
        return _shown(lambda show: rescore(folder, metric, trust=trust, on_event=show), quiet=quiet)
    except KeyboardInterrupt:
        raise interrupted(f"interrupted; start again with: rsa eval --rescore {shlex.quote(str(folder))}") from None


def _shown(run: Callable[[OnEvent | None], Awaitable[EvalResults]], *, quiet: bool) -> EvalResults:
    """Run with the display that suits standard error."""
    with watching(not quiet) as watch:
        return anyio.run(run, watch)
