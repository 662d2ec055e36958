"""Chain: values follow the operations, the checker reads numbers exactly, the split is fixed."""

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.tasks import chain
from evals.tasks.chain import ChainProblem, Op, check, generate, split_of
from evals.tasks.splits import Split

SEEDS = st.integers(0, 2**32)
EXAMPLE = ChainProblem(43, (Op("+", 5), Op("*", 3), Op("-", 7)))


def test_values_of_an_example() -> None:
    assert EXAMPLE.values() == [48, 47, 40]
    assert EXAMPLE.answer == 40
    assert chain.phrase(EXAMPLE, 0) == "Start at 43, add 5, multiply by 3, subtract 7, all modulo 97."


@given(SEEDS, st.sampled_from(["train", "test"]), st.one_of(st.none(), st.integers(1, 60)))
@settings(max_examples=100, deadline=None)
def test_generated_chains(seed: int, split: Split, length: int | None) -> None:
    problem = generate(Random(seed), split, length)
    assert split_of(problem) == split
    assert problem == generate(Random(seed), split, length)
    assert len(problem.ops) == length if length else chain.MIN_OPS <= len(problem.ops) <= chain.MAX_OPS
    pairs = list(zip(problem.ops, problem.ops[1:], strict=False))
    assert len(set(pairs)) == len(pairs), "a place must be known from two of its steps"
    value = problem.start
    for op in problem.ops:
        value = {"+": value + op.operand, "-": value - op.operand, "*": value * op.operand}[op.op] % 97
    assert value == problem.answer
    assert check(problem, f"The answer is \\boxed{{{value}}}.")
    assert not check(problem, f"The answer is \\boxed{{{(value + 1) % 97}}}.")


def test_the_split_never_moves() -> None:
    """Published figures are about these very problems: a change here makes them worthless."""
    assert split_of(EXAMPLE) == "train"
    rng = Random(0)
    chains = [
        ChainProblem(rng.randrange(97), tuple(Op("+", rng.randint(1, 20)) for _ in range(8))) for _ in range(4000)
    ]
    assert 0.08 < sum(split_of(problem) == "test" for problem in chains) / len(chains) < 0.12


@pytest.mark.parametrize(
    "answer",
    ["40", " 40. ", "$40$", r"\boxed{40}", r"\boxed{40 \pmod{97}}", "40 mod 97", "x = 40", r"\boxed{9} no, \boxed{40}"],
)
def test_right_answers_in_many_notations(answer: str) -> None:
    assert check(EXAMPLE, answer)


@pytest.mark.parametrize(
    "answer", ["137", "-57", "41", "4 0", "", "forty", "40.0", "40 or 41", r"\boxed{}", r"\boxed{40"]
)
def test_wrong_answers(answer: str) -> None:
    assert not check(EXAMPLE, answer)


@pytest.mark.parametrize("answer", ["9" * 100_000, "4" * 399, r"\boxed{" * 50, "40" + "{" * 300])
def test_hostile_answers_are_refused_at_once(answer: str) -> None:
    began = time.perf_counter()
    assert not check(EXAMPLE, answer)
    assert time.perf_counter() - began < 0.5


@given(st.text(max_size=420))
def test_no_text_raises(text: str) -> None:
    check(EXAMPLE, text)


@pytest.mark.parametrize("index", range(len(chain.PHRASINGS)))
def test_every_wording_holds_the_chain(index: int) -> None:
    text = chain.phrase(EXAMPLE, index)
    assert all(number in text for number in ("43", "5", "3", "7", "97"))


def test_a_length_below_one_is_named() -> None:
    with pytest.raises(ValueError, match="length is 0"):
        generate(Random(0), length=0)
