"""The one answer: whose it is, from the rounds that were played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsa.results import Candidate, Round, Vote


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidate that answers for the run, and the round it is of."""

    round: Round
    candidate: Candidate


class SelectPolicy:
    """Chooses a candidate of a round that has votes. The base takes the leader of the vote.

    aggregates   one more aggregation of the last round is played, and its answer taken, if it gives one.
    confidence   it needs to know how likely the candidates' tokens were (`Candidate.confidence`).
    """

    aggregates = False
    confidence = False

    def choose(self, rounds: Sequence[Round]) -> Candidate:
        """A candidate with an answer, of the last of `rounds`, which has votes; those before may have none."""
        return leading(rounds[-1], rounds[-1].votes[0])


class Majority(SelectPolicy):
    """The leader of the vote, ties to the earliest candidate: the plain method."""


class Aggregate(SelectPolicy):
    """One more aggregation, at low temperature; without an answer of it, the vote."""

    aggregates = True


class First(SelectPolicy):
    """The earliest candidate with an answer."""

    def choose(self, rounds: Sequence[Round]) -> Candidate:
        return next(candidate for candidate in rounds[-1].candidates if candidate.answer is not None)


def leading(played: Round, vote: Vote) -> Candidate:
    """The candidate whose answer stands for a vote: its earliest."""
    return played.candidates[vote.candidates[0]]


def choose(rounds: Sequence[Round], policy: SelectPolicy, last: Round | None = None) -> Chosen | None:
    """The answer of `last`, the one more aggregation of a policy that has it, if it gave one; else what the policy
    chooses of the latest round that has any answer, and of those before it; None if none has."""
    if last is not None and last.votes:
        return Chosen(last, leading(last, last.votes[0]))
    for end in range(len(rounds), 0, -1):
        if rounds[end - 1].votes:
            candidate = policy.choose(rounds[:end])
            return Chosen(rounds[candidate.round], candidate)
    return None


def fallbacks(choice: Chosen | None, rounds: Sequence[Round], last: Round | None) -> list[str]:
    """What a person should know about where the answer comes from."""
    messages = []
    if last is not None and not last.votes:
        messages.append("the last aggregation gave no answer: the answer is the vote of the round before it")
    if choice is not None and choice.round.round < rounds[-1].round and not rounds[-1].votes:
        messages.append(f"round {rounds[-1].round} gave no answer: the answer is of round {choice.round.round}")
    return messages
