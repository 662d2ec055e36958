"""Commands that packages bring: entry points of the group `rsa.commands`.

    [project.entry-points."rsa.commands"]
    hello = "my_package.commands:hello"
    "hello.again" = "my_package.commands:again"

An entry point is called as the command is, and its object is a function as typer takes them; `hello.again` is
`rsa hello again`, whatever else may follow `rsa hello`. `evals` brings `eval`, `eval.export`, `tune` and all others
about measuring in this way, so that no room below it knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperCommand

GROUP = "rsa.commands"
"""The entry-point group of commands."""


def add_commands(app: typer.Typer) -> list[str]:
    """Add what packages bring to `app`. Returns a line for each command that is left out, saying why; never raises."""
    left_out = []
    below: dict[str, dict[str, TyperCommand]] = {}
    taken = {_name(command) for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name.count(".")):
        package = point.dist.name if point.dist is not None else point.value
        if point.name in taken:
            left_out.append(f"{package} brings a command that is there already: {point.name}")
            continue
        above, _, name = point.name.rpartition(".")
        if above and above not in taken:
            left_out.append(f"{package} brings a command below one that is not there: {point.name}")
            continue
        try:
            if above:
                below.setdefault(above, {})[name] = _alone(name, point.load())
            else:
                app.command(name)(point.load())
        except Exception as error:  # another's module may break in any way, and costs its own command alone
            left_out.append(
                f"the command {point.name} of {package} cannot be loaded ({type(error).__name__}: {error}): "
                f"install {package} again"
            )
            continue
        taken.add(point.name)
    for command in app.registered_commands:
        if commands := below.get(_name(command) or ""):
            command.cls = _with_below(commands)
    return left_out


def _name(command: typer.models.CommandInfo) -> str | None:
    return command.name or getattr(command.callback, "__name__", None)


def _alone(name: str, function: Any) -> TyperCommand:
    """The command of a function, outside of any group."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(function)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)
    return made


def _with_below(commands: Mapping[str, TyperCommand]) -> type[TyperCommand]:
    """The class of a command that gives way to one of these where its name is the first argument."""

    class WithBelow(TyperCommand):
        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
            if args and args[0] in commands:
                return commands[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)
            return super().make_context(info_name, args, parent=parent, **extra)

    return WithBelow
