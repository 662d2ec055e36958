"""The commands about model files: `rsa models list|info|pull` and `rsa convert`.

What a program would read goes to standard output: names, the report, the folder that was fetched or written.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsa.command.options import folder_argument, folder_flag, with_flags, with_servers
from rsa.command.terminal import EXIT_ANSWERED, EXIT_TROUBLE, bars, errors_for_people, interrupted, say
from rsa.words import plural

if TYPE_CHECKING:
    from engine.files.inspection import ModelReport

models_app = typer.Typer(help="Models: their names, their files.", no_args_is_help=True)

_MODEL = typer.Argument(metavar="MODEL", help="A name (`rsa models list`), a folder, a hub id, or openai:MODEL.")


class Mode(StrEnum):
    AFFINE = "affine"
    MXFP4 = "mxfp4"


class DType(StrEnum):
    BF16 = "bf16"
    F16 = "f16"
    F32 = "f32"


@models_app.command("list")
def models_list() -> None:
    """Names that --model takes."""
    with errors_for_people():
        from rsa.compose import model_names, model_spec

        for name in model_names():
            typer.echo(f"{name:<14} {model_spec(name).description}")


@models_app.command("info")
@with_servers
def models_info(
    model: Annotated[str, _MODEL],
    *,
    servers: dict[str, Any],
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what a model's files are and what they lack; weights are not read. Exit code 4 if something is amiss.

    Of openai:MODEL, say what its servers can do with it.
    """
    with errors_for_people():
        from rsa.compose import is_remote, model_report

        if is_remote(model):
            _print_remote(model, servers, as_json=json_)
            return

        report = model_report(model)
        if json_:
            typer.echo(json.dumps(asdict(report), indent=2))
        else:
            _print_report(report)
    raise typer.Exit(EXIT_TROUBLE if report.problems else EXIT_ANSWERED)


@models_app.command("pull")
def models_pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name (`rsa models list`) or a hub id.")],
    to: Annotated[Path | None, folder_flag("Into this folder.", default="the hub's cache")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
) -> None:
    """Fetch a model from the hub, or bring it up to date. Prints its folder."""
    again = f"rsa models pull {shlex.quote(model)}{f' --to {shlex.quote(str(to))}' if to else ''}"
    with errors_for_people(), _resumable(again):
        from rsa.compose import fetch_model

        with bars(quiet=quiet) as show:
            fetched = fetch_model(model, to=to, on_progress=show)
        if not quiet:
            say(f"{model} at revision {fetched.revision or 'unknown'}")
        typer.echo(fetched.path)


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A ZAYA1 model: a name, a folder or a hub id.")],
    target: Annotated[Path, folder_argument("The folder to write.", "DST")],
    *,
    bits: Annotated[int, typer.Option(help="Of attention and experts: 4 or 8; embeddings get 8.")] = 4,
    mode: Annotated[Mode, typer.Option(help="The code; mxfp4 has 4 bits.")] = Mode.AFFINE,
    group_size: Annotated[
        int | None, typer.Option(help="Numbers that share a scale: 32, 64 or 128.", show_default="64; mxfp4: 32")
    ] = None,
    dtype: Annotated[
        DType | None, typer.Option(help="Of what stays float, and of scales.", show_default="as stored")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
) -> None:
    """Quantise a model into a folder of its own; started again after a crash, it goes on where it was. Prints DST."""
    with errors_for_people(), _resumable("the same command"):
        from rsa.compose import convert_model

        with bars(quiet=quiet) as show:
            result = convert_model(
                source,
                target,
                bits=bits,
                mode=mode.value,
                group_size=group_size,
                dtype=dtype.value if dtype else None,
                on_progress=show,
            )
        if not quiet:
            say(
                f"{result.source_nbytes / 1e6:,.1f} MB -> {result.nbytes / 1e6:,.1f} MB; {result.modules} matrices "
                f"quantised, verified: {result.mean_error:.2%} off on average, at worst {result.worst_error:.2%} "
                f"({result.worst})"
            )
            if result.kept:
                say(f"kept as float, no group size divides their width: {', '.join(result.kept)}")
        typer.echo(target)


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """Say how to go on where work on files is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted(f"interrupted; what is done is kept, go on with: {command}") from None


def _print_remote(model: str, options: dict[str, Any], *, as_json: bool) -> None:
    import anyio

    from rsa.compose import open_engine
    from rsa.settings.facts import model_facts

    engine = open_engine(model, **options)
    info = engine.model
    anyio.run(engine.aclose)
    if as_json:
        typer.echo(info.model_dump_json(indent=2))
        return
    for name, value in model_facts(info).items():
        typer.echo(f"{name:<18} {value}")
    for note in info.notes:
        typer.echo(f"!  {with_flags(note)}")


def _print_report(report: ModelReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    known = {True: "yes", False: "no", None: "unknown"}
    facts = {
        "folder": report.path,
        "layout": report.layout_title or "unknown",
        "model type": report.model_type or "unknown",
        "layers": _count(report.layers),
        "experts": _count(report.experts),
        "hidden size": _count(report.hidden_size),
        "vocabulary": _count(report.vocabulary),
        "context": f"{_count(report.context_tokens)} tokens",
        "sees images": known[report.sees],
        "thinks": known[report.thinks],
        "parameters": _count(report.parameters),
        "on the disk": f"{report.nbytes / 1e6:,.1f} MB in {plural(report.files, 'weight file')}",
    }
    for name, value in facts.items():
        console.print(Text(f"{name:<12}", style="bold"), Text(value), soft_wrap=True)
    if report.parts:
        table = Table("tensors", "stored as", box=None, pad_edge=False)
        table.add_column("parameters", justify="right")
        table.add_column("MB", justify="right")
        for part in report.parts:
            table.add_row(part.kind, part.code, _count(part.parameters), f"{part.nbytes / 1e6:,.1f}")
        console.print(table)
    for problem in report.problems:
        console.print(Text("!! ", style="bold red"), Text(problem), sep="", soft_wrap=True)
    if not report.problems:
        console.print(Text("ok  nothing is missing", style="green"))


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"
