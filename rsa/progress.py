"""The state of a run as a display needs it, built up from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.api import Section
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    Event,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from rsa.results import Check, RoundKind, RunResult, Status, Vote

_SPEED_WINDOW_S = 5.0
"""Speed is that of the last few seconds: prefill and stragglers make the average of a run a poor guide."""


@dataclass(slots=True)
class Row:
    """One candidate of the current round. `status` is None while it runs; `text` is the newest of what it writes.

    asked  of one that ended: whether an answer was wanted of it.
    """

    index: int
    parents: tuple[int, ...] = ()
    tokens: int = 0
    section: Section = "reasoning"
    text: str = ""
    status: Status | None = None
    answer: str | None = None
    check: Check | None = None
    asked: bool = True
    started_s: float | None = None
    finished_s: float | None = None

    def tokens_per_s(self, now_s: float) -> float:
        if self.started_s is None:
            return 0.0
        seconds = (now_s if self.finished_s is None else self.finished_s) - self.started_s
        return self.tokens / seconds if seconds > 0 else 0.0


@dataclass(slots=True)
class Progress:
    """What is known so far. Feed it every event with `update`; times are seconds since the run started.

    What comes late, of a round that is over or a candidate that ended, changes nothing.
    """

    started: bool = False
    rounds_planned: int = 1
    round: int = 0
    kind: RoundKind = "population"
    beta: int = 0
    rows: list[Row] = field(default_factory=list)
    votes: tuple[Vote, ...] = ()
    tokens_before: int = 0  # of the rounds that ended
    tokens_replayed: int = 0  # of candidates that a resumed run found in its log: no measure of its speed
    finished_tokens: list[int] = field(default_factory=list)  # lengths of the candidates that ended, of all rounds
    result: RunResult | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def tokens(self) -> int:
        """Generated so far, all candidates of all rounds."""
        return self.tokens_before + sum(row.tokens for row in self.rows)

    @property
    def running(self) -> int:
        return sum(row.status is None for row in self.rows)

    def update(self, event: Event) -> None:
        """Take the next event of the run."""
        match event:
            case RunStarted():
                self.started = True
                self.rounds_planned = event.config.t + 1
                self.beta = event.beta
            case RoundStarted():
                self.tokens_before = self.tokens
                self.round, self.kind, self.votes = event.round, event.kind, ()
                self.rows = [Row(i, parents) for i, parents in enumerate(event.subsets)]
            case CandidateStarted() | CandidateProgress():
                row = self._row(event.kind, event.round, event.index)
                if row is not None and isinstance(event, CandidateStarted):
                    row.started_s = event.at_s
                elif row is not None and isinstance(event, CandidateProgress):
                    row.tokens, row.section, row.text = event.tokens, event.section, event.text
            case CandidateFinished():
                self._finish(event)
            case RoundFinished():
                self.votes = event.votes
            case RunFinished():
                self.result = event.result
            case _:
                self.beta = getattr(event, "beta", self.beta)
        self._sample(event.at_s)

    def tokens_per_s(self) -> float:
        """Of all candidates together, over the last few seconds."""
        if len(self._samples) < 2:
            return 0.0
        (from_s, before), (to_s, after) = self._samples[0], self._samples[-1]
        return (after - before) / (to_s - from_s) if to_s > from_s else 0.0

    def eta_s(self) -> float | None:
        """Seconds to the end at the present speed, if candidates go on to be as long as those before; None: unknown."""
        speed = self.tokens_per_s()
        if not self.rows or speed <= 0:
            return None
        finished = self.finished_tokens
        typical = sum(finished) / len(finished) if finished else float(self.beta)
        here = sum(max(typical - row.tokens, 0.0) for row in self.rows if row.status is None)
        rounds_left = max(self.rounds_planned - 1 - self.round, 0)
        return (here + rounds_left * len(self.rows) * typical) / speed

    def _row(self, kind: RoundKind, number: int, index: int) -> Row | None:
        """The row of a candidate that still runs."""
        current = (kind, number) == (self.kind, self.round) and index < len(self.rows)
        return self.rows[index] if current and self.rows[index].status is None else None

    def _finish(self, event: CandidateFinished) -> None:
        candidate = event.candidate
        row = self._row(event.kind, candidate.round, candidate.index)
        if row is None:
            return
        replayed = row.started_s is None
        row.status, row.answer, row.check = candidate.status, candidate.answer, candidate.check
        row.asked = candidate.asked
        row.started_s, row.finished_s = candidate.started_s, candidate.finished_s
        if candidate.completion is not None:
            row.tokens = candidate.completion.usage.completion_tokens
            self.finished_tokens.append(row.tokens)
            self.tokens_replayed += row.tokens if replayed else 0

    def _sample(self, at_s: float) -> None:
        at_s = max(at_s, self._samples[-1][0]) if self._samples else at_s
        self._samples.append((at_s, self.tokens - self.tokens_replayed))
        while at_s - self._samples[0][0] > _SPEED_WINDOW_S:
            self._samples.popleft()
