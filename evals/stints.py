"""What a place is given and what it gives back: one run of a problem, for as far as it may go now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.data.question import Question
from evals.run_scores import RunScores
from rsa.limits import FREE, Leave
from rsa.results import Round, RunResult


@dataclass(frozen=True, slots=True)
class Stint:
    """A run, a problem in an epoch, that is to go as far as it has leave to.

    number  of the run, in order of the data, all epochs of a problem together.
    unbegun why it is not begun any more; None: it is played.
    """

    number: int
    question: Question
    epoch: int
    leave: Leave = FREE
    unbegun: str | None = None


@dataclass(frozen=True, slots=True)
class RoundPlayed:
    """A round that was played: what it took, and how many of its candidates agree on the leading answer."""

    tokens: int
    leader: int


@dataclass(frozen=True, slots=True)
class Headway:
    """How far a run has got. `ended`: it plays no more rounds, whatever leave it is given."""

    rounds: tuple[RoundPlayed, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stint.

    scores  of a run that is done; None: it paused.
    failed  what there is of a run that failed as a whole.
    """

    scores: RunScores | None
    headway: Headway
    failed: RunResult | None = None


def headway_of(rounds: Sequence[Round]) -> Headway:
    """Of a run that paused after these rounds."""
    return Headway(tuple(_played(each) for each in rounds))


def ended(result: RunResult | None) -> Headway:
    """Of a run that ended so; None: it failed before it had a round. What followed the last round counts with it."""
    if result is None:
        return Headway(ended=True)
    *before, last = [_played(each) for each in result.rounds]
    more = sum(played.usage.completion_tokens for played in result.played[len(result.rounds) :])
    return Headway((*before, RoundPlayed(last.tokens + more, last.leader)), ended=True)


def _played(played: Round) -> RoundPlayed:
    return RoundPlayed(played.usage.completion_tokens, played.votes[0].count if played.votes else 0)
