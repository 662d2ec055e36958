"""From the candidates of a round to votes, and from rounds to one answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rsa.answers.calls import group_calls
from rsa.answers.equivalence import AnswerMatcher
from rsa.results import Candidate, Round, Vote
from rsa.settings.config import Select


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidate that answers for the run, and the round it is of."""

    round: Round
    candidate: Candidate


async def count_votes(
    candidates: Sequence[Candidate], matcher: AnswerMatcher, uncompared: Collection[str] = ()
) -> tuple[Vote, ...]:
    """Votes over equivalent answers: largest first, ties to the earliest candidate. Shares are of all.

    Calls of tools are compared with calls alone, by name and arguments (`rsa.answers.calls.group_calls`).
    """
    groups = await matcher.group([None if candidate.calls else candidate.answer for candidate in candidates])
    groups += group_calls([candidate.calls for candidate in candidates], uncompared=uncompared)
    return tuple(
        Vote(
            answer=str(candidates[group[0]].answer),
            calls=candidates[group[0]].calls,
            candidates=tuple(candidates[member].index for member in group),
            of=len(candidates),
            check=candidates[group[0]].check,
        )
        for group in sorted(groups, key=lambda group: (-len(group), group[0]))
    )


def consensus(votes: Sequence[Vote], share: float | None) -> Vote | None:
    """The leading vote if it reaches the share asked for."""
    return votes[0] if share is not None and votes and votes[0].share >= share else None


def choose(rounds: Sequence[Round], select: Select, last: Round | None = None) -> Chosen | None:
    """The answer of `last`, the one more aggregation of `select="aggregate"`, if it gave one; else the one answer of
    the latest round that has any; None if none has.

    `first` takes the earliest candidate with an answer, everything else the leader of the vote.
    """
    for played in (*([last] if last is not None else []), *reversed(rounds)):
        if not played.votes:
            continue
        answered = [candidate for candidate in played.candidates if candidate.answer is not None]
        leader = played.votes[0].candidates[0]
        chosen = answered[0] if select == "first" else next(c for c in answered if c.index == leader)
        return Chosen(played, chosen)
    return None


def fallbacks(choice: Chosen | None, rounds: Sequence[Round], last: Round | None) -> list[str]:
    """What a person should know about where the answer comes from."""
    messages = []
    if last is not None and not last.votes:
        messages.append("the last aggregation gave no answer: the answer is the vote of the round before it")
    if choice is not None and choice.round.round < rounds[-1].round:
        messages.append(f"round {rounds[-1].round} gave no answer: the answer is of round {choice.round.round}")
    return messages


def why_none(played: Round) -> str:
    """Why no candidate of a round can be a parent."""
    errors = sorted({candidate.error for candidate in played.candidates if candidate.error})
    return (
        f"all {len(played.candidates)} candidates of round {played.round} failed: "
        f"{'; '.join(errors[:3]) or 'the engine cancelled them'}"
    )
