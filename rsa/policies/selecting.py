"""The one answer: whose it is, from what a run has played."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from rsa.policies import tournament
from rsa.policies.ends import standing
from rsa.policies.tournament import Pair
from rsa.policies.trust import ranks
from rsa.words import listed, plural, shortened

if TYPE_CHECKING:
    from rsa.results import Candidate, PooledVote, Round, RunResult

LEAST_TEMPERATURE = 0.05
"""The lowest of `weighted`: with it, the surest candidate outweighs all others of any round, and with less, weights
would become numbers that are too large."""
_SHOWN_ANSWERS, _SHOWN_CHARACTERS = 4, 60


@dataclass(frozen=True, slots=True)
class Played:
    """What a run has played: all that its answer follows from.

    rounds     the population of every round, round 0 first.
    selection  the one more aggregation of a policy that has it.
    matches    the rounds of matches between answers of the last round, of a policy that has them.
    pooled     votes over all rounds, for a policy that pools.
    """

    rounds: tuple[Round, ...]
    selection: Round | None = None
    matches: tuple[Round, ...] = ()
    pooled: tuple[PooledVote, ...] = ()

    @classmethod
    def of(cls, result: RunResult) -> Self:
        return cls(result.rounds, result.selection, result.matches, result.pooled)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidate that answers for the run, and the round it is of."""

    round: Round
    candidate: Candidate


class SelectPolicy:
    """Chooses a candidate of a round that has votes. The base takes the leader of the vote.

    aggregates   one more aggregation of the last round is played, and its answer taken, if it gives one.
    compares     rounds of matches are played between answers of the last round, as `meeting` says.
    confidence   it needs to know how likely the candidates' tokens were (`Candidate.confidence`).
    pools        it needs votes over all rounds (`Played.pooled`).
    every_round  it needs answers of every round, not of the last alone.
    """

    aggregates = False
    compares = False
    confidence = False
    pools = False
    every_round = False

    @property
    def goes_on(self) -> bool:
        """Whether something is played after the last round."""
        return self.aggregates or self.compares

    def choose(self, played: Played) -> Candidate:
        """A candidate with an answer; the last of `played.rounds` has votes, those before may have none."""
        last = played.rounds[-1]
        return standing(last.votes[0].candidates, last)

    def meeting(self, last: Round, matches: Sequence[Round]) -> tuple[Pair, ...]:
        """After these rounds of matches, those of the next one: of each both candidates of the last round, by their
        indices, in the order of the prompt. None of them if there is no further round."""
        return ()

    def why(self, played: Played) -> str:
        """What it went by, in a sentence for people, where that is not the votes of a round; else the empty text.
        The last of `played.rounds` has votes."""
        return ""


class Majority(SelectPolicy):
    """The leader of the vote, ties to the earliest candidate: the plain method."""


class Weighted(SelectPolicy):
    """The answer whose voters are surest together. A vote weighs as much as its candidate's place among those of the
    round that answered, the least sure first, from 1 (`rsa.policies.trust.ranks`), to the power of 1 / `temperature`:
    the higher, the more equal are votes. Ties go to more votes, then to the earliest candidate."""

    confidence = True

    def __init__(self, temperature: float = 1) -> None:
        if temperature < LEAST_TEMPERATURE:
            raise ValueError(f"{temperature:g} is no temperature: {LEAST_TEMPERATURE:g} or more")
        self._power = 1 / temperature

    def weights(self, played: Round) -> list[float]:
        """Of the round's votes, in their order."""
        voters = [candidate for candidate in played.candidates if candidate.answer is not None]
        places = zip(voters, ranks(voters), strict=True)
        weight = {candidate.index: place**self._power for candidate, place in places}
        return [math.fsum(weight[member] for member in vote.candidates) for vote in played.votes]

    def choose(self, played: Played) -> Candidate:
        last = played.rounds[-1]
        weights = self.weights(last)
        return standing(last.votes[weights.index(max(weights))].candidates, last)

    def why(self, played: Played) -> str:
        last = played.rounds[-1]
        if len(last.votes) == 1:
            return ""
        weights = self.weights(last)
        order = sorted(range(len(weights)), key=lambda place: -weights[place])
        shares = [f"{_brief(last.votes[place].answer)} has {weights[place] / sum(weights):.0%}" for place in order]
        return f"of the weight of confidence, {listed(shares, _SHOWN_ANSWERS)}"


class Pooled(SelectPolicy):
    """The answer with most votes of all rounds together, each candidate of each round having one; as it wrote who
    stands for those of the latest round that has it. Ties go to more votes in the latest round, then in the one before
    it, and so on, then to the earliest candidate there."""

    pools = True
    every_round = True

    def choose(self, played: Played) -> Candidate:
        if not played.pooled:
            return super().choose(played)
        number, indices = played.pooled[0].latest
        return standing(indices, played.rounds[number])

    def why(self, played: Played) -> str:
        if len(played.pooled) < 2:
            return ""
        votes = [f"{_brief(vote.answer)} has {vote.count}" for vote in played.pooled]
        return f"of {played.pooled[0].of} votes of all rounds, {listed(votes, _SHOWN_ANSWERS)}"


class Tournament(SelectPolicy):
    """The answer with most points in a tournament (`rsa.policies.tournament`) of those of the last round; ties go to
    more votes, then to the earliest candidate. Without a match, the leader of the vote.

    rounds  of matches at most; None: as many as suit the number of answers.
    """

    compares = True

    def __init__(self, rounds: float | None = None) -> None:
        if rounds is not None and (rounds < 1 or rounds != int(rounds)):
            raise ValueError(f"{rounds:g} is no number of rounds: 1 or more")
        self._rounds = None if rounds is None else int(rounds)

    def meeting(self, last: Round, matches: Sequence[Round]) -> tuple[Pair, ...]:
        return tournament.meeting(last, matches, self._rounds)

    def choose(self, played: Played) -> Candidate:
        last = played.rounds[-1]
        points = tournament.points(last, played.matches)
        return tournament.contenders(last)[points.index(max(points))]

    def why(self, played: Played) -> str:
        last = played.rounds[-1]
        if not played.matches:
            return ""
        points = tournament.points(last, played.matches)
        contending = tournament.contenders(last)
        order = sorted(range(len(points)), key=lambda place: -points[place])
        told = [f"{_brief(str(contending[place].answer))} has {points[place]:g}" for place in order]
        matches = sum(len(each.candidates) for each in played.matches) // 2
        return f"of the points of {plural(matches, 'match', 'matches')}, {listed(told, _SHOWN_ANSWERS)}"


class Aggregate(SelectPolicy):
    """One more aggregation, at low temperature; without an answer of it, the vote."""

    aggregates = True


class First(SelectPolicy):
    """The earliest candidate with an answer."""

    def choose(self, played: Played) -> Candidate:
        return next(candidate for candidate in played.rounds[-1].candidates if candidate.answer is not None)


def choose(played: Played, policy: SelectPolicy) -> Chosen | None:
    """The answer of the one more aggregation of a policy that has it, if it gave one; else what the policy chooses of
    the latest round that has any answer, and of those before it; None if none has."""
    if played.selection is not None and played.selection.votes:
        return Chosen(played.selection, standing(played.selection.votes[0].candidates, played.selection))
    answered = up_to_answers(played)
    if answered is None:
        return None
    candidate = policy.choose(answered)
    return Chosen(played.rounds[candidate.round], candidate)


def up_to_answers(played: Played) -> Played | None:
    """Up to the latest round that has any answer; None if none has."""
    ends = (end for end in range(len(played.rounds), 0, -1) if played.rounds[end - 1].votes)
    end = next(ends, None)
    return None if end is None else replace(played, rounds=played.rounds[:end])


def fallbacks(choice: Chosen | None, played: Played) -> list[str]:
    """What a person should know about where the answer comes from."""
    messages, rounds = [], played.rounds
    if played.selection is not None and not played.selection.votes:
        messages.append("the last aggregation gave no answer: the answer is the vote of the round before it")
    if played.matches and not any(each.votes for each in played.matches):
        messages.append("no match said which answer is better: the answer is that of the vote")
    if choice is not None and choice.round.round < rounds[-1].round and not rounds[-1].votes:
        messages.append(f"round {rounds[-1].round} gave no answer: the answer is of round {choice.round.round}")
    return messages


def _brief(answer: str) -> str:
    return shortened(" ".join(answer.split()), _SHOWN_CHARACTERS)
