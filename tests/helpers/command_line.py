"""`rsa` in this process, as its command line: what it was given, what it said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from typer.testing import CliRunner

from rsa.command.cli import app


class Ended(NamedTuple):
    """What a command left behind: its exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Standard error with boxes and line breaks taken out."""
        return " ".join(self.err.replace("│", " ").split())


def rsa(*words: object, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Ended:
    """Run it with these words. An error that is not for people comes out here."""
    done = CliRunner().invoke(app, [str(word) for word in words], input=stdin, env=env, prog_name="rsa")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return Ended(done.exit_code, done.stdout, done.stderr)
