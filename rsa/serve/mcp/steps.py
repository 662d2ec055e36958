"""A run's progress as the protocol tells it: a number that grows, how large it will be, and a line for people."""

from __future__ import annotations

from dataclasses import dataclass

from rsa.events import CandidateFinished, CandidateProgress, Event, RoundFinished, RoundStarted, RunFinished, RunStarted
from rsa.serve.progress import ProgressLines

REPORT_EVERY_S = 1.0
"""Seconds between two steps that only say that candidates have grown."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is: candidates, the parts of those that still run counted by the tokens of their budget."""

    done: float
    total: float
    line: str | None


class Steps:
    """Feed it every event of a run; it gives a step where there is something to tell. `done` never falls."""

    def __init__(self) -> None:
        self._lines = ProgressLines()
        self._total = self._done = self._told_s = 0.0
        self._ended = self._beta = 0
        self._running: dict[int, float] = {}

    def feed(self, event: Event) -> Step | None:
        line = self._lines.feed(event).strip() or None
        match event:
            case RunStarted():
                config = event.config
                self._total = float(config.n * (config.t + 1 + (config.select == "aggregate")))
                self._beta = event.budgets.beta
            case RoundStarted():
                self._running = {}
            case CandidateProgress():
                self._running[event.index] = min(event.tokens / self._beta, 1.0) * 0.99
            case CandidateFinished():
                self._running.pop(event.candidate.index, None)
                self._ended += 1
            case RunFinished():
                self._ended, self._running = int(self._total), {}
            case _:
                pass
        self._done = max(self._done, min(self._ended + sum(self._running.values()), self._total))
        lively = isinstance(event, CandidateProgress) and event.at_s - self._told_s >= REPORT_EVERY_S
        if line is None and not lively and not isinstance(event, RoundStarted | RoundFinished | RunFinished):
            return None
        self._told_s = event.at_s
        return Step(self._done, self._total, line)
