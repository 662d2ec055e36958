"""What all commands share: exit codes, errors as people read them, bars of progress. Standard error only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsa.command import signals
from rsa.words import in_one_line, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from engine.files.checkpoint import FileProgress

DEFAULT_MODEL = "nano"
EXIT_ANSWERED, EXIT_USAGE, EXIT_NO_ANSWER, EXIT_TROUBLE = 0, 2, 3, 4
RUNS = Path("runs")
_LONGEST_ERROR = 1000
"""Characters of an error. What makes one longer is what somebody gave, and it may hold anything."""


@contextmanager
def errors_for_people(*flags: str) -> Iterator[None]:
    """Turn this project's errors into one line and an exit code; other errors are bugs and keep their traceback.

    An interruption that nobody had more to say about becomes a word. Settings that a message names become flags, with
    `flags` those that the running command has beside the settings of a run.
    """
    from engine.errors import EngineError, RequestError
    from rsa.errors import NoCandidatesError, RSAError, RunWriteError

    try:
        yield
    except (RequestError, RSAError) as error:
        _say_error(error, flags)
        trouble = isinstance(error, NoCandidatesError | RunWriteError)
        raise typer.Exit(EXIT_TROUBLE if trouble else EXIT_USAGE) from None
    except EngineError as error:
        _say_error(error, flags)
        raise typer.Exit(EXIT_TROUBLE) from None
    except KeyboardInterrupt:
        raise interrupted("interrupted") from None


def interrupted(what: str) -> typer.Exit:
    """Say what was interrupted and how to go on; the exit that says by which signal."""
    say(what)
    return typer.Exit(signals.exit_code())


def typed(context: typer.Context, parameter: str) -> bool:
    """Whether a flag stands on the command line, not in the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def new_folder(label: str = "") -> Iterator[Path]:
    """A folder of one's own under runs/, named by the label and the time; made at once, so that nobody else takes it.

    It goes again if it is still empty in the end. Raises RunFolderError if it cannot be made.
    """
    from rsa.errors import RunFolderError

    name = f"{label}-{datetime.now():%Y%m%d-%H%M%S}".lstrip("-")
    try:
        folder = _made(name)
    except OSError as error:
        raise RunFolderError(f"cannot make a folder in {RUNS}: {error.strerror}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # what is in use is not empty, and stays
            folder.rmdir()
            RUNS.rmdir()


def _made(name: str) -> Path:
    number = 1
    while True:
        RUNS.mkdir(exist_ok=True)
        folder = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            continue  # who had made runs/ has just removed it
        else:
            return folder


def can_redraw(console: Console) -> bool:
    """Whether lines can be drawn anew there: a terminal can, a file cannot, nor what calls itself a dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal


def say(*parts: Any, sep: str = " ") -> None:
    print(*parts, sep=sep, file=sys.stderr, flush=True)


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Callable[[FileProgress], None]]:
    """Shows work on files as it is reported: a bar for each stage on a terminal, elsewhere a line where it begins.

    Nothing is shown of a stage that has nothing to do. Safe to report to from any thread.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif not can_redraw(console):
        begun: set[str] = set()

        def tell(report: FileProgress) -> None:
            if report.total_bytes and report.done_bytes < report.total_bytes and report.stage not in begun:
                begun.add(report.stage)
                say(f"{report.stage} {report.total_bytes / 1e6:,.1f} MB")

        yield tell
    else:
        with ExitStack() as stack:
            yield _bars(console, stack)


def _bars(console: Any, stack: ExitStack) -> Callable[[FileProgress], None]:
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = ("{task.description:<10}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    shown = Bars(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=console, transient=True)
    tasks: dict[str, TaskID] = {}

    def tell(report: FileProgress) -> None:
        if not tasks:
            stack.enter_context(shown)
        if report.stage not in tasks:
            tasks[report.stage] = shown.add_task(report.stage, total=None)
        shown.update(tasks[report.stage], completed=report.done_bytes, total=report.total_bytes)

    return tell


def _say_error(error: Exception, flags: Iterable[str]) -> None:
    from rsa.command.options import with_flags

    line = shortened(in_one_line(f"error: {with_flags(str(error), flags)}"), _LONGEST_ERROR)
    say(line, *getattr(error, "__notes__", ()), sep="\n")
