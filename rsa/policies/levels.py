"""Levels: how a round stands inside, in tokens, when the policies of `stop` are asked.

A level is the number of tokens with which a candidate ended. At a level, those that ended with no more of them have
ended, and the others run: so a round stands the same whoever was quick. A live run settles a level when every candidate
that still runs has passed it; a replay has the whole round. Both ask here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rsa.answers.equivalence import AnswerMatcher
from rsa.policies.stopping import Standing
from rsa.results import Candidate
from rsa.votes import count_votes


def ended_with(candidate: Candidate) -> int | None:
    """The tokens after which it counts as ended; None: not before its round is over.

    When one failed is chance; how many tokens there are of one that was cut off, because it repeated itself or a limit
    was reached, depends on how soon the engine obeyed.
    """
    if candidate.status != "ok" or candidate.completion is None:
        return None
    return candidate.completion.usage.completion_tokens


def levels(candidates: Iterable[Candidate]) -> list[int]:
    """The levels of a round, ascending: where candidates ended that ran their course."""
    found = map(ended_with, candidates)
    return sorted({level for level in found if level is not None})


async def standing_at(
    at: int,
    candidates: Iterable[Candidate],
    n: int,
    *,
    last: bool,
    matcher: AnswerMatcher,
    uncompared: Collection[str] = (),
    wave: int = 0,
) -> Standing:
    """How a round of `n` stands at a level.

    candidates  that have ended, in the order of their indices: all that have by then. Others among them count as
                running.
    last        no other round is planned after it.
    wave        index of the first candidate of the wave that is at work: those before it have ended, however long.
    """
    ends = ((each, ended_with(each)) for each in candidates)
    ended = [each for each, tokens in ends if tokens is not None and (tokens <= at or each.index < wave)]
    gone = {candidate.index for candidate in ended}
    return Standing(
        n=n,
        at=at,
        votes=await count_votes(ended, matcher, uncompared, of=n),
        running=tuple(index for index in range(n) if index not in gone),
        last=last,
    )
