"""The commands about measuring: `rsa eval`, `rsa merge`, `rsa compare`, `rsa report`, `rsa score`.

They reach the command line as entry points of `rsa.commands`; what they need is imported when they run. Figures go to
standard output, everything else to standard error. Exit codes as of `rsa solve`; 4 also if no problem could be scored
at all.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evals.flags import (
    BENCHMARK,
    PER_PROBLEM,
    BenchmarkArgument,
    InFlightFlag,
    JsonFlag,
    QuietFlag,
    ReportFlag,
    measured,
    of_each,
    with_limits,
    with_measuring,
)
from rsa.command.options import (
    DEFAULT_METHOD,
    ModelFlag,
    ProfileFlag,
    TrustFlag,
    flag_of,
    folder_argument,
    folder_flag,
    method_flag,
    with_servers,
    with_settings,
)
from rsa.command.terminal import (
    DEFAULT_MODEL,
    EXIT_TROUBLE,
    errors_for_people,
    new_folder,
    say,
    typed,
)

if TYPE_CHECKING:
    from evals.results import EvalResults
    from evals.workers.executor import Executor

_OWN_FLAGS = ("limit", "ids", "data", "shard", "in_flight", "devices", "address", *PER_PROBLEM)
"""Flags of `rsa eval` that messages name, beside those of the settings."""
_NAMED_OTHERWISE = {"benchmark": BENCHMARK, "columns": "--column", "deadline_s": "--deadline"}
"""What the command line calls some of what is given."""


@with_servers
@with_settings
@with_measuring
def evaluate(
    context: typer.Context,
    benchmark: BenchmarkArgument = None,
    *,
    method: Annotated[str | None, method_flag(DEFAULT_METHOD)] = None,
    model: ModelFlag = None,
    problems: dict[str, Any],
    budgets: dict[str, Any],
    in_flight: InFlightFlag = None,
    workers: dict[str, Any],
    profile: ProfileFlag = None,
    settings: dict[str, Any],
    servers: dict[str, Any],
    out: Annotated[Path | None, folder_flag("Results folder.", default="a new one in runs/")] = None,
    resume: Annotated[Path | None, folder_flag("Go on with the evaluation in this folder.")] = None,
    rescore: Annotated[
        Path | None, folder_flag("Score the evaluation in this folder again, without generating.")
    ] = None,
    trust: TrustFlag = False,
    metric: Annotated[
        str | None, typer.Option(help="With --rescore: by another metric.", show_default="the benchmark's")
    ] = None,
    write_report: ReportFlag = True,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure a method on a benchmark.

    The number comes with its 95% interval over problems.

    Everything is kept in the results folder: after Ctrl-C or a crash, --resume goes on where it was.

    rsa eval export DIR writes the results in formats that others collect.
    """
    # RSA_MODEL is for new evaluations: one goes on with the model it was started with.
    named = model if typed(context, "model") else None
    with errors_for_people(*_OWN_FLAGS), ExitStack() as stack:
        from evals.evaluating import new_job, rescored, resumed_job, run_job

        given = measured(benchmark, problems, budgets, method=method, profile=profile)
        if rescore is not None:
            flags = {"model": named, "in_flight": in_flight, "out": out, "resume": resume}
            _refuse({**given, **settings, **servers, **flags, **workers, **of_each(budgets)}, "--rescore")
            folder, results = rescore, rescored(rescore, metric, trust=trust, quiet=quiet)
        else:
            _refuse_alone(metric, trust=trust and resume is None)
            settings, executor = with_limits(settings, budgets), _executor(**workers)
            if resume is not None:
                _refuse({"out": out}, "--resume")
                job, opened, kept = resumed_job(resume, given, settings, named, trust=trust)
                servers = {**kept, **servers}
            else:
                job, opened = new_job(given, settings, model or DEFAULT_MODEL, out, stack)
            folder, results = job.folder, run_job(job, opened, servers, executor, in_flight, quiet=quiet)
        _finish(results, folder, with_report=write_report, as_json=json_, trust=trust, quiet=quiet)


def compare(
    first: Annotated[Path, folder_argument("Results folder of an evaluation.", "A")],
    second: Annotated[Path, folder_argument("Another one, of the same problems.", "B")],
    trust: TrustFlag = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two evaluations, problem by problem.

    Differences are B - A with 95% intervals; tokens say what they cost.
    """
    with errors_for_people("limit", "ids"):
        from evals.comparison import compare as compare_folders
        from evals.display import comparison_lines

        comparison = compare_folders(first, second, trust=trust)
        typer.echo(comparison.model_dump_json(indent=2) if json_ else "\n".join(comparison_lines(comparison)))


def merge(
    folders: Annotated[list[Path], folder_argument("Results folders, one of each shard.", "DIR...")],
    *,
    out: Annotated[Path | None, folder_flag("Results folder.", default="a new one in runs/")] = None,
    trust: TrustFlag = False,
    write_report: ReportFlag = True,
    json_: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Put the shards of an evaluation together.

    They were made by rsa eval --shard 1/4 to --shard 4/4. The results are those of one run over all problems. The
    shards stay as they are.
    """
    with errors_for_people(), ExitStack() as stack:
        from evals.display import result_lines
        from evals.folder import read_eval
        from evals.merging import merge as merge_shards

        record = read_eval(folders[0], trust=trust)
        folder = out or stack.enter_context(new_folder(f"{record.benchmark}-{record.method}"))
        results = merge_shards(folders, folder, trust=trust)
        if not quiet:
            say(*result_lines(results), sep="\n")
        _finish(results, folder, with_report=write_report, as_json=json_, trust=trust, quiet=quiet)


@errors_for_people()
def report(
    folder: Annotated[Path, folder_argument("Of an evaluation or of a solved problem.")],
    trust: TrustFlag = False,
) -> None:
    """Write DIR/report.html, one page that needs nothing else, and print its path."""
    from evals.report import write_report

    typer.echo(write_report(folder, trust=trust))


@errors_for_people()
def score(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="JSON lines with id, gold, candidate, and the columns that the metric needs."
        ),
    ],
    *,
    metric: Annotated[str, typer.Option(help="math, integer, choice, vqa, ...: a wrong one lists them.")],
    quiet: QuietFlag = False,
) -> None:
    """Score answers that a model wrote: a line of JSON for each on standard output, in the same order."""
    import anyio

    from evals.score_file import score_file

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    summary = anyio.run(score_file, file, metric, write)
    if not quiet:
        say(summary.line)


# ---- rsa eval


def _refuse(flags: dict[str, Any], what: str) -> None:
    """Raises ConfigError for the first flag that was given and has no meaning here."""
    from rsa.errors import ConfigError

    for name, value in flags.items():
        if value is not None:
            flag = _NAMED_OTHERWISE.get(name) or flag_of(name, value)
            raise ConfigError(f"{what} does not go with {flag}: leave it out")


def _refuse_alone(metric: str | None, *, trust: bool) -> None:
    """Raises ConfigError for what was given without that with which it goes."""
    from rsa.errors import ConfigError

    if metric is not None:
        raise ConfigError("--metric goes with --rescore only: the benchmark says how its answers are scored")
    if trust:
        raise ConfigError("--trust is for what a folder holds already: it goes with --resume or --rescore")


def _executor(executor: str = "local", **more: str) -> Executor | None:
    from evals.workers.executor import executor_named

    return executor_named(executor, **more)


def _finish(results: EvalResults, folder: Path, *, with_report: bool, as_json: bool, trust: bool, quiet: bool) -> None:
    """The report, the figures on standard output, and the exit code of an evaluation without a single value."""
    from evals.folder import RESULTS

    if with_report:
        from evals.report import write_report

        written = write_report(folder, trust=trust)
        if not quiet:
            say(f"report: {written}")
    if not quiet:
        say(f"results folder: {folder}")
    if as_json:
        typer.echo(results.model_dump_json(indent=2))
    elif results.mean.value is not None:
        typer.echo(f"{results.mean.value:.4f}")
    if results.mean.value is None:
        say(f"error: no problem could be scored; {folder / RESULTS} says why, under warnings")
        raise typer.Exit(EXIT_TROUBLE)
