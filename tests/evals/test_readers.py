"""Reading puzzles: what is read is the puzzle that was put, and all else is read as nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.tasks import chain, countdown, sums
from evals.tasks.chain import ChainProblem, Op
from evals.tasks.countdown import CountdownProblem
from evals.tasks.readers import MAX_TEXT, read_puzzle
from evals.tasks.sums import SumsProblem
from examples.nano import others, wording

CASES = json.loads((Path(__file__).parents[1] / "data" / "puzzle_texts.json").read_text())
SEEDS = st.integers(0, 2**32)
TASKS = [countdown, chain, sums]
WORDINGS: list[tuple[Any, Callable[[Random, Any], str], float]] = [
    (countdown, wording.countdown_text, 0.4),
    (chain, wording.chain_text, 0.85),
    (sums, wording.sums_text, 0.85),
]


def puzzle_of(case: dict[str, Any]) -> Any:
    """As a person wrote it down in the table."""
    match case:
        case {"countdown": [numbers, target]}:
            return CountdownProblem(tuple(numbers), target)
        case {"chain": [start, ops]}:
            return ChainProblem(start, tuple(Op(op[0], int(op[1:])) for op in ops.split()))
        case {"sums": terms}:
            return SumsProblem(tuple(terms))
    return None


@pytest.mark.parametrize("case", CASES, ids=[case["text"] for case in CASES])
def test_texts_in_the_table(case: dict[str, Any]) -> None:
    assert read_puzzle(case["text"]) == puzzle_of(case)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_every_listed_phrasing_is_read_as_what_was_put(task: Any, seed: int) -> None:
    problem = task.generate(Random(seed))
    for index in range(len(task.PHRASINGS)):
        assert read_puzzle(task.phrase(problem, index)) in (problem, _ambiguous(problem)), task.PHRASINGS[index]


def _ambiguous(problem: Any) -> Any:
    """Numbers in a row may be read as one with separators (`93 120`): then nothing is read. Only sums have such."""
    return None if isinstance(problem, SumsProblem) and any(abs(term) >= 100 for term in problem.terms) else problem


@pytest.mark.parametrize(("task", "text", "share"), WORDINGS, ids=["countdown", "chain", "sums"])
def test_free_wordings_are_read_as_what_was_put_or_as_nothing(
    task: Any, text: Callable[[Random, Any], str], share: float
) -> None:
    rng, read, many = Random(11), 0, 500
    for _ in range(many):
        problem = task.generate(rng, "train")
        words = text(rng, problem)
        found = read_puzzle(words)
        assert found in (problem, None), words
        read += found is not None
    assert read / many > share


def test_what_nano_learned_to_refuse_is_read_as_nothing_or_as_the_sum_it_is() -> None:
    rng = Random(12)
    for _ in range(3000):
        text = others.other_text(rng)
        found = read_puzzle(text)
        if found is not None:
            assert isinstance(found, SumsProblem), text
            assert text == f"What is {found.terms[0]}+{found.terms[1]}?"


@pytest.mark.parametrize(
    "text",
    [
        "1 + 1" + " " * (MAX_TEXT - 10) + "x",
        "make 24 from " + "3, " * (MAX_TEXT // 3 - 10),
        "start at 3 " + "add 4 " * (MAX_TEXT // 6 - 10) + "y",
        "add " + "\n- " * 6000 + "7",
        "((" * 9000,
        "1" * (MAX_TEXT - 1),
        "7 " * MAX_TEXT,
    ],
    ids=range(7),
)
def test_long_texts_take_no_time(text: str) -> None:
    started = time.perf_counter()
    assert read_puzzle(text) is None
    assert time.perf_counter() - started < 2.0
