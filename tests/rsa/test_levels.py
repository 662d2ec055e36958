"""How a round stands at a level: who has ended there, whoever was quick, and what policies say to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Completion, Usage
from rsa.answers.equivalence import AnswerMatcher
from rsa.policies import decisions
from rsa.policies.ends import ended_with
from rsa.policies.levels import levels, standing_at
from rsa.results import Candidate, Status
from rsa.votes import count_votes


def candidate(index: int, tokens: int | None, answer: str | None = None, status: Status = "ok") -> Candidate:
    """`tokens`: None for one without a completion."""
    usage = Usage(completion_tokens=tokens or 0, reasoning_tokens=(tokens or 0) // 2)
    ids = (7,) * (tokens or 0)
    completion = Completion(request_id="r", token_ids=ids, reasoning="", text="", finish_reason="stop", usage=usage)
    told = None if tokens is None else completion
    return Candidate(round=0, index=index, seed=0, status=status, completion=told, answer=answer)


ROUND = [
    candidate(0, 30, "7"),
    candidate(1, 10, "8"),
    candidate(2, None, status="failed"),
    candidate(3, 12, status="degenerate"),
    candidate(4, 30, "7.0"),
    candidate(5, 5, "9", status="cancelled"),
    candidate(6, 20),
]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("at", "votes", "running"),
    [
        (0, [], (0, 1, 2, 3, 4, 5, 6)),
        (9, [], (0, 1, 2, 3, 4, 5, 6)),
        (10, [("8", (1,))], (0, 2, 3, 4, 5, 6)),
        (20, [("8", (1,))], (0, 2, 3, 4, 5)),
        (30, [("7", (0, 4)), ("8", (1,))], (2, 3, 5)),
    ],
)
async def test_who_has_ended_at_a_level(at: int, votes: list[Any], running: tuple[int, ...]) -> None:
    async with AnswerMatcher() as matcher:
        found = await standing_at(at, ROUND, 7, last=True, matcher=matcher)
    assert [(vote.answer, vote.candidates) for vote in found.votes] == votes
    assert all(vote.of == 7 for vote in found.votes)
    assert (found.n, found.at, found.running, found.last) == (7, at, running, True)


def test_only_candidates_that_ran_their_course_make_levels() -> None:
    assert levels(ROUND) == [10, 20, 30]
    assert [ended_with(each) for each in ROUND] == [30, 10, None, None, 30, None, 20]


TOKENS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["7", "8", None])), min_size=1, max_size=7)


@given(TOKENS, st.data())
def test_who_is_known_beyond_those_that_ended_changes_nothing(
    told: list[tuple[int, str | None]], data: st.DataObject
) -> None:
    """As in a live run, which may have any of those that count as running."""
    whole = [candidate(index, *each) for index, each in enumerate(told)]
    at = data.draw(st.sampled_from(levels(whole)))
    known = [each for each in whole if (ended_with(each) or 0) <= at or data.draw(st.booleans())]

    async def stand(candidates: list[Candidate]) -> Any:
        async with AnswerMatcher() as matcher:
            return await standing_at(at, candidates, len(whole), last=True, matcher=matcher)

    assert _run(stand(known)) == _run(stand(whole))


@given(TOKENS)
def test_at_its_last_level_a_round_is_whole(told: list[tuple[int, str | None]]) -> None:
    whole = [candidate(index, *each) for index, each in enumerate(told)]

    async def both() -> Any:
        async with AnswerMatcher() as matcher:
            found = await standing_at(levels(whole)[-1], whole, len(whole), last=True, matcher=matcher)
            return found, await count_votes(whole, matcher)

    found, votes = _run(both())
    assert (found.votes, found.running) == (votes, ())


@pytest.mark.anyio
async def test_the_first_policy_that_has_something_to_say_decides() -> None:
    async with AnswerMatcher() as matcher:
        standing = await standing_at(30, ROUND, 7, last=True, matcher=matcher)
    found = decisions.within(["beta:1", "quorum:3", "beta:.6"], 2, range(7), standing)
    assert found is not None
    assert (found.policy, found.action, found.numbers) == ("quorum:3", "conclude", {"ended": 4})
    assert (found.round, found.wave, found.vote) == (2, (0, 7), standing.votes[0])
    assert decisions.within(["beta:.95"], 2, range(7), standing) is None


def _run(asked: Any) -> Any:
    """Of a coroutine that waits for nothing."""
    try:
        asked.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")
