"""The command `rsa tune`, an entry point of `rsa.commands`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evals.flags import QuietFlag
from rsa.command.options import ProfileFlag, folder_flag, one_of, with_flags_for, with_servers, with_settings
from rsa.command.terminal import bars, errors_for_people, interrupted, new_folder, say

if TYPE_CHECKING:
    from evals.tuning.records import Asked

_OWN_FLAGS = ("budget", "data", "metric", "data_seed", "tokens_per_problem")


def _tried(*names: str, default: str = "the model's, and half of it", **options: Any) -> Any:
    return typer.Option(*names, rich_help_panel="What is tried", show_default=default, **options)


class AskedFlags:
    """What is tuned, and what is tried."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl, .json or .parquet file with columns problem and answer.", show_default="the benchmark's"
        ),
    ]
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="A name or a TOML file, as of rsa eval.",
            show_default="the problems of --data",
            autocompletion=one_of("benchmarks"),
        ),
    ]
    metric: Annotated[
        str | None, typer.Option(help="Of --data without a benchmark: math, integer, choice, ...", show_default="math")
    ]
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COLUMN", help="Where the data have it, as of rsa eval.", show_default="as they are"),
    ]
    limit: Annotated[
        int | None,
        typer.Option(help="Problems, a sample; half of them are for checking the choice.", show_default="128"),
    ]
    data_seed: Annotated[int | None, typer.Option(help="Of the sample, and of generated problems.", show_default="0")]
    budget: Annotated[str | None, typer.Option(metavar="TOKENS", help="Generated tokens in all.", show_default="2M")]
    tokens_per_problem: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Choose settings that take no more.", show_default="no limit"),
    ]
    n: Annotated[
        list[int] | None, _tried("--n", help="Candidates; fewer of them are tried too. Repeatable.", default="16")
    ]
    c: Annotated[list[int] | None, _tried("--c", help="Tails. Repeatable.")]
    beta: Annotated[list[str] | None, _tried(metavar="TOKENS", help="Reasoning budget. Repeatable.")]
    tau: Annotated[list[str] | None, _tried(metavar="TOKENS", help="Length of a tail. Repeatable.")]
    stop: Annotated[
        list[str] | None,
        _tried(
            metavar="POLICY[,...]",
            help="As of rsa solve, or none. Repeatable.",
            default="none, decided, beta:.95, bayes:.95, answered",
        ),
    ]
    select: Annotated[
        list[str] | None,
        _tried(metavar="POLICY", help="As of rsa solve. Repeatable.", default="vote, weighted, pooled"),
    ]
    profile: ProfileFlag


def _with_asked(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `AskedFlags` in place of its parameter `given`."""
    return with_flags_for("given", AskedFlags, command)


@with_servers
@with_settings
@_with_asked
def tune(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As of rsa solve --model.", autocompletion=one_of("models"))
    ] = None,
    *,
    given: dict[str, Any],
    settings: dict[str, Any],
    servers: dict[str, Any],
    out: Annotated[Path | None, folder_flag("Folder of the tuning.", default="a new one in runs/")] = None,
    resume: Annotated[Path | None, folder_flag("Go on with the tuning in this folder.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print tune.json instead of the table.")] = False,
    quiet: QuietFlag = False,
) -> None:
    """Find settings for a model on problems like yours.

    Records a few families of settings (n, c, beta, tau) on more and more problems, the better half of them each time,
    and decides all else on the records: rounds up to --t, fewer candidates, when to stop, what to choose.

    Writes profile.toml with the cheapest settings that are not measurably worse than the best, for --profile; and
    tune.html. What they are worth is measured on problems that nothing was chosen by.

    After Ctrl-C or a crash, and for a larger --budget, --resume goes on where it was.
    """
    with errors_for_people(*_OWN_FLAGS), ExitStack() as stack:
        if resume is not None:
            asked, servers = _resumed(resume, {**given, **settings, "MODEL": model, "out": out}, servers)
            folder = resume
        else:
            asked = _asked(model, given, settings)
            folder = out or stack.enter_context(new_folder(f"tune-{Path(asked.model).name}"))
        _run(asked, folder, servers, as_json=json_, quiet=quiet)


def _asked(model: str | None, given: dict[str, Any], settings: dict[str, Any]) -> Asked:
    from evals.data.columns import from_flags
    from evals.replay.variants import policies_of
    from evals.tuning.records import Asked
    from rsa.errors import ConfigError

    if model is None:
        raise ConfigError("no model given: rsa tune MODEL --data FILE")
    return Asked.of(
        model,
        benchmark=given.get("benchmark"),
        data=given.get("data"),
        metric=given.get("metric"),
        columns=from_flags(given["column"]) if "column" in given else None,
        data_seed=given.get("data_seed", 0),
        limit=given.get("limit"),
        budget=given.get("budget"),
        profile=given.get("profile"),
        settings=settings,
        axes={name: given[name] for name in ("n", "c", "beta", "tau") if name in given},
        stops=[policies_of(written) for written in given["stop"]] if "stop" in given else None,
        selects=given.get("select"),
        tokens_per_problem=given.get("tokens_per_problem"),
    )


def _resumed(folder: Path, given: dict[str, Any], servers: dict[str, Any]) -> tuple[Asked, dict[str, Any]]:
    """What a folder tunes, with another budget if one is given, and what opens its model. Nothing else may be given."""
    from evals.folder import EVAL, read_eval
    from evals.tuning.records import RECORDINGS, read_asked
    from rsa.command.options import flag_of
    from rsa.compose import options_to_open
    from rsa.errors import ConfigError

    for name, value in given.items():
        if value is not None and name != "budget":
            flag = name if name.isupper() else flag_of(name, value)
            raise ConfigError(f"--resume does not go with {flag}: a tuning goes on as it was begun; leave it out")
    asked = read_asked(folder)
    if "budget" in given:
        asked = asked.with_budget(given["budget"])
    begun = sorted(folder.glob(f"{RECORDINGS}/*/*/{EVAL}"))
    return asked, {**(options_to_open(read_eval(begun[0].parent).model) if begun else {}), **servers}


def _run(asked: Asked, folder: Path, servers: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Tune, with a display on standard error. Who leaves early is told the command that goes on."""
    import anyio

    from engine.errors import EngineError
    from evals.tuning.display import watching
    from evals.tuning.page import write_page
    from evals.tuning.profile import write_profile
    from evals.tuning.records import ASKED
    from evals.tuning.table import tuned_lines
    from evals.tuning.tuning import tune as run
    from rsa.compose import fetch_if_missing
    from rsa.errors import RunWriteError

    go_on = f"go on with: rsa tune --resume {shlex.quote(str(folder))}"
    try:
        with bars(quiet=quiet) as progress:
            fetch_if_missing(asked.model, progress)
        show = partial(watching, quiet)
        tell = (lambda line: None) if quiet else say
        tuned = anyio.run(partial(run, asked, folder, engine_options=servers, show=show, say=tell))
    except KeyboardInterrupt:
        begun = (folder / ASKED).is_file()
        raise interrupted(f"interrupted; {go_on}" if begun else "interrupted before the tuning began") from None
    except (EngineError, RunWriteError) as error:
        if (folder / ASKED).is_file():
            error.add_note(f"what was recorded until then is kept; {go_on}")
        raise
    written = write_profile(folder, asked, tuned)
    page = write_page(folder, tuned)
    typer.echo(tuned.model_dump_json(indent=2) if as_json else "\n".join(tuned_lines(tuned)))
    if not quiet:
        say(f"profile: {written}", f"page: {page}", sep="\n")
