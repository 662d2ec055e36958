"""A run's events as lines that a person wants to read while it thinks: what streams carry as reasoning."""

from __future__ import annotations

from rsa.answers.checking import mark_of
from rsa.events import (
    BudgetsLowered,
    CandidateFinished,
    CandidateProgress,
    Event,
    LimitHit,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunStarted,
    Warned,
)
from rsa.policies.words import in_words
from rsa.results import Candidate, RoundKind, Vote
from rsa.words import listed, plural, shortened

SHOWN_VOTES = 3
SHOWN_CHARACTERS = 60
"""The most characters of an answer in a line about it."""
REPORT_EVERY_S = 5.0
"""Seconds between two lines that only say how many tokens there are."""


class ProgressLines:
    """Feed it every event of a run; it gives the lines to show, each with its line break, or the empty text."""

    def __init__(self) -> None:
        self._rounds = 1
        self._tokens: dict[int, int] = {}  # of the candidates of the round, as far as they are
        self._running = 0
        self._reported_s = 0.0

    def feed(self, event: Event) -> str:
        match event:
            case RunStarted():
                self._rounds = event.config.t + 1
                return "Going on with the run.\n" if event.resumed else ""
            case BudgetsLowered() | Warned():
                return f"Note: {event.message}.\n"
            case RoundStarted():
                return self._begin(event)
            case CandidateProgress():
                return self._report(event)
            case CandidateFinished():
                return self._ended(event.candidate, event.kind)
            case RoundFinished():
                return _outcome(event)
            case LimitHit():
                return f"Limit {event.limit} reached ({event.used:,.0f} of {event.allowed:,.0f}).\n"
            case PolicyDecided():
                return f"{in_words(event.decision)}\n"
            case _:
                return ""

    def _begin(self, event: RoundStarted) -> str:
        self._tokens, self._running, self._reported_s = {}, len(event.subsets), event.at_s
        if event.kind == "selection":
            return "One more attempt reads the last ones, and answers.\n"
        if event.kind == "match":
            return f"Answers of the last round are compared in pairs: {plural(len(event.subsets), 'judgement')}.\n"
        of = f"Round {event.round + 1} of {self._rounds}: {plural(len(event.subsets), 'attempt')}"
        if event.round == 0:
            return f"{of}.\n"
        return f"{of}, each reading the ends of {len(event.subsets[0])} of the last round.\n"

    def _report(self, event: CandidateProgress) -> str:
        self._tokens[event.index] = event.tokens
        if event.at_s - self._reported_s < REPORT_EVERY_S:
            return ""
        self._reported_s = event.at_s
        return f"{sum(self._tokens.values()):,} tokens so far; {plural(self._running, 'attempt')} still thinking.\n"

    def _ended(self, candidate: Candidate, kind: RoundKind) -> str:
        self._running -= 1
        tokens = candidate.completion.usage.completion_tokens if candidate.completion else 0
        self._tokens[candidate.index] = tokens
        who = f"{'Judgement' if kind == 'match' else 'Attempt'} {candidate.index + 1}"
        match candidate.status:
            case "failed":
                return f"{who} failed: {candidate.error}.\n"
            case "degenerate":
                return f"{who} repeated itself and was cut off after {tokens:,} tokens.\n"
            case "cut" if candidate.completion is None:
                return f"{who} was not begun: it was not waited for.\n"
            case "cut":
                return f"{who} was cut short at {tokens:,} tokens: it was not waited for.\n"
            case _ if candidate.answer is None:
                return f"{who}: {tokens:,} tokens{', without an answer' if candidate.asked else ''}.\n"
            case _:
                mark = f" ({mark_of(candidate.check)})" if candidate.check else ""
                what = "prefers" if kind == "match" else "answer"
                return f"{who}: {tokens:,} tokens, {what} {_short(candidate.answer)}{mark}.\n"


def _outcome(event: RoundFinished) -> str:
    if event.kind == "match":
        told = [f"{_short(vote.answer)} ({plural(vote.count, 'time')})" for vote in event.votes]
        return f"Preferred: {listed(told, SHOWN_VOTES, '; ')}.\n" if told else "No judgement says which is better.\n"
    if not event.votes:
        return "No attempt gave an answer.\n" if event.asked else ""
    return f"Votes: {listed([_vote(vote) for vote in event.votes], SHOWN_VOTES, '; ')}.\n"


def _vote(vote: Vote) -> str:
    return f"{_short(vote.answer)} by {vote.count} of {vote.of}"


def _short(answer: str) -> str:
    return shortened(" ".join(answer.split()), SHOWN_CHARACTERS)
