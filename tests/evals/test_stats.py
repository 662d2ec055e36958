"""The statistics of evaluations: against tables, by brute force, and by property."""

from itertools import combinations
from math import isclose
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.stats import (
    DIFFERENCES,
    MAX_DF,
    SCORES,
    best_of,
    estimate,
    majority,
    mean_of,
    powers_of_two,
    student_t,
    wilson,
)

# Two-sided 95% and 99%, from published tables of Student's t.
TABLE = [
    (1, 12.706, 63.657),
    (2, 4.303, 9.925),
    (5, 2.571, 4.032),
    (29, 2.045, 2.756),
    (32, 2.037, 2.738),
    (100, 1.984, 2.626),
]


@pytest.mark.parametrize(("df", "t95", "t99"), TABLE)
def test_student_t_agrees_with_the_tables(df: int, t95: float, t99: float) -> None:
    assert student_t(df) == pytest.approx(t95, abs=6e-4)
    assert student_t(df, 0.99) == pytest.approx(t99, abs=6e-4)


def test_student_t_becomes_the_normal_distribution() -> None:
    assert student_t(MAX_DF) == pytest.approx(1.95996, abs=5e-4)
    assert student_t(10 * MAX_DF) == student_t(MAX_DF)


def test_an_interval_by_hand() -> None:
    values = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.5}
    found = estimate(values)
    se = stdev(values.values()) / 2
    assert (found.value, found.problems, found.clusters) == (0.5, 4, 4)
    assert found.se == pytest.approx(se)
    assert found.margin == pytest.approx(student_t(3) * se)
    assert (found.low, found.high) == (0.0, 1.0)  # 0.5 ± 0.65 is cut off where scores end
    more = estimate({f"{key}{copy}": value for key, value in values.items() for copy in range(5)})
    assert more.low == pytest.approx(0.5 - student_t(19) * more.se)
    assert more.high == pytest.approx(0.5 + student_t(19) * more.se)


SHARES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@given(st.lists(st.tuples(SHARES, SHARES, st.sampled_from([None, "c", "d"])), min_size=2, max_size=30))
def test_an_interval_holds_its_mean_and_ends_where_scores_or_their_differences_end(
    problems: list[tuple[float, float, str | None]],
) -> None:
    clusters = {str(place): cluster for place, (_, _, cluster) in enumerate(problems)}
    scores = {str(place): one for place, (one, _, _) in enumerate(problems)}
    differences = {str(place): other - one for place, (one, other, _) in enumerate(problems)}
    for values, within in ((scores, SCORES), (differences, DIFFERENCES)):
        found = estimate(values, clusters, within)
        if found.se is None:
            assert (found.low, found.high, found.margin, found.clusters) == (None, None, None, 1)
            continue
        least, most = within
        assert least <= found.low <= found.value <= found.high <= most
        plain = (found.value - found.margin, found.value + found.margin)
        assert found.low == max(plain[0], least)
        assert found.high == min(plain[1], most)


def test_problems_without_a_value_are_left_out() -> None:
    assert estimate({"a": 1.0, "b": None, "c": 0.0}) == estimate({"a": 1.0, "c": 0.0})
    assert estimate({"a": None}).value is None


def test_one_problem_has_no_interval() -> None:
    alone = estimate({"a": 0.7})
    assert (alone.value, alone.se, alone.low) == (0.7, None, None)


def test_a_cluster_counts_as_one_observation() -> None:
    """Ten questions about one image that agree are worth one: the same interval as its mean among single ones, when
    all clusters have one size."""
    values = {f"{image}{question}": float(image == "a") for image in "abc" for question in range(10)}
    clustered = estimate(values, {key: key[0] for key in values})
    single = estimate({"a": 1.0, "b": 0.0, "c": 0.0})
    assert clustered.se == pytest.approx(single.se)
    assert (clustered.low, clustered.clusters) == (pytest.approx(single.low), 3)
    assert estimate(values).se < clustered.se


@given(st.lists(st.sampled_from([0.0, 0.3, 0.6, 1.0]), min_size=1, max_size=7), st.integers(1, 7))
def test_best_of_k_is_the_mean_over_all_subsets(values: list[float], k: int) -> None:
    if k > len(values):
        assert best_of(values, k) is None
        return
    brute = fmean(max(subset) for subset in combinations(values, k))
    found = best_of(values, k)
    assert found is not None
    assert isclose(found, brute, abs_tol=1e-12)


def test_majority_shares_ties() -> None:
    values = [1.0, 0.0, 1.0, 0.0, None]
    assert majority([(0, 2), (1,)], values) == 1.0
    assert majority([(0, 2), (1, 3)], values) == 0.5
    assert majority([], values) == 0.0
    assert majority([(4,)], values) is None
    assert majority([(4, 0)], values) == 1.0


def test_means_of_nothing() -> None:
    assert mean_of([]) is None
    assert mean_of([None, 0.5]) == 0.5
    assert powers_of_two(1) == [1]
    assert powers_of_two(12) == [1, 2, 4, 8, 12]


# Wilson's interval at 95% of so many of so many, as published in textbooks and by statsmodels.
WILSON = [
    (0, 10, 0.0, 0.2775),
    (1, 10, 0.0179, 0.4042),
    (5, 10, 0.2366, 0.7634),
    (10, 10, 0.7225, 1.0),
    (81, 263, 0.2553, 0.3662),
    (1, 1, 0.2065, 1.0),
]


@pytest.mark.parametrize(("right", "of", "low", "high"), WILSON)
def test_wilsons_interval_agrees_with_the_tables(right: int, of: int, low: float, high: float) -> None:
    assert wilson(right / of, of) == pytest.approx((low, high), abs=6e-5)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilsons_interval_holds_its_mean_has_a_width_and_is_its_own_mirror(mean: float, observations: int) -> None:
    low, high = wilson(mean, observations)
    assert 0 <= low <= mean <= high <= 1
    assert low < high
    assert wilson(1 - mean, observations) == pytest.approx((1 - high, 1 - low))
