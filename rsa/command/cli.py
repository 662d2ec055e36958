"""The command line: `rsa solve`, `rsa models`, `rsa convert`, `rsa serve`, `rsa mcp`,
`rsa doctor`, `rsa bench`.

The answer goes to standard output, everything else to standard error. Exit codes: 0 answered, 2 wrong usage,
3 no answer within the limits, 4 engine or model trouble, or what cannot be written; 130 interrupted (143 by
SIGTERM, 129 by SIGHUP).
"""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsa.command import signals
from rsa.command.mcp import mcp
from rsa.command.models import convert, models_app
from rsa.command.options import (
    MethodFlag,
    ModelFlag,
    ProfileFlag,
    TrustFlag,
    folder_flag,
    with_servers,
    with_settings,
)
from rsa.command.plugins import add_commands
from rsa.command.serve import serve
from rsa.command.streams import standard_streams
from rsa.command.terminal import (
    DEFAULT_MODEL,
    EXIT_ANSWERED,
    EXIT_NO_ANSWER,
    EXIT_TROUBLE,
    bars,
    errors_for_people,
    interrupted,
    new_folder,
    say,
    typed,
)

if TYPE_CHECKING:
    from rsa.command.job import SolveJob
    from rsa.results import RunResult

app = typer.Typer(
    name="rsa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line of this process, whatever its streams are and whoever asks it to end."""
    signals.end_in_order()
    with standard_streams(EXIT_TROUBLE):
        for line in LEFT_OUT:
            say(f"warning: {line}")
        app(prog_name="rsa")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"markovian-rsa {metadata.version('markovian-rsa')}")
        raise typer.Exit(EXIT_ANSWERED)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Markovian RSA: many short parallel thoughts, cut to tails and aggregated."""


@app.command()
@with_servers
@with_settings
def solve(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="The problem; - is standard input.")] = None,
    *,
    image: Annotated[list[Path] | None, typer.Option(help="An image of the problem; may be repeated.")] = None,
    model: ModelFlag = None,
    method: MethodFlag = None,
    profile: ProfileFlag = None,
    settings: dict[str, Any],
    servers: dict[str, Any],
    out: Annotated[Path | None, folder_flag("Run folder.", default="a new one in runs/")] = None,
    resume: Annotated[Path | None, folder_flag("Go on with the run in this folder.")] = None,
    trust: TrustFlag = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Nothing on standard error but errors, and what is wrong or unchecked."),
    ] = False,
) -> None:
    """Solve a problem with N parallel candidates over T rounds."""
    with errors_for_people(), ExitStack() as stack:
        from rsa.command.job import SolveJob
        from rsa.errors import ConfigError

        if trust and resume is None:
            raise ConfigError("`trust` is for what a folder holds already: it goes with --resume")
        if resume is not None:
            # RSA_MODEL is for new runs: a run goes on with the model it was started with.
            asked = model if typed(context, "model") else None
            job = SolveJob.resumed(resume, file, image, asked, servers, method, profile, settings, out, trust=trust)
        else:
            folder = out or stack.enter_context(new_folder())
            job = SolveJob.new(file, image, model or DEFAULT_MODEL, servers, method, profile, settings, folder)
        result = _run(job, method, quiet=quiet)
        _print_answer(result, as_json=json_, quiet=quiet)
    raise typer.Exit(EXIT_ANSWERED if result.answer is not None else EXIT_NO_ANSWER)


app.command()(convert)
app.command()(serve)
app.command()(mcp)


@app.command()
@with_servers
def doctor(
    context: typer.Context,
    *,
    smoke: Annotated[bool, typer.Option("--smoke", help="Ask a model easy questions as well.")] = False,
    model: Annotated[
        str | None, typer.Option(envvar="RSA_MODEL", help="The model to ask: a name, a folder, a hub id, or KIND:NAME.")
    ] = None,
    servers: dict[str, Any],
) -> None:
    """Say what this machine has for the engine, and what is amiss.

    ! is a warning, !! is broken; exit code 4 if anything is broken.

    Of openai:MODEL also what its servers can do.
    """
    with errors_for_people():
        from rsa.command.doctor import Finding, examine, examine_server
        from rsa.compose import is_remote
        from rsa.errors import ConfigError

        marks = {"ok": "ok", "warning": "!", "broken": "!!"}

        def tell(finding: Finding) -> None:
            typer.echo(f"{marks[finding.level]:<3} {finding.what:<14} {finding.text}")

        remote = model is not None and is_remote(model)
        if smoke != (model is not None) and not remote and (smoke or typed(context, "model")):
            raise ConfigError("--smoke and --model go together: rsa doctor --smoke --model M asks M easy questions")
        report = [*examine(), *(examine_server(model, servers) if remote and model is not None else ())]
        for finding in report:
            tell(finding)
        well = all(finding.level != "broken" for finding in report)
        if smoke and model is not None:
            from rsa.command.smoke import smoke_model

            well = smoke_model(model, servers, tell) and well
    raise typer.Exit(EXIT_ANSWERED if well else EXIT_TROUBLE)


@app.command("bench")
@with_servers
def measure(
    model: Annotated[
        str,
        typer.Argument(envvar="RSA_MODEL", metavar="[MODEL]", help="A name, a folder, a hub id, or KIND:NAME."),
    ] = DEFAULT_MODEL,
    *,
    rows: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Candidates at once, such as 1,16.", show_default="1,4,16")
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Prompts of so many, such as 1k,16k.", show_default="1k,4k, or less"),
    ] = None,
    tokens: Annotated[int, typer.Option(help="That each candidate writes to be measured.")] = 32,
    servers: dict[str, Any],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, in one line; the table goes to stderr.")] = False,
) -> None:
    """Measure how fast a model runs here; compute how long profiles take, and what fits into memory."""
    with errors_for_people("rows", "context", "tokens"):
        from rsa.command.bench import as_json, bench, sizes
        from rsa.compose import fetch_if_missing, model_settings, open_engine
        from rsa.settings.config import MOST_CANDIDATES

        wanted_rows = None if rows is None else sizes("rows", rows, MOST_CANDIDATES)
        contexts = None if context is None else sizes("context", context)
        sizes("tokens", str(tokens))
        with bars() as show:
            fetch_if_missing(model, show)
        engine, tell = open_engine(model, **servers), say if json_ else typer.echo
        report = bench(
            engine, rows=wanted_rows, contexts=contexts, tokens=tokens, brought=model_settings(model), tell=tell
        )
        if json_:
            typer.echo(as_json(report))


LEFT_OUT = add_commands(app)
"""Why commands that other packages bring are not there."""


def _run(job: SolveJob, method: str | None, *, quiet: bool) -> RunResult:
    """Run a job with its display on standard error. Who leaves early is told the command that goes on."""
    from rich.console import Console

    from engine.errors import EngineError, RequestError
    from rsa.command.display import descent_lines, make_display
    from rsa.compose import fetch_if_missing
    from rsa.errors import NoCandidatesError, RunWriteError

    go_on = f"go on with: rsa solve --resume {shlex.quote(str(job.folder))}"
    try:
        with bars(quiet=quiet) as show:
            fetch_if_missing(job.model, show)
        with make_display(Console(stderr=True), quiet=quiet, method=method) as display:
            result = job.run(display.show)
    except KeyboardInterrupt:
        raise interrupted(f"interrupted; {go_on}" if job.begun else "interrupted before the run began") from None
    except (EngineError, NoCandidatesError, RunWriteError) as error:
        if job.begun and not isinstance(error, RequestError):
            error.add_note(f"what was done until then is kept; {go_on}")
        raise
    if not quiet:
        say(*descent_lines(result), f"run folder: {job.folder}", sep="\n")
    return result


def _print_answer(result: RunResult, *, as_json: bool, quiet: bool) -> None:
    """The answer on standard output: with its mark for people, alone for a file or a program.

    There the mark is on standard error: in the display, or where that is quiet in a line of its own.
    """
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    elif result.answer is not None:
        from rsa.answers.checking import mark_of
        from rsa.command.display import in_a_line, printable

        check = result.check
        if sys.stdout.isatty():
            mark = f" ({mark_of(check)})" if check else ""
            typer.echo(printable(f"{result.answer}{mark}"))  # nothing that would move a terminal's cursor
            return
        typer.echo(result.answer)
        if quiet and check is not None and check.mark != "verified":
            say(f"answer {in_a_line(result.answer)} is {check.mark}: {check.reason}")
