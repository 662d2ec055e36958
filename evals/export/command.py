"""The command `rsa eval export`, an entry point of `rsa.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsa.command.options import TrustFlag, folder_argument, folder_flag
from rsa.command.terminal import errors_for_people


@errors_for_people("by", "relation", "task", "url", "format")
def export(
    folder: Annotated[Path, folder_argument("Results folder of an evaluation.")],
    *,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="every-eval-ever, or eval-results for a model's page on the Hugging Face Hub.",
            autocompletion=lambda: ["every-eval-ever", "eval-results"],
        ),
    ] = "every-eval-ever",
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who measured; an Every Eval Ever record must say it.")
    ] = None,
    relation: Annotated[
        str, typer.Option(help="Of who measured to the model's makers: first_party, third_party, collaborative, other.")
    ] = "other",
    task: Annotated[
        str | None,
        typer.Option(help="With eval-results: the data set's leaderboard it is for.", show_default="default"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="With eval-results: where the evaluation can be looked at.", show_default="none")
    ] = None,
    out: Annotated[Path | None, folder_flag("Folder of the export.", default="DIR/export")] = None,
    trust: TrustFlag = False,
) -> None:
    """Write an evaluation's results in a format that others collect, and print the file's path."""
    from evals.export.writing import export as write

    typer.echo(write(folder, kind=format_, by=by, relation=relation, task=task, url=url, out=out, trust=trust))
