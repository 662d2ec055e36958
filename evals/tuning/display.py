"""What a person sees of a recording while it runs: how far it is, and what failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from evals.display import Lines, LiveLine, notices
from evals.events import EvalEvent, EvalFinished, EvalStarted, OnEvent, RunEnded
from rsa.command.display import Display
from rsa.command.terminal import can_redraw


class _Lines(Lines):
    """Says how far it is if nothing was said for a while."""

    def show(self, event: EvalEvent) -> None:
        with self._turn:
            self._tally.update(event)
            if not isinstance(event, EvalStarted):
                self._say(*notices(event))


class _LiveLine(LiveLine):
    """A bar and a line that are redrawn, and nothing that stays."""

    def show(self, event: EvalEvent) -> None:
        if isinstance(event, RunEnded):
            super().show(event)
        elif not isinstance(event, EvalFinished):
            self._tally.update(event)


@contextmanager
def watching(quiet: bool) -> Iterator[OnEvent | None]:
    """Whom to tell the events of an evaluation that is a step of a tuning."""
    if quiet:
        yield None
        return
    console = Console(stderr=True)
    display: Display[EvalEvent] = _LiveLine(console) if can_redraw(console) else _Lines(console)
    with display:
        yield display.show
