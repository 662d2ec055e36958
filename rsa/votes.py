"""From the candidates of a round to votes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rsa.answers.calls import group_calls
from rsa.answers.equivalence import AnswerMatcher
from rsa.results import Candidate, Round, Vote


async def count_votes(
    candidates: Sequence[Candidate],
    matcher: AnswerMatcher,
    uncompared: Collection[str] = (),
    *,
    of: int | None = None,
) -> tuple[Vote, ...]:
    """Votes over equivalent answers: largest first, ties to the earliest candidate.

    candidates  by index. Shares are of all of them, or of so many (`of`) where they are a part of a round.

    Calls of tools are compared with calls alone, by name and arguments (`rsa.answers.calls.group_calls`).
    """
    groups = await matcher.group([None if candidate.calls else candidate.answer for candidate in candidates])
    groups += group_calls([candidate.calls for candidate in candidates], uncompared=uncompared)
    return tuple(
        Vote(
            answer=str(candidates[group[0]].answer),
            calls=candidates[group[0]].calls,
            candidates=tuple(candidates[member].index for member in group),
            of=len(candidates) if of is None else of,
            check=candidates[group[0]].check,
        )
        for group in sorted(groups, key=lambda group: (-len(group), group[0]))
    )


def why_none(played: Round) -> str:
    """Why no candidate of a round can be a parent."""
    errors = sorted({candidate.error for candidate in played.candidates if candidate.error})
    return (
        f"all {len(played.candidates)} candidates of round {played.round} failed: "
        f"{'; '.join(errors[:3]) or 'the engine cancelled them'}"
    )
