"""Generated benchmarks: the seed decides, more problems extend fewer, and none was ever trained on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.data.benchmarks import load_benchmark
from evals.data.open import open_data
from evals.data.question import Question
from evals.errors import BenchmarkError, DataError
from evals.tasks import chain, countdown, sums

TASKS: dict[str, Any] = {"countdown": countdown, "chain": chain, "sums": sums}
NAMES = st.sampled_from(sorted(TASKS))


def questions(name: str, *, options: dict[str, Any] | None = None, **choice: Any) -> list[Question]:
    return list(open_data(load_benchmark(name).with_options(options or {}), **choice))


@pytest.mark.thorough
@given(NAMES, st.integers(0, 2**64 - 2), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_the_seed_decides_and_a_larger_limit_extends_a_smaller_one(name: str, seed: int, some: int, more: int) -> None:
    first = questions(name, seed=seed, limit=some)
    assert len(first) == some
    assert questions(name, seed=seed, limit=some + more)[:some] == first
    assert first != questions(name, seed=seed + 1, limit=some)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"limit": 10**7}, "`limit` 10000000 is too much: 1,000,000 problems are made at most"),
        ({"seed": -1}, "`data_seed` -1 is out of range"),
        ({"seed": 10**5000}, "`data_seed` is out of range"),
    ],
)
def test_numbers_that_would_fill_the_memory(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        questions("sums", **asked)


@pytest.mark.thorough
@given(NAMES, st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_problems_are_of_the_test_split_and_all_different(name: str, seed: int) -> None:
    task = TASKS[name]
    problems = [task.from_gold(question.gold) for question in questions(name, seed=seed, limit=20)]
    assert {task.split_of(problem) for problem in problems} == {"test"}
    assert len({problem.key for problem in problems}) == 20


@given(st.integers(0, 2**32), st.sets(st.integers(3, 6), min_size=1), st.sampled_from(["seen", "unseen", "all"]))
@settings(max_examples=15, deadline=None)
def test_options_of_countdown(seed: int, sizes: set[int], phrasings: str) -> None:
    for question in questions(
        "countdown", options={"sizes": sorted(sizes), "phrasings": phrasings}, seed=seed, limit=8
    ):
        problem = countdown.from_gold(question.gold)
        assert len(problem.numbers) == question.fields["size"]
        assert question.fields["size"] in sizes
        wording = question.fields["wording"]
        assert isinstance(wording, int)
        assert question.problem == countdown.phrase(problem, wording)
        assert phrasings == "all" or countdown.PHRASINGS[wording][1] == (phrasings == "seen")


def test_options_of_chain() -> None:
    for question in questions("chain", options={"lengths": [3, 60]}, limit=10):
        assert len(chain.from_gold(question.gold).ops) == question.fields["length"]
        assert question.fields["length"] in (3, 60)


def test_options_of_sums_and_ranges() -> None:
    for question in questions("sums", options={"lengths": ["3-4", 9]}, limit=10):
        assert len(sums.from_gold(question.gold).terms) == question.fields["length"]
        assert question.fields["length"] in (3, 4, 9)


@pytest.mark.thorough
def test_ids_name_any_problem_of_a_seed() -> None:
    wanted = ["countdown-7-0003", "countdown-7-0530"]
    chosen = questions("countdown", seed=7, ids=wanted)
    assert [question.id for question in chosen] == wanted
    assert chosen[0] == questions("countdown", seed=7, limit=4)[3]
    for unknown in ("countdown-8-0003", "countdown-7-3", "countdown-7-00003", "chain-7-0003"):
        with pytest.raises(DataError, match=rf"has no problem {unknown}; ids are like countdown-7-0000"):
            questions("countdown", seed=7, ids=[unknown])


@pytest.mark.thorough
def test_what_is_recorded() -> None:
    data = open_data(load_benchmark("chain").with_options({"lengths": 12}), seed=3, limit=5)
    assert (data.info.kind, data.info.name, data.info.selected) == ("generated", "chain", 5)
    assert data.info.options == {"phrasings": "seen", "lengths": [12], "limit": 5, "ids": None, "seed": 3}
    assert data.ids == tuple(f"chain-3-{index:04d}" for index in range(5))
    assert len(open_data(load_benchmark("chain"))) == 500


def test_too_few_problems_are_told_at_once() -> None:
    """With one operation there are 97 x 48 chains, of which a tenth is in the test split."""
    with pytest.raises(DataError, match=r"its options allow hardly more than 4[0-9]{2} different problems; 500 were"):
        open_data(load_benchmark("chain").with_options({"lengths": [1]}))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("countdown", {"size": [3]}, "unknown key 'size'; did you mean 'sizes'"),
        ("countdown", {"sizes": [2]}, "sizes: 2 should be 3 to 6"),
        ("chain", {"lengths": [0]}, "lengths: 0 should be 1 to 1000"),
        ("chain", {"phrasings": "new"}, "phrasings: should be 'seen', 'unseen' or 'all'"),
        ("sums", {"lengths": [41]}, "lengths: 41 should be 2 to 40"),
        ("aime25", {"sizes": [3]}, "benchmark aime25 has no options: its problems are not generated"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BenchmarkError, match=f"benchmark {name}") as caught:
        load_benchmark(name).with_options(options)
    assert says in str(caught.value)
