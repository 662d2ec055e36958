"""When to stop: inside a round, and between rounds.

Inside a round, candidates count as ended in the order of their tokens, never of the clock: a policy is asked how the
round stands when every candidate has written `at` tokens, or has ended with no more. So it decides the same of a live
run, of a resumed one and of a recorded one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rsa.policies.posterior import leads_one, leads_two
from rsa.policies.shares import share_of

if TYPE_CHECKING:
    from rsa.results import Round, Vote


@dataclass(frozen=True, slots=True)
class Standing:
    """A round when its candidates have written `at` tokens.

    n        candidates of the round.
    votes    of those that have ended by then: as of a round, shares are of all n.
    running  indices of those that write on, ascending, and of those that have not begun. Who failed or repeats itself
             is among them to the end of the round: when that was is chance.
    last     it is the last round that is planned: what leads here is the answer.
    """

    n: int
    at: int
    votes: tuple[Vote, ...]
    running: tuple[int, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """What a policy decides, and the numbers that say why.

    action   of those that still run: `cut` ends them where they are, without an answer; `conclude` has them answer now.
             Between rounds, `end` ends the run.
    """

    action: Literal["cut", "conclude", "end"]
    numbers: Mapping[str, float] = field(default_factory=dict)


class StopPolicy:
    """When to stop; a policy states one of the two. The base never does.

    votes_only   it looks at the votes of a round as the answer's choice, and fits `select = vote` alone.
    every_round  it needs answers of every round, not of the last alone.
    """

    votes_only = False
    every_round = False

    @property
    def inside(self) -> bool:
        """Whether it is to be asked inside a round."""
        return type(self).within is not StopPolicy.within

    def within(self, standing: Standing) -> Stop | None:
        """Inside a round whose candidates write answers: what to do with those that run, or None to wait."""
        return None

    def after(self, rounds: Sequence[Round]) -> Stop | None:
        """After a round, the last of `rounds`, that another one would follow: whether to end the run with it."""
        return None


class Decided(StopPolicy):
    """The last round ends when no candidate that runs can change its vote. Costs nothing: the answer is the one that
    the whole round would give, as the same candidate wrote it, since those that run have more tokens than who stands
    for it (`rsa.policies.ends`). In waves, one that had not begun might have had fewer."""

    votes_only = True

    def within(self, standing: Standing) -> Stop | None:
        if not standing.last or not standing.votes or not standing.running:
            return None
        leader, rivals = standing.votes[0], standing.votes[1:]
        running, first = len(standing.running), leader.candidates[0]
        # Of equal counts the one with the earliest candidate leads, and any that runs may join any rival, or a new one.
        for count, earliest in [*((vote.count, vote.candidates[0]) for vote in rivals), (0, standing.running[0])]:
            most = count + running
            if most > leader.count or (most == leader.count and min(earliest, standing.running[0]) < first):
                return None
        return Stop("cut", {"leader": leader.count, "running": running})


class Beta(StopPolicy):
    """A round ends when the leader is likelier than the next answer with at least this probability, under a uniform
    prior (`rsa.policies.posterior.leads_one`). 1 never stops."""

    def __init__(self, probability: float) -> None:
        self._least = share_of(probability)

    def within(self, standing: Standing) -> Stop | None:
        if not standing.votes or not standing.running:
            return None
        leader, second, _ = _largest(standing.votes)
        sure = leads_one(leader, second)
        if sure < self._least:
            return None
        return Stop("cut", {"leader": leader, "second": second, "probability": float(sure)})


class Quorum(StopPolicy):
    """When so many candidates of a round have ended, the others answer at once."""

    def __init__(self, candidates: float) -> None:
        if candidates < 1 or candidates != int(candidates):
            raise ValueError(f"{candidates:g} is no number of candidates: 1 or more")
        self._candidates = int(candidates)

    def within(self, standing: Standing) -> Stop | None:
        ended = standing.n - len(standing.running)
        return Stop("conclude", {"ended": ended}) if standing.running and ended >= self._candidates else None


class Consensus(StopPolicy):
    """The run ends after a round in which at least this share of all N candidates agree; those without an answer count
    against it."""

    every_round = True

    def __init__(self, share: float) -> None:
        self._share = float(share_of(share))

    def after(self, rounds: Sequence[Round]) -> Stop | None:
        votes = rounds[-1].votes
        if not votes or votes[0].share < self._share:
            return None
        return Stop("end", {"share": votes[0].share})


class Bayes(StopPolicy):
    """The run ends after a round whose leading answer is the likeliest with at least this probability, by the three
    largest counts (`rsa.policies.posterior.leads_two`). 1 never stops."""

    every_round = True

    def __init__(self, probability: float) -> None:
        self._least = share_of(probability)

    def after(self, rounds: Sequence[Round]) -> Stop | None:
        votes = rounds[-1].votes
        if not votes:
            return None
        sure = leads_two(*_largest(votes))
        return Stop("end", {"probability": float(sure)}) if sure >= self._least else None


class Answered(StopPolicy):
    """The run ends after the first round in which anybody answered: rounds are played while nobody can."""

    every_round = True

    def after(self, rounds: Sequence[Round]) -> Stop | None:
        answered = sum(vote.count for vote in rounds[-1].votes)
        return Stop("end", {"candidates": answered}) if answered else None


def _largest(votes: Sequence[Vote]) -> tuple[int, int, int]:
    """How many gave the leading answer and each of the next two, 0 where there is none."""
    first, second, third, *_ = [*(vote.count for vote in votes), 0, 0, 0]
    return first, second, third
