"""The command `rsa replay`, an entry point of `rsa.commands`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsa.command.options import TrustFlag, folder_argument, with_flags_for
from rsa.command.terminal import errors_for_people, say

if TYPE_CHECKING:
    from evals.replay.variants import Variant


class VariantFlags:
    """What is decided otherwise than it was."""

    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POLICY[,...]", help="As of rsa solve, or none. Repeat it for several.", show_default="as recorded"
        ),
    ]
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="POLICY", help="As of rsa solve. Repeatable.", show_default="as recorded"),
    ]
    t: Annotated[
        list[int] | None,
        typer.Option(
            "--t", help="Fewer rounds of aggregation than were played. Repeatable.", show_default="as recorded"
        ),
    ]
    waves: Annotated[
        list[str] | None,
        typer.Option(metavar="N[,...]", help="As of rsa solve, or none. Repeatable.", show_default="as recorded"),
    ]
    n: Annotated[
        list[int] | None,
        typer.Option(
            "--n", help="Fewer candidates than there were, with --t 0. Repeatable.", show_default="as recorded"
        ),
    ]
    method: Annotated[
        list[str] | None, typer.Option(help="As of rsa solve: single, vote. Repeatable.", show_default="as recorded")
    ]


def _with_variants(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of `VariantFlags` in place of its parameter `given`."""
    return with_flags_for("given", VariantFlags, command)


@_with_variants
def replay(
    folders: Annotated[list[Path], folder_argument("Of evaluations or of solved problems.", "DIR...")],
    *,
    given: dict[str, Any],
    draws: Annotated[int, typer.Option(help="Of fewer candidates, from those of each run.")] = 200,
    write_report: Annotated[
        bool, typer.Option("--report", help="Keep it in DIR/replay.json, and write DIR/report.html with it.")
    ] = False,
    trust: TrustFlag = False,
    json_: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Decide again what was recorded, without a model.

    Each combination of what is repeated is a row: --stop decided --stop none --t 0 --t 1 makes four.

    Differences are to what was recorded, with 95% intervals over problems; x says what it would have cost.

    First of all the policies that ran decide again, and must come to the same.
    """
    with errors_for_people("draws"):
        import anyio

        from evals.replay.keeping import keep
        from evals.replay.replaying import replay_folders
        from evals.replay.table import replay_lines
        from evals.report import write_report as write

        replays = anyio.run(partial(replay_folders, folders, _variants(given), draws=draws, trust=trust))
        typer.echo(replays.model_dump_json(indent=2) if json_ else "\n".join(replay_lines(replays)))
        for replayed in replays.replays if write_report else ():
            say(f"report: {write(keep(replayed), trust=trust)}")


def _variants(given: dict[str, Any]) -> list[Variant]:
    """Every combination of the values that were given. Raises ConfigError."""
    from evals.replay.variants import grid, policies_of, sizes_in

    stops = [policies_of(written) for written in given.get("stop", ())]
    waves = [sizes_in(written) for written in given.get("waves", ())]
    return grid(**{**given, "stop": stops, "waves": waves})
