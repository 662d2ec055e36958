"""Commands that packages bring: entry points of the group `rsa.commands`.

    [project.entry-points."rsa.commands"]
    hello = "my_package.commands:hello"

An entry point is called as the command is, and its object is a function as typer takes them. `evals` brings `eval`,
`compare`, `report` and `score` in this way, so that no room below it knows of them.
"""

from __future__ import annotations

from importlib import metadata

import typer

GROUP = "rsa.commands"
"""The entry-point group of commands."""


def add_commands(app: typer.Typer) -> list[str]:
    """Add what packages bring to `app`. Returns a line for each command that is left out, saying why; never raises."""
    left_out = []
    taken = {_name(command) for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for point in metadata.entry_points(group=GROUP):
        package = point.dist.name if point.dist is not None else point.value
        if point.name in taken:
            left_out.append(f"{package} brings a command that is there already: {point.name}")
            continue
        try:
            app.command(point.name)(point.load())
        except Exception as error:  # another's module may break in any way, and costs its own command alone
            left_out.append(
                f"the command {point.name} of {package} cannot be loaded ({type(error).__name__}: {error}): "
                f"install {package} again"
            )
            continue
        taken.add(point.name)
    return left_out


def _name(command: typer.models.CommandInfo) -> str | None:
    return command.name or getattr(command.callback, "__name__", None)
