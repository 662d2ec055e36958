"""The state of a run as a display needs it, built up from its events."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from rsa.command.pace import Pace, Plan, Row
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    Event,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from rsa.results import Decision, RoundKind, RunResult, Vote

_SPEED_WINDOW_S = 5.0
"""Seconds that the shown speed looks back: prefill and stragglers make the average of a run a poor guide."""


@dataclass(slots=True)
class Progress:
    """What is known so far. Feed it every event with `update`; times are seconds since the run started.

    What comes late, of a round that is over or a candidate that ended, changes nothing.
    """

    started: bool = False
    rounds_planned: int = 1
    round: int = 0
    kind: RoundKind = "population"
    rows: list[Row] = field(default_factory=list)
    votes: tuple[Vote, ...] = ()
    tokens_before: int = 0  # of the rounds that ended
    tokens_replayed: int = 0  # of candidates that a resumed run found in its log: no measure of its speed
    result: RunResult | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    _pace: Pace = field(default_factory=Pace)
    _plan: Plan = field(default_factory=Plan)

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
                tail_tokens = event.budgets.beta if event.config.carry == "full" else event.budgets.tau
                self._plan = Plan(n=event.config.n, c=event.config.c, beta=event.budgets.beta, tail_tokens=tail_tokens)
            case RoundStarted():
                self.tokens_before = self.tokens
                self.round, self.kind, self.votes = event.round, event.kind, ()
                self.rows = [Row(i, parents) for i, parents in enumerate(event.subsets)]
                self._pace.begin_round(event.at_s)
            case CandidateStarted() | CandidateProgress():
                row = self._row(event.kind, event.round, event.index)
                if row is not None and isinstance(event, CandidateStarted):
                    row.started_s, row.prompt_tokens = event.at_s, event.prompt_tokens
                elif row is not None and isinstance(event, CandidateProgress):
                    row.tokens, row.section, row.text = event.tokens, event.section, event.text
            case CandidateFinished():
                self._finish(event)
            case PolicyDecided():
                self._cut(event.decision)
            case RoundFinished():
                self.votes = event.votes
            case RunFinished():
                self.result = event.result
            case _:
                pass
        self._sample(event.at_s)
        self._pace.update(event.at_s, self.rows)

    def tokens_per_s(self) -> float:
        """Of all candidates together, over the last few seconds."""
        if len(self._samples) < 2:
            return 0.0
        (from_s, before), (to_s, after) = self._samples[0], self._samples[-1]
        return (after - before) / (to_s - from_s) if to_s > from_s else 0.0

    def eta_s(self) -> float | None:
        """Seconds to the end, if rounds to come are like the last one; None while that would be a guess."""
        rounds_left = 0 if self.kind != "population" else max(self.rounds_planned - 1 - self.round, 0)
        return self._pace.eta_s(self.rows, replace(self._plan, rounds_left=rounds_left))

    def _row(self, kind: RoundKind, number: int, index: int) -> Row | None:
        """The row of a candidate that still runs."""
        current = (kind, number) == (self.kind, self.round) and index < len(self.rows)
        return self.rows[index] if current and self.rows[index].status is None else None

    def _finish(self, event: CandidateFinished) -> None:
        candidate = event.candidate
        row = self._row(event.kind, candidate.round, candidate.index)
        if row is None:
            return
        row.replayed = row.started_s is None
        row.status, row.answer, row.check = candidate.status, candidate.answer, candidate.check
        row.asked = candidate.asked
        row.started_s, row.finished_s = candidate.started_s, candidate.finished_s
        if candidate.completion is not None:
            written = candidate.completion.usage.completion_tokens
            row.tokens = max(row.tokens, written) if candidate.status == "cut" else written
            self._pace.lengths.append(row.tokens)
            self.tokens_replayed += row.tokens if row.replayed else 0

    def _cut(self, decision: Decision) -> None:
        """Who had ended with more tokens than a round was cut at does not count as ended."""
        if decision.action == "cut" and decision.at is not None and decision.wave and decision.round == self.round:
            for row in self.rows[slice(*decision.wave)]:
                if row.status == "ok" and row.tokens > decision.at:
                    row.status, row.answer, row.check = "cut", None, None

    def _sample(self, at_s: float) -> None:
        at_s = max(at_s, self._samples[-1][0]) if self._samples else at_s
        self._samples.append((at_s, self.tokens - self.tokens_replayed))
        while at_s - self._samples[0][0] > _SPEED_WINDOW_S:
            self._samples.popleft()
