"""`rsa score`: score answers that are already there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rsa.command.terminal import errors_for_people, say

if TYPE_CHECKING:
    from evals.score_file import FileScores


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
        say(summary_line(summary))


def summary_line(summary: FileScores) -> str:
    """`math: 30 answers, mean 0.5333 over 28 with a value (scored 27, truncated 1, too_hard 2)`."""
    statuses = ", ".join(f"{status} {count}" for status, count in summary.statuses.items())
    mean = "no mean" if summary.mean is None else f"mean {summary.mean:.4f} over {summary.scored} with a value"
    return f"{summary.metric}: {summary.n} answers, {mean} ({statuses or 'none'})"
