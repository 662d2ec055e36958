"""The flags of `rsa eval`: which problems are measured, within what, and where; and those that its sisters have too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rsa.command.options import one_of, with_flags_for

BENCHMARK = "BENCHMARK"
PER_PROBLEM = {"tokens_per_problem": "total_tokens", "seconds_per_problem": "deadline_s"}
"""Flags that limit each problem, as keys of `rsa.settings.config.Limits`."""

BenchmarkArgument = Annotated[
    str | None,
    typer.Argument(
        metavar=BENCHMARK,
        help="A name (without one, all are listed), or a TOML file.",
        autocompletion=one_of("benchmarks"),
    ),
]
InFlightFlag = Annotated[
    int | None, typer.Option(help="Problems at once, in each worker.", show_default="2 x the engine's rows / n")
]
ReportFlag = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print results.json instead of the headline number.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")]


class ProblemFlags:
    """Which problems of a benchmark, and how often."""

    data: Annotated[
        Path | None,
        typer.Option(help="A .jsonl, .json or .parquet file, or a folder.", show_default="the benchmark's data"),
    ]
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN",
            help="Where the data have it: 'problem=prompt[0].content'. Repeatable.",
            show_default="as the benchmark says",
        ),
    ]
    limit: Annotated[int | None, typer.Option(help="At most so many problems.", show_default="all")]
    ids: Annotated[str | None, typer.Option(metavar="ID,ID,...", help="These problems only.", show_default="all")]
    epochs: Annotated[
        int | None, typer.Option(help="How often each problem is run, with seeds of their own.", show_default="1")
    ]
    data_seed: Annotated[int | None, typer.Option(help="Of generated or sampled problems.", show_default="0")]
    revision: Annotated[
        str | None, typer.Option(help="Commit of the hub's data set.", show_default="the benchmark's, else the newest")
    ]
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Every n-th problem, from the i-th; rsa merge.", show_default="all"),
    ]


def _budget(**options: Any) -> Any:
    return typer.Option(rich_help_panel="Budgets", show_default="none", **options)


class BudgetFlags:
    """What may be spent: by all problems together, and by each."""

    total_tokens: Annotated[
        str | None, _budget(metavar="TOKENS", help="Limit on all tokens of all problems together, shared out by need.")
    ]
    deadline: Annotated[float | None, _budget(metavar="SECONDS", help="Limit on the time of the whole evaluation.")]
    tokens_per_problem: Annotated[str | None, _budget(metavar="TOKENS", help="Limit on all tokens of each problem.")]
    seconds_per_problem: Annotated[float | None, _budget(metavar="SECONDS", help="Limit on the time of each problem.")]


class WorkerFlags:
    """Where problems are solved."""

    executor: Annotated[
        str | None,
        typer.Option(
            help="Where problems are solved: on this machine (local) or on a cluster (ray).",
            show_default="local",
            autocompletion=lambda: ["local", "ray"],
        ),
    ]
    devices: Annotated[
        str | None,
        typer.Option(metavar="all|N|I,J", help="A worker for each of these GPUs.", show_default="no workers"),
    ]
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster.", show_default="the one this machine is in")]


def with_measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of this module in place of its parameters `problems`, `budgets` and `workers`.

    The command gets there mappings of those that were given, by their names.
    """
    for name, flags in (("problems", ProblemFlags), ("budgets", BudgetFlags), ("workers", WorkerFlags)):
        command = with_flags_for(name, flags, command)
    return command


def measured(
    benchmark: str | None, problems: Mapping[str, Any], budgets: Mapping[str, Any], **more: str | None
) -> dict[str, Any]:
    """What is to be measured by these flags, and `more` of them, as an evaluation keeps it. Raises ConfigError,
    DataError."""
    from evals.budget import SetBudget
    from evals.data.columns import from_flags
    from evals.eval_record import absolute, benchmark_source

    given = dict(problems)
    if "data" in given:
        given["data"] = absolute(given["data"])
    if "column" in given:
        given["columns"] = from_flags(given.pop("column"))
    if "ids" in given:
        given["ids"] = tuple(filter(None, (one.strip() for one in given["ids"].split(","))))
    budget = SetBudget.of(budgets.get("total_tokens"), budgets.get("deadline"))
    asked = {
        "benchmark": None if benchmark is None else benchmark_source(benchmark),
        **more,
        **given,
        **({} if budget is None else budget.model_dump()),
    }
    return {name: value for name, value in asked.items() if value is not None}


def of_each(budgets: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that limit each problem."""
    return {flag: value for flag, value in budgets.items() if flag in PER_PROBLEM}


def with_limits(settings: dict[str, Any], budgets: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run with what limits each problem. Raises ConfigError, by the names of the flags."""
    from rsa.errors import ConfigError
    from rsa.settings.config import Limits

    limits = {PER_PROBLEM[flag]: value for flag, value in of_each(budgets).items()}
    for flag, limit in PER_PROBLEM.items():
        try:
            Limits(**{limit: limits.get(limit)})
        except ConfigError as error:
            raise ConfigError(str(error).replace(limit, flag, 1)) from None
    return {**settings, "limits": {**settings.get("limits", {}), **limits}} if limits else settings
