"""nano on problems that people try: no answer is shown as if it were right, and what is verified is right."""

from __future__ import annotations

import ast
import json
import operator
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import pytest

from rsa import MarkovianRSA, Problem, RunResult
from rsa.answers.checking import find_checker
from rsa.command.display import describe
from rsa.events import CandidateFinished, RunFinished

pytestmark = pytest.mark.thorough

PROBLEMS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "nano_problems.json").read_text())
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@pytest.fixture(scope="module")
def results() -> list[RunResult]:
    """All problems at once."""
    found: list[RunResult] = []

    async def main() -> None:
        async with (
            MarkovianRSA("nano", n=3, c=2, t=0, beta=96, tau=48, answer_budget=32, seed=1) as rsa,
            anyio.create_task_group() as tasks,
        ):

            async def solve(place: int) -> None:
                found[place : place + 1] = [await rsa.solve(Problem(PROBLEMS[place]["problem"], problem_id=str(place)))]

            found.extend([None] * len(PROBLEMS))  # type: ignore[list-item]
            for place in range(len(PROBLEMS)):
                tasks.start_soon(solve, place)

    anyio.run(main)
    return found


def right(case: dict[str, Any], answer: str) -> bool:
    """By the table and Python's own parser: nothing of `evals.tasks` is asked."""
    if "target" in case:
        left = answer.partition("=")[0]
        numbers = sorted(int(number) for number in re.findall(r"\d+", left))
        return (
            numbers == sorted(case["numbers"]) and value_of(ast.parse(left.strip(), mode="eval").body) == case["target"]
        )
    return case["answer"] is not None and answer.strip() == str(case["answer"])


def value_of(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        found: Fraction = _OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))
        return found
    assert isinstance(node, ast.Constant)
    return Fraction(str(node.value))


@pytest.mark.timeout(300)
def test_no_answer_is_shown_without_a_mark_and_what_is_verified_is_right(results: list[RunResult]) -> None:
    marks = {"verified": 0, "wrong": 0, "unchecked": 0}
    for case, result in zip(PROBLEMS, results, strict=True):
        finished = [CandidateFinished(candidate=candidate) for candidate in result.rounds[0].candidates]
        answered = [event for event in finished if event.candidate.answer is not None]
        events: list[CandidateFinished | RunFinished] = [*answered]
        if result.answer is not None:
            events.append(RunFinished(result=result))
        for event in events:
            line = describe(event)
            assert line is not None
            assert re.search(r"answer .* \((verified|wrong: .+|unchecked)\)", line), line
        for candidate in (event.candidate for event in answered):
            assert candidate.check is not None
            assert candidate.answer is not None
            marks[candidate.check.mark] += 1
            if candidate.check.mark == "verified":
                assert right(case, candidate.answer), (case, candidate.answer)
            if candidate.check.mark == "wrong":
                assert candidate.check.reason
                assert not right(case, candidate.answer), (case, candidate.answer)
    assert min(marks.values()) > 0, f"the table shows nothing: {marks}"


@pytest.mark.parametrize("case", PROBLEMS, ids=[case["problem"] for case in PROBLEMS])
@pytest.mark.parametrize("answer", ["47", "8", "24*1*1", "12*12", "7*5-9-2", "768", "4*3*2", "3*7+5-2", "No answer."])
def test_what_nano_might_say_is_verified_only_where_it_is_right(case: dict[str, Any], answer: str) -> None:
    check = find_checker("puzzles")(case["problem"], answer)
    if check.mark == "verified":
        assert right(case, answer)


@pytest.mark.parametrize("case", [case for case in PROBLEMS if isinstance(case.get("answer"), int)])
def test_the_right_answer_is_never_called_wrong(case: dict[str, Any]) -> None:
    assert find_checker("puzzles")(case["problem"], str(case["answer"])).mark != "wrong"
