"""Commands of `rsa` in this process, without a process for each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuzzing.core import AmissError, Case
from typer.testing import CliRunner

SAID = "error: "
LONGEST_LINE = 2000
"""Characters of an error: more is no line for people, but what they gave, given back."""


def command(words: Sequence[str], case: Case, **runner: Any) -> str:
    """Run `rsa` with these words. Returns "right" or "refused". Raises AmissError for an exit code that is none of
    ours, and for an error that is more than a line; whatever the command raises as it is."""
    from rsa.command.cli import app

    result = CliRunner().invoke(app, list(words), **runner)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code in (0, 3):
        return "right"
    if result.exit_code not in (1, 2, 4):
        raise AmissError("code", f"code {result.exit_code}", f"exit code {result.exit_code}: {result.stderr!r}", case)
    if "Usage: " in result.output or "─ Error ─" in result.stderr:  # what typer says of flags
        return "refused"
    if result.exit_code == 4 and "!! " in result.stdout:  # what a report found amiss
        return "refused"
    said = [line for line in result.stderr.splitlines() if line.startswith(SAID)]
    if result.exit_code == 1 or not said:
        what = f"exit code {result.exit_code} without a line that begins with {SAID!r}: {result.stderr[:300]!r}"
        raise AmissError("code", f"code {result.exit_code} without an error", what, case)
    after = result.stderr.partition(said[0])[2].strip("\n")
    notes = [line for line in after.splitlines() if not line.startswith(("what was done", "go on with"))]
    if notes or len(said[0]) > LONGEST_LINE:
        what = "more than a line" if notes else "too long a line"
        raise AmissError("message", what, f"{what}: {result.stderr[:300]!r}", case)
    return "refused"
