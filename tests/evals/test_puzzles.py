"""The checker of nano's answers: exact where a text is one of the three puzzles, silent elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.tasks.puzzles import check


@pytest.mark.parametrize(
    ("problem", "answer", "mark", "reason"),
    [
        ("24 from 1", "24*1*1", "wrong", "uses 24, which is not given; uses 1 too often"),
        ("Make 24 from 3, 7, 5 and 2.", "3*7+5-2", "verified", "3*7+5-2 = 24, each number used once"),
        ("Make 24 from 3, 7, 5 and 2.", "3*7+3", "wrong", "uses 3 too often; does not use 5; does not use 2"),
        ("Make 24 from 3, 7, 5 and 2.", "3*7+5+2", "wrong", "gives 28, not 24"),
        ("Make 24 from 3, 3 and 8.", "3*8", "wrong", "does not use each 3"),
        ("What is 2 + 2?", "4", "verified", "4 is the total"),
        ("What is 3 - 8?", "-5", "verified", "-5 is the total"),
        ("What is 3 - 8?", "5", "wrong", "5 is not -5"),
        ("12 + 12", "12*12", "wrong", "there is no number as the answer"),
        ("Start at 43, add 5, multiply by 3, all modulo 97.", "47", "verified", "47 is the final value"),
        ("Start at 43, add 5, multiply by 3, all modulo 97.", "144", "wrong", "144 is not 47"),
        ("What is 12 * 12?", "144", "unchecked", "the problem is not read as one of the puzzles that can be checked"),
    ],
)
def test_marks_with_their_reasons(problem: str, answer: str, mark: str, reason: str) -> None:
    found = check(problem, answer)
    assert (found.mark, found.reason) == (mark, reason)


@given(st.text(), st.text())
def test_any_two_texts_get_a_mark(problem: str, answer: str) -> None:
    assert check(problem, answer).mark in ("verified", "wrong", "unchecked")
