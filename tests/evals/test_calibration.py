"""Whether who is surer is right more often: by tables, by brute force, and where it is plain what must come out."""

from itertools import combinations, pairwise
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.calibration import Claim, by_place, expected_error, in_parts, in_places, in_steps, ranked_right

WORTHS = st.sampled_from([0.0, 0.3, 1.0])
CLAIMS = st.builds(Claim, st.floats(-5, 0).map(lambda sure: round(sure, 1)), WORTHS, st.sampled_from("abc"))
SHARES = st.builds(
    lambda count, of, worth: Claim(min(count, of) / of, worth), st.integers(1, 16), st.integers(1, 16), WORTHS
)


def claims(*pairs: tuple[float, float]) -> list[Claim]:
    """Each of a group of its own."""
    return [Claim(sure, worth, str(place)) for place, (sure, worth) in enumerate(pairs)]


RANKED = [
    ("surer and right", [(0.1, 0), (0.2, 0), (0.8, 1), (0.9, 1)], 1.0),
    ("surer and wrong", [(0.1, 1), (0.2, 1), (0.8, 0), (0.9, 0)], 0.0),
    ("equally sure", [(0.5, 1), (0.5, 0), (0.5, 1)], 0.5),
    ("one of four pairs the other way", [(0.1, 0), (0.7, 0), (0.6, 1), (0.9, 1)], 0.75),
    ("one of two pairs equal", [(0.5, 0), (0.5, 1), (0.9, 1)], 0.75),
    ("partly right", [(0.1, 0), (0.2, 0.5), (0.3, 1)], 1.0),
    ("all right", [(0.1, 1), (0.9, 1)], None),
    ("nothing", [], None),
]


@pytest.mark.parametrize(("pairs", "expected"), [case[1:] for case in RANKED], ids=[case[0] for case in RANKED])
def test_how_well_sureness_ranks(pairs: list[tuple[float, float]], expected: float | None) -> None:
    assert ranked_right(claims(*pairs)) == expected


@given(st.lists(CLAIMS, max_size=20))
def test_ranks_are_those_of_all_pairs(said: list[Claim]) -> None:
    different = [(one, other) for one, other in combinations(said, 2) if one.worth != other.worth]
    won = [
        0.5 if one.sure == other.sure else float((one.sure > other.sure) == (one.worth > other.worth))
        for one, other in different
    ]
    assert ranked_right(said) == (pytest.approx(fsum(won) / len(won)) if won else None)


@given(st.lists(CLAIMS, min_size=1, max_size=20))
def test_ranks_need_no_scale_and_turned_round_they_are_what_is_missing_to_one(said: list[Claim]) -> None:
    plain = ranked_right(said)
    assert ranked_right([Claim(10 ** (each.sure / 5), each.worth) for each in said]) == plain
    turned = ranked_right([Claim(-each.sure, each.worth) for each in said])
    assert turned == (None if plain is None else pytest.approx(1 - plain))


ERRORS = [
    ("true to the word", [(1.0, 1), (1.0, 1), (0.5, 1), (0.5, 0)], 0.0),
    ("sure and wrong", [(1.0, 0), (1.0, 0)], 1.0),
    ("half of the sure ones wrong", [(1.0, 1), (1.0, 0)], 0.5),
    ("of two bins by their claims", [(1.0, 1), (1.0, 1), (1.0, 1), (0.5, 0)], 0.125),
    ("above and below in one bin", [(0.7, 1), (0.75, 0)], 0.225),
]


@pytest.mark.parametrize(("pairs", "expected"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
def test_the_expected_error_of_probabilities(pairs: list[tuple[float, float]], expected: float) -> None:
    assert expected_error(in_steps(claims(*pairs), 5)) == pytest.approx(expected)
    assert expected_error(in_steps([], 5)) is None


@pytest.mark.parametrize("of", range(1, 65))
def test_shares_are_in_the_step_that_they_end(of: int) -> None:
    """In whole numbers: floats put some of them a step too high."""
    for count in range(1, of + 1):
        (found,) = in_steps([Claim(count / of, 1.0)], 5)
        end = -(-5 * count // of)
        assert (found.low, found.high) == ((end - 1) / 5, end / 5)


@given(st.lists(SHARES, max_size=40), st.integers(1, 8))
def test_bins_hold_every_claim_once_in_order(said: list[Claim], parts: int) -> None:
    placed = list(zip(said, by_place(said, parts), strict=True))
    for bins in (in_steps(said, parts), in_parts(said, parts), in_places(placed, parts)):
        assert sum(each.claims for each in bins) == len(said)
        assert fsum(each.claims * each.worth for each in bins) == pytest.approx(fsum(each.worth for each in said))
        assert len(bins) <= parts
        assert all(first.high <= second.low for first, second in pairwise(bins))
        for each in bins:
            assert 0 <= each.least <= each.worth <= each.most <= 1
            assert each.least < each.most
            assert each.low <= each.sure + 1e-12
            assert each.sure <= each.high + 1e-12


@given(st.lists(st.floats(-5, 0), min_size=8, max_size=40, unique=True), st.integers(1, 8))
def test_parts_of_claims_that_all_differ_are_equally_large(sures: list[float], parts: int) -> None:
    sizes = [each.claims for each in in_parts(claims(*((sure, 1.0) for sure in sures)), parts)]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("sures", "parts"),
    [
        ([0.4, 0.1, 0.3, 0.2], [3, 0, 2, 1]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 1, 1, 2, 2, 3, 3]),
        ([0.5] * 4, [2] * 4),
        ([0.1, 0.5, 0.5, 0.9], [0, 2, 2, 3]),
        ([], []),
    ],
)
def test_places_among_others(sures: list[float], parts: list[int]) -> None:
    assert by_place(claims(*((sure, 1.0) for sure in sures)), 4) == parts


def test_a_bin_is_as_sharp_as_it_has_groups() -> None:
    """Forty claims about one problem say no more of others than one does."""
    many, one = ([Claim(0.9, 1.0, str(place % groups)) for place in range(40)] for groups in (40, 1))
    (sharp,), (blunt,) = in_steps(many, 5), in_steps(one, 5)
    assert (sharp.claims, sharp.groups, blunt.claims, blunt.groups) == (40, 40, 40, 1)
    assert (sharp.least, sharp.most) == pytest.approx((0.912, 1), abs=1e-3)
    assert (blunt.least, blunt.most) == pytest.approx((0.207, 1), abs=1e-3)
