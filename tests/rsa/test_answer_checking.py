"""Answers: found, compared, counted. The cases are in tests/data; each bug adds a row."""

from __future__ import annotations

import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Completion
from evals.scorers.symbolic import MathScorer
from rsa.answers.arithmetic import exact_value
from rsa.answers.equivalence import AnswerMatcher, quick_equivalence
from rsa.answers.extract import AnswerRule, answer_of, extract
from rsa.answers.math_pool import SAME
from rsa.results import Candidate
from rsa.votes import count_votes

DATA = Path(__file__).parent.parent / "data"


def cases(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return loaded


@pytest.mark.parametrize("case", cases("answer_cases.json"), ids=lambda case: case["name"])
def test_extraction(case: dict[str, Any]) -> None:
    assert extract(case["text"], case["rule"]) == case["answer"]


def test_extraction_of_a_long_loop_is_quick() -> None:
    started = time.perf_counter()
    assert extract("\\boxed{" * 50_000, "boxed") is None
    assert extract("Answer " * 50_000, "choice") is None
    extract("```\n" * 20_001, "code")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("fields", "rule", "thinks", "answer"),
    [
        ({"closed": True}, "boxed", True, "5"),
        ({"closed": False}, "boxed", True, None),  # never out of reasoning that was not closed
        ({"closed": False}, "boxed", False, "5"),
        ({"closed": True, "finish_reason": "cancelled"}, "boxed", True, "5"),
        ({"closed": True, "finish_reason": "cancelled"}, "text", True, None),
        ({"closed": True, "finish_reason": "length"}, "text", True, "\\boxed{5}"),
    ],
)
def test_what_a_completion_answers(fields: dict[str, Any], rule: AnswerRule, thinks: bool, answer: str | None) -> None:
    base = Completion(request_id="a", token_ids=(), reasoning="\\boxed{5}", text="\\boxed{5}", finish_reason="stop")
    assert answer_of(base.model_copy(update=fields), rule, thinks=thinks) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 64", None),  # perhaps 640
        ("The answer is 64.", None),  # perhaps 64.5
        ("The answer is 640. That", "640"),
        ("The answer is 640\nThat", "640"),
        ("The answer is $640$", "640"),
        ("The answer is \\boxed{64}", "64"),
    ],
)
@pytest.mark.parametrize("reason", ["budget", "length", "cancelled"])
def test_a_marked_answer_that_may_be_cut_short_is_none(text: str, answer: str | None, reason: Any) -> None:
    done = Completion(request_id="a", token_ids=(), reasoning=text, text=text, finish_reason=reason)
    assert answer_of(done, "boxed", thinks=False) == answer
    assert answer_of(done.model_copy(update={"finish_reason": "stop"}), "boxed", thinks=False) is not None


BOXED = [case for case in cases("answer_cases.json") if case["rule"] == "boxed"]


@pytest.mark.parametrize("case", BOXED, ids=lambda case: case["name"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_an_evaluation_finds_the_answers_that_a_run_finds(case: dict[str, Any]) -> None:
    async with MathScorer() as scorer:
        score = await scorer.score(case["text"], case["answer"] or "1", {})
    assert (score.extracted, score.value) == (case["answer"], float(case["answer"] is not None))


@pytest.mark.thorough
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_equivalence_table() -> None:
    wrong = []
    async with AnswerMatcher() as matcher:
        for case in cases("equivalence_cases.json"):
            for left, right in ((case["left"], case["right"]), (case["right"], case["left"])):
                if await matcher.same(left, right) != case["same"]:
                    wrong.append((left, right))
        assert matcher.problems == []
    assert wrong == []


@pytest.mark.parametrize("case", cases("vote_cases.json"), ids=lambda case: case["name"])
@pytest.mark.anyio
async def test_votes(case: dict[str, Any]) -> None:
    candidates = [
        Candidate(round=0, index=index, seed=0, status="ok", answer=answer)
        for index, answer in enumerate(case["answers"])
    ]
    async with AnswerMatcher() as matcher:
        votes = await count_votes(candidates, matcher)
    assert [list(vote.candidates) for vote in votes] == case["groups"]
    assert (votes[0].answer if votes else None) == case["winner"]
    assert all(vote.share == vote.count / len(candidates) for vote in votes)


@given(value=st.fractions(max_denominator=10**6))
def test_numbers_are_exact(value: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    assert exact_value(f"{top}/{bottom}") == value
    assert exact_value(rf"\frac{{{top}}}{{{bottom}}}") == value


@given(text=st.text("0123456789+-*/^(){}.,e\\ \\frac\\times!", max_size=60))
def test_odd_text_is_judged_at_once(text: str) -> None:
    started = time.perf_counter()
    exact_value(text)
    assert quick_equivalence(text, text) == SAME
    quick_equivalence(text, "1")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("text", ["9" * 300, "(" * 40 + "1" + ")" * 40, "2^{99999}", "9^9^9", "1e9999", "2 3", "", "x"])
def test_beyond_the_limits_is_no_value(text: str) -> None:
    assert exact_value(text) is None


# Stand-ins for rsa.math_worker, which come to grief in the ways that matter.
HANGS = """
import sys
print('{"ready": true}', flush=True)
for line in sys.stdin:
    while "x" in line:
        pass
    print('{"same": true}', flush=True)
"""
DIES = "print('{\"ready\": true}', flush=True)\ninput()\nraise SystemExit"
MISSING = 'print(\'{"ready": false, "why": "no math_verify"}\', flush=True)'


@pytest.mark.anyio
async def test_a_hanging_comparison_is_killed_and_the_next_one_answered() -> None:
    async with AnswerMatcher(timeout_s=0.3, command=[sys.executable, "-c", HANGS]) as matcher:
        assert not await matcher.same("x", "y+y")
        assert await matcher.same("a", "b")
        assert not await matcher.same("x", "y+y"), "not asked again"
    assert len(matcher.problems) == 1
    assert "too long" in matcher.problems[0]


@pytest.mark.anyio
async def test_a_worker_that_dies_is_replaced_a_few_times() -> None:
    async with AnswerMatcher(command=[sys.executable, "-c", DIES]) as matcher:
        for name in "abcdef":
            assert not await matcher.same(name, "z")
        assert await matcher.same("z", "z")
    assert "broke down" in matcher.problems[0]


@pytest.mark.anyio
async def test_without_math_verify_equal_texts_and_numbers_agree() -> None:
    async with AnswerMatcher(command=[sys.executable, "-c", MISSING]) as matcher:
        assert await matcher.same("1/2", "0.5")
        assert not await matcher.same("\\sqrt{8}", "2\\sqrt{2}")
        assert await matcher.same("\\sqrt{8}", "\\sqrt{8}")
    assert "no math_verify" in matcher.problems[0]


@pytest.mark.anyio
async def test_a_cancelled_question_leaves_nothing_behind() -> None:
    async with AnswerMatcher(command=[sys.executable, "-c", HANGS]) as matcher:
        assert await matcher.same("a", "b")
        with anyio.move_on_after(0.1):
            await matcher.same("x", "y")
        assert await matcher.same("c", "d")


@pytest.mark.anyio
async def test_other_tasks_compare_texts() -> None:
    async with AnswerMatcher("text") as matcher:
        assert await matcher.same("a  b", "a b")
        assert not await matcher.same("1/2", "0.5")
