"""An evaluation from its settings to its results: `evaluate` for programs, `EvalJob` for `rsa eval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from engine.api import Engine
from engine.paths import path_named
from evals.budget import SetBudget
from evals.data.benchmarks import Benchmark, load_benchmark
from evals.data.choice import SHARD
from evals.data.columns import Mapped, as_flags
from evals.data.open import Data, open_data
from evals.data.shard import Shard
from evals.errors import OtherEvalError, ResultsError
from evals.eval_record import DataSource, EvalRecord
from evals.events import OnEvent
from evals.folder import EVAL, ResultsFolder, read_eval
from evals.meter import EngineLoad
from evals.results import EvalResults
from evals.runner import Evaluation
from evals.scorers.protocol import Scorer
from evals.solving import Here
from rsa.answers.math_pool import MathWorkers
from rsa.errors import ConfigError, check_argument, is_options
from rsa.folders import check_other_kinds
from rsa.prompts import load_prompts
from rsa.settings.config import RSAConfig
from rsa.settings.methods import Method, check_method, load_method
from rsa.settings.suitability import suited
from rsa.words import shown

if TYPE_CHECKING:
    from evals.workers.driver import Crew
    from evals.workers.executor import Executor

MOST_EPOCHS, MOST_IN_FLIGHT = 10_000, 65_536
"""The largest of both: what is waiting, and who works on it, is kept in memory."""


async def evaluate(
    benchmark: Benchmark | str | Path,
    engine: Engine | str,
    method: str = "rsa",
    *,
    engine_options: Mapping[str, Any] | None = None,
    out: str | Path,
    profile: str | Path | None = None,
    data: str | Path | None = None,
    columns: Mapped | None = None,
    limit: int | None = None,
    ids: Sequence[str] | None = None,
    data_seed: int = 0,
    revision: str | None = None,
    shard: str | None = None,
    epochs: int = 1,
    total_tokens: int | str | None = None,
    deadline_s: float | None = None,
    in_flight: int | None = None,
    executor: Executor | None = None,
    resume: bool = False,
    trust: bool = False,
    progress: bool = False,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> EvalResults:
    """Measure a method on a benchmark; everything about it is kept in the folder `out`.

    benchmark  a name, the path of a TOML file, or a `Benchmark` of one's own.
    engine     an engine, which stays the caller's to close, or the name of a model.
    method     see `rsa.settings.methods`.
    engine_options   as of `MarkovianRSA`.
    profile, settings   as of `MarkovianRSA`; the task is the benchmark's unless one is given.
    data, columns, limit, ids, data_seed, revision   which problems: see `evals.data.open.open_data`.
    shard      `2/4`: of these problems the second of four parts, to be put together by `evals.merge`.
    epochs     how often each problem is run; each time with another seed.
    total_tokens, deadline_s   what all problems may take together: see `evals.budget.SetBudget`. `limits`, as of
               `MarkovianRSA`, are of each problem.
    in_flight  problems at once, in each worker; by default so many that the engine stays full. It does not change the
               results.
    executor   who starts workers, with an engine each, to solve the problems; None: this process solves them. Workers
               need the name of a model. They do not change the results.
    resume     go on with the evaluation in `out`, if there is one; without it, `out` must not hold one.
    trust      with `resume`: what was changed in `out` since it was written is taken as it is, not refused; the
               warnings of the results say so.
    progress   show on standard error what `rsa eval` shows there; `on_event` is told of the same.

    Raises ConfigError, EvalError (BenchmarkError, DataError, ResultsError and their kinds), RunFolderError, and
    EngineError if the engine as a whole fails: what was done until then is kept. A problem that fails alone is
    recorded as failed.
    """
    _check(benchmark, engine, engine_options, ids, in_flight, executor, on_event)
    source = DataSource.of(
        benchmark, data=data, columns=columns, limit=limit, ids=ids, data_seed=data_seed, revision=revision
    )
    model, budget = engine if isinstance(engine, str) else None, SetBudget.of(total_tokens, deadline_s)
    job = EvalJob.new(
        benchmark, model, method, profile, settings, source, shard, epochs, budget, out, resume=resume, trust=trust
    )
    from evals.display import watching

    with watching(progress, on_event) as watch:
        return await job.run(engine, watch, engine_options=engine_options, executor=executor, in_flight=in_flight)


def _check(
    benchmark: object,
    engine: object,
    engine_options: object,
    ids: object,
    in_flight: object,
    executor: object,
    on_event: object,
) -> None:
    """Raises ConfigError for an argument of `evaluate` that is not what it should be."""
    from evals.workers.executor import Executor

    known = isinstance(benchmark, str | Path | Benchmark)
    check_argument(benchmark, known, "benchmark", "a name, the path of a TOML file, or a Benchmark")
    check_argument(engine, isinstance(engine, str | Engine), "engine", "an engine or the name of a model")
    check_argument(engine_options, is_options(engine_options), "engine_options", "a mapping of options by name")
    check_argument(ids, ids is None or (isinstance(ids, Sequence) and not isinstance(ids, str)), "ids", "a list of ids")
    check_in_flight(in_flight)
    check_argument(executor, executor is None or isinstance(executor, Executor), "executor", "an Executor")
    check_argument(on_event, on_event is None or callable(on_event), "on_event", "a function")


def check_in_flight(in_flight: object) -> None:
    """Raises ConfigError for what is no number of problems at once, nor None."""
    if in_flight is not None:
        _check_number("in_flight", in_flight, MOST_IN_FLIGHT)


def _check_number(name: str, value: object, most: int) -> None:
    if not (isinstance(value, int) and 1 <= value <= most):
        raise ConfigError(f"{name} = {shown(value)}: should be 1 to {most}")


@dataclass(frozen=True, slots=True)
class EvalJob:
    """What is to be measured, how, and the folder where it is kept.

    shard      the part of the problems that is measured; None: all of them.
    budget     what all problems may take together; None: no limit.
    trust      what was changed in the folder since it was written is taken as it is.
    """

    benchmark: Benchmark
    source: DataSource
    shard: Shard | None
    method: Method
    config: RSAConfig
    epochs: int
    budget: SetBudget | None
    folder: Path
    resume: bool
    trust: bool = False

    @classmethod
    def new(
        cls,
        benchmark: Benchmark | str | Path,
        model: str | None,
        method: str,
        profile: str | Path | None,
        settings: Mapping[str, Any],
        source: DataSource,
        shard: str | None,
        epochs: int,
        budget: SetBudget | None,
        out: str | Path,
        *,
        resume: bool = False,
        trust: bool = False,
    ) -> Self:
        """An evaluation from its settings. Raises BenchmarkError, ConfigError, DataError for a shard that is none,
        ResultsError for a folder that holds something else."""
        if trust and not resume:
            raise ConfigError("`trust` is for what a folder holds already: it goes with resume")
        from rsa.compose import model_settings

        folder = path_named(out, ResultsError)
        check_other_kinds(folder, EVAL, ResultsError)  # a model takes a while to open
        known = benchmark if isinstance(benchmark, Benchmark) else load_benchmark(benchmark)
        _check_number("epochs", epochs, MOST_EPOCHS)
        brought = model_settings(model) if model else {}
        config = load_method(method, profile, {"task": known.task, **settings}, defaults=brought, measured=True)
        if budget is not None:
            config = budget.settings_for(config, shard)
        return cls(
            benchmark=known,
            source=source,
            shard=None if shard is None else Shard.read(shard),
            method=check_method(method),
            config=config,
            epochs=epochs,
            budget=budget,
            folder=folder,
            resume=resume,
            trust=trust,
        )

    @classmethod
    def resumed(
        cls,
        folder: Path,
        asked: Mapping[str, Any],
        settings: Mapping[str, Any],
        *,
        trust: bool = False,
    ) -> Self:
        """An evaluation that goes on: everything comes from its folder. What is given besides must agree with it.

        asked     those that were given of the arguments of `evaluate`, settings apart.
        settings  keys of `RSAConfig` that were given.

        Raises ResultsError if the folder holds no evaluation, OtherEvalError for a flag that differs from it.
        """
        record = read_eval(folder, trust=trust)
        if record.source.benchmark is None:
            raise ResultsError(f"a program gave the problems of {folder}: go on there, with evaluate(..., resume=True)")
        benchmark = load_benchmark(record.source.benchmark)
        others = {"method": record.method, "epochs": record.epochs, SHARD: record.data.options.get(SHARD)}
        budget = record.budget or SetBudget()
        theirs = {**record.source.model_dump(), **others, **budget.model_dump()}
        differing = {
            key: f"{_named(key)} is {_value_text(theirs[key])}, not {_value_text(value)}"
            for key, value in asked.items()
            if key in theirs and theirs[key] != value
        }
        config = record.config
        if "profile" in asked:
            wanted = {"task": benchmark.task, **settings}
            wanted_now = load_method(record.method, str(asked["profile"]), wanted, measured=True)
            if record.budget is not None:
                wanted_now = record.budget.settings_for(wanted_now)
            differing |= config.differences(suited(wanted_now, record.model))
        elif settings:
            differing |= config.differences(config.changed(settings))
        if differing:
            raise OtherEvalError(
                f"the evaluation in {folder} is another one: {'; '.join(differing.values())}. Leave the flags out to "
                "go on with it, or start a new one",
                tuple(differing),
            )
        return cls(
            benchmark=benchmark,
            source=record.source,
            shard=record.shard,
            method=record.method,
            config=config,
            epochs=record.epochs,
            budget=record.budget,
            folder=folder,
            resume=True,
            trust=trust,
        )

    def open_data(self) -> Data:
        """The problems. Raises DataError."""
        # A data set without a pinned commit may have moved on since.
        found = read_eval(self.folder, trust=self.trust) if self.resume and (self.folder / EVAL).exists() else None
        return open_source(self.benchmark, self.source, self.shard, found)

    async def run(
        self,
        engine: Engine | str,
        on_event: OnEvent | None = None,
        *,
        engine_options: Mapping[str, Any] | None = None,
        data: Data | None = None,
        executor: Executor | None = None,
        in_flight: int | None = None,
    ) -> EvalResults:
        """Measure. An engine given by the name of its model is closed again. Raises as `evaluate`.

        engine_options  what opens the engine takes besides the name of its model.
        data            what `open_data` gave, if it was called before.
        executor, in_flight   as of `evaluate`.
        """
        problems = await anyio.to_thread.run_sync(self.open_data) if data is None else data
        prompts = load_prompts(self.config.task)
        async with AsyncExitStack() as stack:
            math = await stack.enter_async_context(MathWorkers())
            scorer = await stack.enter_async_context(make_scorer(self.benchmark, math))
            meter = EngineLoad()
            options = engine_options or {}
            where: Here | Crew
            if executor is None:
                here = Here(engine, options, scorer, math, n=self.config.n, meter=meter, in_flight=in_flight)
                where = await stack.enter_async_context(here)
            else:
                where = await self._crew(engine, options, executor, meter, in_flight, stack)
            if problems.images and (why := where.model.lacks("images")) is not None:
                raise ConfigError(f"the problems of {self.benchmark.name} have images, but {why}")
            record = EvalRecord.now(
                benchmark=self.benchmark.name,
                metric=metric_name(self.benchmark),
                metric_settings=self.benchmark.settings,
                method=self.method,
                config=suited(self.config, where.model),
                epochs=self.epochs,
                model=where.model,
                prompt_sha256=prompts.sha256,
                data=problems.info,
                data_warnings=problems.warnings,
                source=self.source,
                budget=self.budget,
                versions=where.versions,
            )
            opening = partial(ResultsFolder.open, self.folder, record, resume=self.resume, trust=self.trust)
            folder = stack.enter_context(await anyio.to_thread.run_sync(opening))
            evaluation = Evaluation(
                folder,
                problems,
                scorer,
                where.places(folder),
                in_flight=where.in_flight,
                reuse=True,
                budget=self.budget,
                meter=meter,
                on_event=on_event,
            )
            return await evaluation.run()

    async def _crew(
        self,
        engine: Engine | str,
        options: Mapping[str, Any],
        executor: Executor,
        meter: EngineLoad,
        in_flight: int | None,
        stack: AsyncExitStack,
    ) -> Crew:
        """The workers of an executor, which end with the stack."""
        from evals.workers.driver import Crew
        from evals.workers.messages import Job

        if not isinstance(engine, str):
            raise ConfigError("workers open engines of their own: give the name of a model, not an engine")
        job = Job(engine, dict(options), self.benchmark.model_copy(update={"questions": None}), self.config, self.trust)
        channels = await stack.enter_async_context(executor.channels(engine))
        return await stack.enter_async_context(Crew(channels, job, meter=meter, in_flight=in_flight))


def _named(key: str) -> str:
    """An argument in a message; limits of the whole evaluation are told from those of a problem."""
    return f"{key} of the whole evaluation" if key in SetBudget.model_fields else key


def _value_text(value: Any) -> str:
    """A value in a message; of columns, the flags."""
    return as_flags(value) or "as the benchmark says" if isinstance(value, Mapping) else str(value)


def metric_name(benchmark: Benchmark) -> str:
    """What results call the metric: its name, or the class of a scorer of one's own."""
    return benchmark.metric if isinstance(benchmark.metric, str) else type(benchmark.metric).__name__


def make_scorer(benchmark: Benchmark, math: MathWorkers) -> Scorer:
    """The scorer of a benchmark. Raises BenchmarkError for a metric that does not exist."""
    if not isinstance(benchmark.metric, str):
        return benchmark.metric
    from evals.scorers import make

    return make(benchmark.metric, settings=benchmark.settings, math=math)


def open_source(
    benchmark: Benchmark, source: DataSource, shard: Shard | None, record: EvalRecord | None = None
) -> Data:
    """The data of a source; `record`: as it was read before, at the same commit of the hub."""
    read = record.data.revision if record is not None and record.data.kind == "hub" else None
    single = read if read is not None and " " not in read else None  # several are those of the benchmark
    return open_data(
        benchmark,
        data=None if source.data is None else Path(source.data),
        columns=source.columns,
        limit=source.limit,
        ids=source.ids,
        seed=source.data_seed,
        revision=source.revision or single,
        shard=shard,
    )
