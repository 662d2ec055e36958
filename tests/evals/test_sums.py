"""Sums: totals follow the terms, the checker reads numbers exactly, the split is fixed."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import GoldError
from evals.tasks import sums
from evals.tasks.splits import Split
from evals.tasks.sums import SumsProblem, check, generate, split_of

SEEDS = st.integers(0, 2**32)
EXAMPLE = SumsProblem((4821, 933, -120, 77))


def test_totals_of_an_example() -> None:
    assert EXAMPLE.totals() == [4821, 5754, 5634, 5711]
    assert EXAMPLE.answer == 5711
    assert sums.phrase(EXAMPLE, 0) == "What is 4821 + 933 - 120 + 77?"


def test_gold_and_back() -> None:
    assert sums.from_gold(sums.to_gold(EXAMPLE)) == EXAMPLE
    wrongs: list[Any] = [{}, {"terms": []}, {"terms": ["1"]}, {"terms": 3}, [1, 2]]
    for wrong in wrongs:
        with pytest.raises(GoldError):
            sums.from_gold(wrong)


@given(SEEDS, st.sampled_from(["train", "test"]), st.one_of(st.none(), st.integers(2, 40)))
@settings(max_examples=100, deadline=None)
def test_generated_sums(seed: int, split: Split, length: int | None) -> None:
    problem = generate(Random(seed), split, length)
    assert split_of(problem) == split
    assert problem == generate(Random(seed), split, length)
    assert len(problem.terms) == length if length else sums.MIN_TERMS <= len(problem.terms) <= sums.MAX_TERMS
    assert all(total > 0 for total in problem.totals())
    assert all(1 <= abs(term) < 10**sums.MAX_DIGITS for term in problem.terms)
    assert check(problem, f"The answer is \\boxed{{{sum(problem.terms)}}}.")
    assert not check(problem, f"The answer is \\boxed{{{sum(problem.terms) + 1}}}.")


def test_the_split_never_moves() -> None:
    """Published figures are about these very problems: a change here makes them worthless."""
    assert split_of(EXAMPLE) == "train"
    rng = Random(0)
    drawn = [SumsProblem(tuple(rng.randint(10, 99) for _ in range(8))) for _ in range(4000)]
    assert 0.08 < sum(split_of(problem) == "test" for problem in drawn) / len(drawn) < 0.12


@pytest.mark.parametrize(
    "answer",
    [
        *("5711", " 5711. ", "$5711$", "5,711", "5 711"),
        *(r"\boxed{5711}", r"\boxed{5{,}711}", r"\boxed{5\,711}", r"\boxed{9} \boxed{5711}"),
    ],
)
def test_right_answers_in_many_notations(answer: str) -> None:
    assert check(EXAMPLE, answer)


@pytest.mark.parametrize(
    "answer", ["571", "-5711", "57 11", "57,11", "", "a lot", "5711.0", "5711 or 1", r"\boxed{}", r"\boxed{5711"]
)
def test_wrong_answers(answer: str) -> None:
    assert not check(EXAMPLE, answer)


@given(st.text(max_size=420))
def test_no_text_raises(text: str) -> None:
    check(EXAMPLE, text)


@pytest.mark.parametrize("index", range(len(sums.PHRASINGS)))
def test_every_wording_holds_the_terms(index: int) -> None:
    assert all(str(abs(term)) in sums.phrase(EXAMPLE, index) for term in EXAMPLE.terms)


@pytest.mark.parametrize("length", [1, 41])
def test_a_length_out_of_range_is_named(length: int) -> None:
    with pytest.raises(ValueError, match=f"length is {length}"):
        generate(Random(0), length=length)
