"""From the candidates of a round to votes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rsa.answers.calls import group_calls
from rsa.answers.equivalence import AnswerMatcher
from rsa.policies.ends import standing, stands_for
from rsa.results import Candidate, PooledVote, Round, Vote


async def count_votes(
    candidates: Sequence[Candidate],
    matcher: AnswerMatcher,
    uncompared: Collection[str] = (),
    *,
    of: int | None = None,
) -> tuple[Vote, ...]:
    """Votes over equivalent answers: largest first, ties to the earliest candidate. Each has the answer as it wrote who
    stands for them (`rsa.policies.ends`).

    candidates  by index. Shares are of all of them, or of so many (`of`) where they are a part of a round.

    Calls of tools are compared with calls alone, by name and arguments (`rsa.answers.calls.group_calls`).
    """
    groups = await matcher.group([None if candidate.calls else candidate.answer for candidate in candidates])
    groups += group_calls([candidate.calls for candidate in candidates], uncompared=uncompared)
    of = len(candidates) if of is None else of
    ranked = sorted(groups, key=lambda group: (-len(group), group[0]))
    return tuple(vote_of([candidates[member] for member in group], of) for group in ranked)


def vote_of(agreeing: Sequence[Candidate], of: int) -> Vote:
    """The vote of these candidates, ascending, in a round of so many."""
    leader = stands_for(agreeing)
    return Vote(
        answer=str(leader.answer),
        calls=leader.calls,
        candidates=tuple(candidate.index for candidate in agreeing),
        of=of,
        check=leader.check,
    )


async def pool(
    rounds: Sequence[Round], matcher: AnswerMatcher, uncompared: Collection[str] = ()
) -> tuple[PooledVote, ...]:
    """Votes of rounds over equivalent answers, put together: a candidate of each round has one. Largest first; ties to
    the one with more in the latest round, in the one before it, and so on, then to the earliest candidate there."""
    votes = [(played.round, vote) for played in rounds for vote in played.votes]
    groups = await matcher.group([None if vote.calls else vote.answer for _, vote in votes])
    groups += group_calls([vote.calls for _, vote in votes], uncompared=uncompared)
    of = sum(len(played.candidates) for played in rounds if any(candidate.asked for candidate in played.candidates))
    found = [_pooled([votes[place] for place in group], of, rounds) for group in groups]
    latest_first = [played.round for played in reversed(rounds)]

    def rank(vote: PooledVote) -> list[int]:
        counts = [sum(number == played for played, _ in vote.members) for number in latest_first]
        number, indices = vote.latest
        return [-vote.count, *(-many for many in counts), number, indices[0]]

    return tuple(sorted(found, key=rank))


def _pooled(votes: Sequence[tuple[int, Vote]], of: int, rounds: Sequence[Round]) -> PooledVote:
    members = sorted((number, index) for number, vote in votes for index in vote.candidates)
    made = PooledVote(answer="", members=tuple(members), of=of)
    number, indices = made.latest
    leader = standing(indices, rounds[number])
    return made.model_copy(update={"answer": str(leader.answer), "calls": leader.calls})


def why_none(played: Round) -> str:
    """Why no candidate of a round can be a parent."""
    errors = sorted({candidate.error for candidate in played.candidates if candidate.error})
    return (
        f"all {len(played.candidates)} candidates of round {played.round} failed: "
        f"{'; '.join(errors[:3]) or 'the engine cancelled them'}"
    )
