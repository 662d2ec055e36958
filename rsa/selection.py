"""From the candidates of a round to votes, and from rounds to one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsa.config import Select
from rsa.equivalence import AnswerMatcher
from rsa.results import Candidate, Round, Vote


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that answers for the run, and the round it is of."""

    round: Round
    candidate: Candidate


async def count_votes(candidates: Sequence[Candidate], matcher: AnswerMatcher) -> tuple[Vote, ...]:
    """Votes over equivalent answers: largest first, ties to the earliest candidate. Shares are of all."""
    groups = await matcher.group([candidate.answer for candidate in candidates])
    return tuple(
        Vote(
            answer=str(candidates[group[0]].answer),
            share=len(group) / len(candidates),
            candidates=tuple(candidates[member].index for member in group),
        )
        for group in groups
    )


def consensus(votes: Sequence[Vote], share: float | None) -> Vote | None:
    """The leading vote if it reaches the share asked for."""
    return votes[0] if share is not None and votes and votes[0].share >= share else None


def choose(rounds: Sequence[Round], select: Select) -> Choice | None:
    """The one answer of the latest round that has any; None if none has.

    `first` takes the earliest candidate with an answer, everything else the leader of the vote.
    """
    for played in reversed(rounds):
        if not played.votes:
            continue
        answered = [candidate for candidate in played.candidates if candidate.answer is not None]
        leader = played.votes[0].candidates[0]
        chosen = answered[0] if select == "first" else next(c for c in answered if c.index == leader)
        return Choice(played, chosen)
    return None
