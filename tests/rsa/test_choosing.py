"""Whose answer is taken and whose tails are read: on told rounds, and in runs of the scripted engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed import forged

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import ConfigError, MarkovianRSA, RSAConfig, RunFolderError, RunResult
from rsa.answers.equivalence import AnswerMatcher
from rsa.command.display import result_lines
from rsa.policies.registry import parents_policy, select_policy
from rsa.policies.selecting import Played, Weighted, choose
from rsa.results import Candidate, Confidence, Round, Tail, Vote
from rsa.votes import pool

Told = list[tuple[str | None, float | None]]
"""A round: what each candidate answered, and how sure it was."""
ROUNDS = st.lists(
    st.tuples(st.sampled_from(["7", "8", "9", None]), st.sampled_from([None, -3.0, -2.0, -1.5, -1.0, -0.5])),
    min_size=1,
    max_size=9,
)


TAIL = Tail(ids=(1,), text="so")


def confidence(sure: float | None) -> Confidence | None:
    return None if sure is None else Confidence(mean=-7.0, tail=sure, lowest=-9.0, tokens=64)


def told(answers: Told, number: int = 0) -> Round:
    candidates = [
        Candidate(round=number, index=index, seed=0, status="ok", tail=TAIL, answer=answer, confidence=confidence(sure))
        for index, (answer, sure) in enumerate(answers)
    ]
    groups: dict[str, list[int]] = {}
    for index, (answer, _) in enumerate(answers):
        if answer is not None:
            groups.setdefault(answer, []).append(index)
    votes = [Vote(answer=answer, candidates=tuple(group), of=len(answers)) for answer, group in groups.items()]
    ranked = sorted(votes, key=lambda vote: (-vote.count, vote.candidates[0]))
    return Round(round=number, candidates=tuple(candidates), votes=tuple(ranked))


def chosen(policy: str, *rounds: Round, **more: Any) -> str | None:
    found = choose(Played(rounds, **more), select_policy(policy))
    return found.candidate.answer if found else None


# ---- weighted


@pytest.mark.parametrize(
    ("policy", "answers", "winner"),
    [
        ("weighted", [("7", -1), ("7", -1), ("8", -1)], "7"),
        ("weighted", [("7", -3), ("7", -2.9), ("8", -0.1)], "7"),  # 1 + 2 to 3: more votes
        ("weighted:.5", [("7", -3), ("7", -2.9), ("8", -0.1)], "8"),  # 1 + 4 to 9
        ("weighted", [("7", -3), ("8", -0.1)], "8"),
        ("weighted", [("7", -1), ("8", -1)], "7"),  # the earliest
        ("weighted", [("7", None), ("8", None), ("8", None)], "8"),
        ("weighted", [("7", None), ("8", -3), ("9", -1)], "9"),  # 1.5, 1 and 2
        ("weighted", [("7", None), ("8", -3), (None, -1)], "7"),  # who has no answer has no place
        ("weighted", [("7", -3), ("7", -2), ("8", -1), ("8", -4), ("8", -5)], "8"),  # 3 + 4 to 5 + 2 + 1
        ("vote", [("7", -3), ("8", -0.1)], "7"),
        ("first", [(None, None), ("7", -3), ("8", -1), ("8", -1)], "7"),
    ],
)
def test_what_is_chosen(policy: str, answers: Told, winner: str) -> None:
    assert chosen(policy, told(answers)) == winner


@given(ROUNDS)
def test_votes_weigh_by_rank_alone(answers: Told) -> None:
    weighted = Weighted()
    weights = weighted.weights(told(answers))
    voters = [sure for answer, sure in answers if answer is not None]
    known = sum(sure is not None for sure in voters)
    assert sum(weights) == known * (known + 1) / 2 + (len(voters) - known) * (known + 1) / 2
    stretched: Told = [(answer, None if sure is None else -math.exp(-sure)) for answer, sure in answers]
    assert weighted.weights(told(stretched)) == weights


@given(ROUNDS, st.randoms())
def test_weights_do_not_depend_on_the_order_of_candidates(answers: Told, shuffle: Any) -> None:
    played = told(answers)
    weights = dict(zip([vote.answer for vote in played.votes], Weighted(0.5).weights(played), strict=True))
    other = told(shuffle.sample(answers, len(answers)))
    assert dict(zip([vote.answer for vote in other.votes], Weighted(0.5).weights(other), strict=True)) == weights


@given(ROUNDS)
def test_at_a_high_temperature_a_vote_is_a_vote(answers: Told) -> None:
    counts = sorted((vote.count for vote in told(answers).votes), reverse=True)
    if len(counts) == 1 or (counts and counts[0] > counts[1]):
        assert chosen("weighted:1000", told(answers)) == chosen("vote", told(answers))


# ---- pooled


async def pooled(*rounds: Round, uncompared: Sequence[str] = ()) -> Played:
    async with AnswerMatcher() as matcher:
        return Played(rounds, pooled=await pool(rounds, matcher, uncompared))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("rounds", "winner", "of"),
    [
        ([["7", "7", "8"], ["8", "8", "9"]], ("8", 1, 0), {"8": 3, "7": 2, "9": 1}),
        ([["1/2", "9", None], ["9", None, "0.5"], [None, None, "0.50"]], ("0.50", 2, 2), {"0.50": 3, "9": 2}),
        ([["7", "8"], ["8", "7"]], ("8", 1, 0), {"8": 2, "7": 2}),  # as many in each round: the earliest of the last
        ([["8", "8", "7"], ["7", "9", "9"]], ("9", 1, 1), {"9": 2, "7": 2, "8": 2}),  # more in the latest round
        ([["7", "7", "8"], [None, None, None]], ("7", 0, 0), {"7": 2, "8": 1}),
    ],
)
async def test_rounds_vote_together(
    rounds: list[list[str | None]], winner: tuple[str, int, int], of: dict[str, int]
) -> None:
    played = await pooled(*(told([(answer, None) for answer in answers], at) for at, answers in enumerate(rounds)))
    assert [(vote.answer, vote.count) for vote in played.pooled] == list(of.items())
    found = choose(played, select_policy("pooled"))
    assert found is not None
    assert (found.candidate.answer, found.candidate.round, found.candidate.index) == winner
    assert found.round == played.rounds[winner[1]]


@pytest.mark.anyio
@given(rounds=st.lists(ROUNDS, min_size=1, max_size=4))
async def test_every_candidate_of_every_round_has_one_vote(rounds: list[Told]) -> None:
    played = await pooled(*(told(answers, at) for at, answers in enumerate(rounds)))
    counts = Counter(answer for answers in rounds for answer, _ in answers if answer is not None)
    assert {vote.answer: vote.count for vote in played.pooled} == counts
    assert [vote.count for vote in played.pooled] == sorted(counts.values(), reverse=True)
    members = [member for vote in played.pooled for member in vote.members]
    assert len(members) == len(set(members)) == counts.total()


# ---- parents


@pytest.mark.parametrize("policy", ["uniform", "confident", "confident:5", "distinct"])
@given(answers=ROUNDS, size=st.integers(1, 9), seed=st.integers(0, 2**64 - 1))
def test_parents_are_different_and_stay(policy: str, answers: Told, size: int, seed: int) -> None:
    before = told(answers)
    drawn = parents_policy(policy).draw(before, size, seed)
    assert len(drawn) == len(set(drawn)) == min(size, len(answers))
    assert set(drawn) <= set(before.parents)
    assert drawn == parents_policy(policy).draw(before, size, seed)


def test_the_surer_are_drawn_as_the_temperature_says() -> None:
    """4,000 seeds: five standard deviations are at most 0.04, so that a draw which is right never fails."""
    before = told([("7", -1.0), ("8", -0.9), ("9", None), ("7", -0.7)])
    odds = [math.exp(sure / 0.1) for sure in (-1.0, -0.9, -0.9, -0.7)]  # without one: the median
    drawn = [parents_policy("confident").draw(before, 2, seed) for seed in range(4000)]
    first, second = (Counter(pair[place] for pair in drawn) for place in (0, 1))
    for member, mine in enumerate(odds):
        assert first[member] / 4000 == pytest.approx(mine / sum(odds), abs=0.04)
        after = sum(
            other / sum(odds) * mine / (sum(odds) - other) for place, other in enumerate(odds) if place != member
        )
        assert second[member] / 4000 == pytest.approx(after, abs=0.04)


@given(answers=ROUNDS, size=st.integers(1, 9), seed=st.integers(0, 2**64 - 1))
def test_distinct_answers_come_first(answers: Told, size: int, seed: int) -> None:
    before = told(answers)
    drawn = parents_policy("distinct").draw(before, size, seed)
    read = [before.candidates[member].answer for member in drawn]
    different = len({answer for answer, _ in answers if answer is not None})
    assert len(set(read) - {None}) == min(size, different)
    assert None not in read[:different]
    alike = told([("7", None)] * len(answers))
    uniform = parents_policy("uniform").draw(alike, len(answers), seed)
    assert parents_policy("distinct").draw(alike, size, seed)[1:] == uniform[1:size]


def test_who_stands_for_an_answer_is_drawn_uniformly() -> None:
    before = told([("7", None)] * 3 + [("8", None), (None, None)])
    drawn = [parents_policy("distinct").draw(before, 2, seed) for seed in range(3000)]
    assert all(3 in pair and 4 not in pair for pair in drawn)
    stands = Counter(next(member for member in pair if member < 3) for pair in drawn)
    assert all(stands[member] / 3000 == pytest.approx(1 / 3, abs=0.045) for member in range(3))  # five deviations


# ---- in runs


def script(request: GenerationRequest) -> Script:
    return Script(reasoning=f"in {request.id}", answer=rf"\boxed{{{request.sampling.seed % 3}}}")


async def solve(engine: ScriptedEngine, **settings: Any) -> RunResult:
    small = {"n": 4, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}
    return await MarkovianRSA(engine, config=RSAConfig(**{**small, **settings})).solve("why?")


@pytest.mark.anyio
async def test_a_run_pools_its_rounds() -> None:
    result = await solve(ScriptedEngine(script), select="pooled")
    answers = Counter(candidate.answer for played in result.rounds for candidate in played.candidates)
    assert answers.total() == 12
    assert max(answers.values()) == answers[result.answer] == result.pooled[0].count
    assert result.answer == result.pooled[0].answer
    assert result.agreeing is not None
    assert result.agreeing.answer == result.answer
    assert result_lines(result)[1].startswith(f"chosen by pooled: of 12 votes of all rounds, {result.answer} has ")
    plain = await solve(ScriptedEngine(script), answers="every")
    assert [played.votes for played in plain.rounds] == [played.votes for played in result.rounds]
    assert (plain.pooled, len(result_lines(plain))) == ((), 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result["pooled"].pop(), "its pooled votes are not those of its rounds"),
        (lambda result: result["pooled"][0]["members"].pop(), "its pooled votes are not those of its rounds"),
        (lambda result: result["pooled"][0]["members"].append([0, 3]), "its pooled votes are not those of its rounds"),
        (lambda result: result["pooled"].reverse(), "its answer"),
        (lambda result: result.update(pooled=[]), "its pooled votes are not those of its rounds"),
    ],
)
def test_pooled_votes_that_do_not_follow_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    rsa = MarkovianRSA(ScriptedEngine(script), n=4, c=2, t=1, beta=64, tau=16, answer_budget=32, select="pooled")
    whole = rsa.solve_sync("why?", out=tmp_path / "run")
    assert len(whole.pooled) > 1
    assert rsa.solve_sync("why?", out=tmp_path / "run", resume=True) == whole
    with pytest.raises(RunFolderError, match=says):
        rsa.solve_sync("why?", out=forged(tmp_path / "run", change), resume=True)


@pytest.mark.anyio
async def test_distinct_parents_need_answers_of_every_round() -> None:
    result = await solve(ScriptedEngine(script), parents="distinct", c=3)
    for before, played in zip(result.rounds, result.rounds[1:], strict=False):
        different = {candidate.answer for candidate in before.candidates}
        for candidate in played.candidates:
            assert len({before.candidates[parent].answer for parent in candidate.parents}) == min(3, len(different))


@pytest.mark.anyio
async def test_one_tail_stays_ones_own() -> None:
    result = await solve(ScriptedEngine(script), parents="distinct", c=1)
    assert all(each.parents == (each.index,) for played in result.rounds[1:] for each in played.candidates)


@pytest.mark.parametrize("settings", [{"select": "weighted"}, {"parents": "confident:.2"}])
@pytest.mark.anyio
async def test_confidence_that_cannot_be_had_is_said_in_a_line(settings: dict[str, Any]) -> None:
    engine = ScriptedEngine(script, logprobs=False)
    (name, value), *_ = settings.items()
    with pytest.raises(ConfigError, match=f"{name} = {value} cannot be had: scripted does not say how likely"):
        await solve(engine, **settings)
    assert not engine.requests


@pytest.mark.anyio
async def test_a_run_goes_by_its_own_confidence() -> None:
    """Candidates that answer 2 are few, and sure."""

    def sure(request: GenerationRequest) -> Script:
        answer = (0, 0, 0, 2)[request.sampling.seed % 4]
        told = -0.1 if answer == 2 else -1.0 - request.sampling.seed % 7
        return Script(reasoning=f"in {request.id}", answer=rf"\boxed{{{answer}}}", log_probabilities=(told,))

    voted = await solve(ScriptedEngine(sure), n=8)
    assert voted.answer == "0"
    assert {vote.answer for vote in voted.rounds[-1].votes} == {"0", "2"}
    weighted = await solve(ScriptedEngine(sure), n=8, select="weighted:.1")
    assert weighted.answer == "2"
    assert "of the weight of confidence, 2 has " in result_lines(weighted)[1]
    confident = await solve(ScriptedEngine(sure), n=8, parents="confident", answers="every")
    before, after = confident.rounds[:2]
    assert {each.answer for each in before.candidates} == {"0", "2"}
    for candidate in after.candidates:
        assert before.candidates[candidate.parents[0]].answer == "2", "8,000 times as likely as any other"
