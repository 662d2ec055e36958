"""The events of one process, read one after the other: what may come after what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from simulation.play import Process, candidates_in, cut_short, name_of, not_begun, tokens_of

from rsa import Candidate
from rsa.events import (
    BudgetsLowered,
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    Event,
    LimitHit,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from rsa.results import Decision

Place = tuple[str, int]
"""A round: its kind and its number."""


def check_events(process: Process, n: int) -> None:
    """Raises AssertionError for the first event of a process that is not in order; rounds have `n` candidates."""
    first, *rest = process.events
    assert isinstance(first, RunStarted), f"the first event is {first.type}"
    assert first.resumed or not process.logged, "it went on, and does not say so"
    reading, at_s = _Reading(n, known=set(candidates_in(process.logged))), 0.0
    for event in rest:
        assert event.at_s >= at_s, f"{event.type} at {event.at_s} s, after {at_s} s"
        at_s = event.at_s
        reading.take(event)
    assert process.ended != "finished" or reading.finished, "it finished without a last event"


class _Reading:
    """What is known after some events.

    known  candidates that need not start, since the log of an earlier process has them.
    """

    def __init__(self, n: int, known: set[str]) -> None:
        self.n, self.known = n, known
        self.subsets: Sequence[tuple[int, ...]] = ()
        self.open: Place | None = None
        self.rounds: list[RoundFinished] = []
        self.started: set[int] = set()
        self.ended: dict[int, Candidate] = {}
        self.was_cut: Decision | None = None
        self.limits: set[tuple[str, int, str]] = set()
        self.last_round = self.finished = False

    def take(self, event: Event) -> None:
        assert not self.finished, f"{event.type} after the last event"
        match event:
            case RoundStarted():
                self.begin(event)
            case CandidateStarted():
                self.start(event)
            case CandidateProgress():
                name = self.inside((event.kind, event.round), event.index)
                assert event.index in self.started, f"{name} goes on before it started"
                assert event.index not in self.ended, f"{name} goes on after its end"
            case CandidateFinished():
                self.end(event)
            case RoundFinished():
                self.close(event)
            case PolicyDecided(decision=Decision(action="cut")) as cut:
                self.cut(cut.decision)
            case PolicyDecided(decision=Decision(action="conclude") as decision):
                assert self.open == ("population", decision.round), f"{decision} within {self.open}"
            case LimitHit():
                hit = (event.limit, event.round, event.action)
                assert hit not in self.limits, f"{hit} twice"
                assert (event.limit, event.round, "cancel") not in self.limits, f"{hit} after all was cancelled"
                self.limits.add(hit)
            case _:
                self.between(event)

    def between(self, event: Event) -> None:
        """Events that no round is open for."""
        assert self.open is None, f"{event.type} in the midst of a round"
        match event:
            case PolicyDecided():
                last = self.rounds[-1]
                decision = event.decision
                assert (decision.round, decision.vote) == (last.round, last.votes[0]), (
                    "another agreement than was counted"
                )
                self.last_round = True
            case RunFinished():
                self.finished = True
            case BudgetsLowered():
                assert not self.rounds, "budgets lowered after the beginning"
            case _:
                assert isinstance(event, Warned), f"{event.type} twice"

    def begin(self, event: RoundStarted) -> None:
        assert self.open is None, f"round {event.round} before the end of another"
        assert event.round == len(self.rounds), f"round {event.round} after {len(self.rounds)} rounds"
        assert not self.last_round, f"round {event.round} after the last round"
        if event.kind == "match":
            assert 0 < len(event.subsets) <= self.n, "more matches than candidates"
            assert all(one == other[::-1] for one, other in pairwise(event.subsets[:2])), "not in both orders"
        else:
            assert len(event.subsets) == (self.n if event.kind == "population" else 1), "a round of another size"
        self.open, self.subsets = (event.kind, event.round), event.subsets
        self.started, self.ended, self.was_cut = set(), {}, None

    def start(self, event: CandidateStarted) -> None:
        name = self.inside((event.kind, event.round), event.index)
        assert event.index not in self.started, f"{name} started twice"
        assert event.index not in self.ended, f"{name} started after its end"
        assert event.parents == self.subsets[event.index], f"{name} has other parents"
        self.started.add(event.index)

    def end(self, event: CandidateFinished) -> None:
        at, name = event.candidate.index, name_of(event.kind, event.candidate)
        self.inside((event.kind, event.candidate.round), at)
        assert at not in self.ended, f"{name} finished twice"
        begun = at in self.started or name in self.known
        assert begun or not_begun(event.candidate), f"{name} finished before it started"
        self.ended[at] = event.candidate

    def cut(self, decision: Decision) -> None:
        assert self.open == ("population", decision.round), f"{decision} within {self.open}"
        assert self.was_cut is None, f"round {decision.round} is cut twice"
        assert not any(candidate.status == "cut" for candidate in self.ended.values()), "somebody was cut before"
        self.was_cut = decision

    def close(self, event: RoundFinished) -> None:
        assert self.open == (event.kind, event.round), f"round {event.round} ends within {self.open}"
        candidates = [cut_short(self.ended[at], self.was_cut) for at in range(len(self.subsets))]
        assert self.was_cut is not None or not any(each.status == "cut" for each in candidates), "who cut them?"
        statuses = Counter(candidate.status for candidate in candidates)
        assert event.statuses == statuses, f"{event.statuses} is told of {dict(statuses)}"
        assert event.usage.completion_tokens == tokens_of(candidates), "tokens of the round do not add up"
        self.open, self.last_round = None, event.kind == "selection"
        self.rounds.append(event)

    def inside(self, place: Place, index: int) -> str:
        """A candidate's name; it must be of the round that is open."""
        assert self.open == place, f"candidate {index} of {place} within {self.open}"
        return f"candidate {index} of {place}"
