"""Seeds and subsets: the same everywhere, uniform, without replacement."""

from __future__ import annotations

import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from processes import run

from rsa import seeds


def test_seeds_are_fixed_for_ever() -> None:
    # Runs are resumed by later versions and other machines: these numbers must not change.
    assert seeds.derive(0, "p", 1, 2, "subset") == 7584269105122457727
    assert seeds.derive(0, "p", 1, 2, "sample") == 10048953934289750111
    assert seeds.draw(range(16), 4, 7) == (5, 3, 11, 1)


def test_seeds_do_not_depend_on_hash_randomisation() -> None:
    code = "from rsa import seeds; print(seeds.derive(1, 'é', 2, 3, 'subset'), seeds.draw(range(99), 9, 5))"
    outputs = {
        run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@given(
    run_seed=st.integers(0, 2**64 - 1), problem=st.text(max_size=5), number=st.integers(0, 9), index=st.integers(0, 99)
)
def test_every_use_has_a_seed_of_its_own(run_seed: int, problem: str, number: int, index: int) -> None:
    mine = seeds.derive(run_seed, problem, number, index, "subset")
    assert 0 <= mine < 2**64
    others = [
        seeds.derive(run_seed, problem, number, index, "sample"),
        seeds.derive(run_seed, problem, number + 1, index, "subset"),
        seeds.derive(run_seed, problem, number, index + 1, "subset"),
        seeds.derive(run_seed, problem + "x", number, index, "subset"),
    ]
    assert mine not in others


@given(size=st.integers(0, 12), population=st.sets(st.integers(0, 50), max_size=12), seed=st.integers(0, 2**64 - 1))
def test_draws_are_without_replacement(size: int, population: set[int], seed: int) -> None:
    drawn = seeds.draw(sorted(population), size, seed)
    assert len(drawn) == len(set(drawn)) == min(size, len(population))
    assert set(drawn) <= population


def test_draws_are_uniform() -> None:
    # 20,000 draws of 2 of 5: each of the 20 ordered pairs is expected 1,000 times, with a standard deviation
    # of 31. Six of them away happens by chance once in 25 million runs, and the seeds are fixed anyway.
    counts = Counter(seeds.draw(range(5), 2, seeds.derive(0, "p", 1, index, "subset")) for index in range(20_000))
    assert len(counts) == 20
    assert all(abs(count - 1000) < 6 * 31 for count in counts.values())
