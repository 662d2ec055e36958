"""The command line: `rsa solve`, `rsa models`, `rsa doctor`.

The answer goes to standard output, everything else to standard error. Exit codes: 0 answered, 2 wrong usage,
3 no answer within the limits, 4 engine or model trouble, 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rsa.results import RunResult
    from rsa.solve import SolveJob

EXIT_ANSWERED, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_TROUBLE, EXIT_INTERRUPTED = 0, 2, 3, 4, 130
DEFAULT_MODEL = "nano"

app = typer.Typer(
    name="rsa",
    help="Markovian RSA: many short parallel thoughts, cut to tails and aggregated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Models that can be named.", no_args_is_help=True)
app.add_typer(models_app, name="models")


def main() -> None:
    """Entry point of the `rsa` command."""
    app(prog_name="rsa")


@app.command()
def solve(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="The problem; - is standard input.")] = None,
    *,
    image: Annotated[list[Path] | None, typer.Option(help="An image of the problem; may be repeated.")] = None,
    model: Annotated[
        str | None, typer.Option(envvar="RSA_MODEL", help="A name (`rsa models list`), a folder or a hub id.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Settings by name, or a TOML file.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Candidates a round.")] = None,
    c: Annotated[int | None, typer.Option("--c", help="Tails in an aggregation prompt.")] = None,
    t: Annotated[int | None, typer.Option("--t", help="Aggregation rounds after round 0.")] = None,
    beta: Annotated[str | None, typer.Option(metavar="TOKENS", help="Reasoning budget of a candidate: 40k.")] = None,
    tau: Annotated[str | None, typer.Option(metavar="TOKENS", help="Length of a tail: 4k.")] = None,
    answer_budget: Annotated[str | None, typer.Option(metavar="TOKENS", help="For the answer after it.")] = None,
    temperature: Annotated[float | None, typer.Option()] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    top_k: Annotated[int | None, typer.Option()] = None,
    min_p: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes every subset and every draw.")] = None,
    select: Annotated[str | None, typer.Option(help="vote, aggregate or first.")] = None,
    carry: Annotated[str | None, typer.Option(help="reasoning, answer_or_reasoning or full.")] = None,
    task: Annotated[str | None, typer.Option(help="Prompts: math, choice, code, general, vision, or a file.")] = None,
    total_tokens: Annotated[str | None, typer.Option(metavar="TOKENS", help="Limit on all tokens.")] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit on the wall clock.")] = None,
    prompt_tokens: Annotated[str | None, typer.Option(metavar="TOKENS", help="Limit on each prompt.")] = None,
    stop_on_consensus: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Stop when this share of a round agrees.")
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Refuse budgets over the context instead of lowering them.")
    ] = None,
    force_answer: Annotated[
        bool | None, typer.Option("--force-answer/--no-force-answer", help="At beta, ask for an answer all the same.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default a new one under runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")] = False,
) -> None:
    """Solve a problem with N parallel candidates over T rounds."""
    with _errors_for_people():
        from rsa.solve import SolveJob

        settings: dict[str, Any] = {
            key: value
            for key, value in {
                "n": n, "c": c, "t": t, "beta": beta, "tau": tau, "answer_budget": answer_budget,
                "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed,
                "select": select, "carry": carry, "task": task, "strict": strict, "force_answer": force_answer,
                "stop_on_consensus": stop_on_consensus,
            }.items()
            if value is not None
        }  # fmt: skip
        limits = {"total_tokens": total_tokens, "wall_clock_s": deadline, "prompt_tokens": prompt_tokens}
        if given := {key: value for key, value in limits.items() if value is not None}:
            settings["limits"] = given
        if resume is not None:
            # RSA_MODEL is for new runs: a run goes on with the model it was started with.
            asked = model if _typed(context, "model") else None
            job = SolveJob.resumed(resume, file, image, asked, profile, settings, out)
        else:
            job = SolveJob.new(file, image, model or DEFAULT_MODEL, profile, settings, out or _new_folder())
        result = _run(job, quiet=quiet)
        _print_answer(result, as_json=json_)
    raise typer.Exit(EXIT_ANSWERED if result.answer is not None else EXIT_NO_ANSWER)


@models_app.command("list")
def models_list() -> None:
    """Names that --model takes."""
    with _errors_for_people():
        from rsa.compose import model_names, model_spec

        for name in model_names():
            typer.echo(f"{name:<14} {model_spec(name).description}")


@app.command()
def doctor() -> None:
    """Say what this machine has for the engine, and what is amiss."""
    with _errors_for_people():
        from rsa.doctor import examine

        report = examine()
        for finding in report:
            mark = "ok " if finding.ok else "!! "
            typer.echo(f"{mark} {finding.what:<14} {finding.text}")
    raise typer.Exit(EXIT_ANSWERED if all(finding.ok for finding in report) else EXIT_TROUBLE)


def _run(job: SolveJob, *, quiet: bool) -> RunResult:
    """Run a job with its display on standard error. Who leaves early is told the command that goes on."""
    from rich.console import Console

    from engine.errors import EngineError, RequestError
    from rsa.display import make_display
    from rsa.errors import NoCandidatesError

    go_on = f"go on with: rsa solve --resume {shlex.quote(str(job.folder))}"
    try:
        with make_display(Console(stderr=True), quiet=quiet) as display:
            result = job.run(display.show)
    except KeyboardInterrupt:
        _say(f"interrupted; {go_on}" if job.begun else "interrupted before the run began")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (EngineError, NoCandidatesError) as error:
        if job.begun and not isinstance(error, RequestError):
            error.add_note(f"what was done until then is kept; {go_on}")
        raise
    if not quiet:
        _say(f"run folder: {job.folder}")
    return result


def _typed(context: typer.Context, parameter: str) -> bool:
    """Whether a flag stands on the command line, not in the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _new_folder() -> Path:
    """A folder under runs/ that is not there yet."""
    name = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    return next(folder for folder in (Path("runs") / each for each in names) if not folder.exists())


def _print_answer(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    elif result.answer is not None:
        from rsa.display import printable

        # A file gets what the model wrote; a terminal nothing that would move its cursor.
        typer.echo(printable(result.answer) if sys.stdout.isatty() else result.answer)


@contextmanager
def _errors_for_people() -> Iterator[None]:
    """Turn this project's errors into one line and an exit code; other errors are bugs and keep their traceback."""
    from engine.errors import EngineError, RequestError
    from rsa.errors import NoCandidatesError, RSAError

    try:
        yield
    except (RequestError, RSAError) as error:
        _say_error(error)
        raise typer.Exit(EXIT_TROUBLE if isinstance(error, NoCandidatesError) else EXIT_USAGE) from None
    except EngineError as error:
        _say_error(error)
        raise typer.Exit(EXIT_TROUBLE) from None


def _say_error(error: Exception) -> None:
    _say(f"error: {error}", *getattr(error, "__notes__", ()), sep="\n")


def _say(*parts: Any, sep: str = " ") -> None:
    print(*parts, sep=sep, file=sys.stderr, flush=True)
