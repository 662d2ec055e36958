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

from evals.budget_flags import (
    PER_PROBLEM,
    DeadlineFlag,
    SecondsPerProblemFlag,
    TokensPerProblemFlag,
    TotalTokensFlag,
    budget_asked,
    with_limits,
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
    one_of,
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

BENCHMARK = "BENCHMARK"
_OWN_FLAGS = ("limit", "ids", "data", "shard", "devices", "address", *PER_PROBLEM)
"""Flags of `rsa eval` that messages name, beside those of the settings."""
_NAMED_OTHERWISE = {"benchmark": BENCHMARK, "columns": "--column", "deadline_s": "--deadline"}
"""What the command line calls some of what is given."""


@with_servers
@with_settings
def evaluate(
    context: typer.Context,
    benchmark: Annotated[
        str | None,
        typer.Argument(
            metavar=BENCHMARK,
            help="A name (without one, all are listed), or a TOML file.",
            autocompletion=one_of("benchmarks"),
        ),
    ] = None,
    *,
    method: Annotated[str | None, method_flag(DEFAULT_METHOD)] = None,
    model: ModelFlag = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A .jsonl, .json or .parquet file, or a folder.", show_default="the benchmark's data"),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN",
            help="Where the data have it: 'problem=prompt[0].content'. Repeatable.",
            show_default="as the benchmark says",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many problems.", show_default="all")] = None,
    ids: Annotated[
        str | None, typer.Option(metavar="ID,ID,...", help="These problems only.", show_default="all")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="How often each problem is run, with seeds of their own.", show_default="1")
    ] = None,
    data_seed: Annotated[int | None, typer.Option(help="Of generated or sampled problems.", show_default="0")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit of the hub's data set.", show_default="the benchmark's, else the newest")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Every n-th problem, from the i-th; rsa merge.", show_default="all"),
    ] = None,
    total_tokens: TotalTokensFlag = None,
    deadline: DeadlineFlag = None,
    tokens_per_problem: TokensPerProblemFlag = None,
    seconds_per_problem: SecondsPerProblemFlag = None,
    in_flight: Annotated[
        int | None,
        typer.Option(help="Problems at once, in each worker.", show_default="2 x the engine's rows / n"),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where problems are solved: on this machine (local) or on a cluster (ray).",
            show_default="local",
            autocompletion=lambda: ["local", "ray"],
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="all|N|I,J", help="A worker for each of these GPUs.", show_default="no workers"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster.", show_default="the one this machine is in")
    ] = None,
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
    write_report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print results.json instead of the headline number.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
) -> None:
    """Measure a method on a benchmark.

    The number comes with its 95% interval over problems.

    Everything is kept in the results folder: after Ctrl-C or a crash, --resume goes on where it was.

    rsa eval export DIR writes the results in formats that others collect.
    """
    # RSA_MODEL is for new evaluations: one goes on with the model it was started with.
    named = model if typed(context, "model") else None
    with errors_for_people(*_OWN_FLAGS), ExitStack() as stack:
        from evals.data.columns import from_flags
        from evals.eval_record import absolute, benchmark_source
        from evals.evaluating import new_job, rescored, resumed_job, run_job
        from evals.workers.executor import executor_named
        from rsa.errors import ConfigError

        asked = {
            "benchmark": None if benchmark is None else benchmark_source(benchmark),
            "method": method,
            "data": None if data is None else absolute(data),
            "columns": from_flags(column) if column else None,
            "limit": limit,
            "ids": None if ids is None else tuple(filter(None, (one.strip() for one in ids.split(",")))),
            "epochs": epochs,
            "data_seed": data_seed,
            "revision": revision,
            "shard": shard,
            "profile": profile,
            **budget_asked(total_tokens, deadline),
        }
        given = {key: value for key, value in asked.items() if value is not None}
        per_problem = {"tokens_per_problem": tokens_per_problem, "seconds_per_problem": seconds_per_problem}
        if rescore is not None:
            flags = {"model": named, "in_flight": in_flight, "out": out, "resume": resume}
            where = {"executor": executor, "devices": devices, "address": address}
            _refuse({**given, **settings, **servers, **flags, **where, **per_problem}, "--rescore")
            folder, results = rescore, rescored(rescore, metric, trust=trust, quiet=quiet)
        else:
            if metric is not None:
                raise ConfigError("--metric goes with --rescore only: the benchmark says how its answers are scored")
            if trust and resume is None:
                raise ConfigError("--trust is for what a folder holds already: it goes with --resume or --rescore")
            settings = with_limits(settings, per_problem)
            workers = executor_named(executor or "local", devices=devices, address=address)
            if resume is not None:
                _refuse({"out": out}, "--resume")
                job, opened, kept = resumed_job(resume, given, settings, in_flight, named, trust=trust)
                servers = {**kept, **servers}
            else:
                job, opened = new_job(given, settings, in_flight, model or DEFAULT_MODEL, out, stack)
            folder, results = job.folder, run_job(job, opened, servers, workers, quiet=quiet)
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
    write_report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print results.json instead of the headline number.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
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
