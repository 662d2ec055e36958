"""`rsa report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsa.command.terminal import errors_for_people


@errors_for_people()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of an evaluation or of a solved problem.")],
) -> None:
    """Write DIR/report.html, one page that needs nothing else, and print its path."""
    from evals.report import write_report

    typer.echo(write_report(folder))
