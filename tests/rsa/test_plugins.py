"""Commands that other packages bring, and those that cannot be brought."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer
from processes import run
from typer.testing import CliRunner

from rsa.command.cli import LEFT_OUT
from rsa.command.plugins import GROUP, add_commands

COMMAND = """
import typer

def hello(name: str) -> None:
    "Greet somebody."
    typer.echo(f"hello {name}")

def again(name: str) -> None:
    "Greet somebody once more."
    typer.echo(f"hello again {name}")
"""


def test_those_about_measuring_are_brought_by_entry_points() -> None:
    assert {"eval", "compare", "report", "score"} <= {point.name for point in metadata.entry_points(group=GROUP)}
    assert LEFT_OUT == []


def test_what_cannot_be_loaded_or_is_there_already_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        metadata.EntryPoint("gone", "no_such_module:run", GROUP),
        metadata.EntryPoint("solve", "typer:echo", GROUP),
        metadata.EntryPoint("cwd", "os:getcwd", GROUP),
        metadata.EntryPoint("lost.cwd", "os:getcwd", GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda **which: points)
    app = typer.Typer()
    app.command("solve")(lambda: None)
    gone, twice, lost = add_commands(app)
    assert gone == (
        "the command gone of no_such_module:run cannot be loaded (ModuleNotFoundError: No module named "
        "'no_such_module'): install no_such_module:run again"
    )
    assert twice == "typer:echo brings a command that is there already: solve"
    assert lost == "os:getcwd brings a command below one that is not there: lost.cwd"
    assert CliRunner().invoke(app, ["cwd"]).exit_code == 0


def test_a_package_of_ones_own_adds_a_command_and_a_broken_one_a_line(tmp_path: Path) -> None:
    info = tmp_path / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nhello = greeter:hello\nbye = greeter:bye\n")
    (tmp_path / "greeter.py").write_text(COMMAND)
    done = run([sys.executable, "-m", "rsa", "hello", "you"], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "hello you\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the command bye of greeter cannot be loaded (AttributeError: ")


def test_a_command_may_stand_below_one_that_takes_arguments_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeter.py").write_text(COMMAND)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        metadata.EntryPoint("hello.again", "greeter:again", GROUP),
        metadata.EntryPoint("hello", "greeter:hello", GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda **which: points)
    app = typer.Typer()
    app.command("other")(lambda: None)
    assert add_commands(app) == []
    said = [CliRunner().invoke(app, words).stdout for words in (["hello", "you"], ["hello", "again", "you"])]
    assert said == ["hello you\n", "hello again you\n"]
    usage = CliRunner().invoke(app, ["hello", "again", "--help"]).stdout
    assert "hello again [OPTIONS]" in usage
    assert "Greet somebody once more." in usage
