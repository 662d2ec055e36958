"""The bit-vector Levenshtein distance against the table of distances, and what similarity promises."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.scorers import make
from evals.scorers.edit_distance import levenshtein, similarity

WORDS = st.text("abc é", max_size=80)


def by_table(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@given(one=WORDS, other=WORDS)
@settings(deadline=None)
def test_it_is_what_the_table_says(one: str, other: str) -> None:
    assert levenshtein(one, other) == by_table(one, other)


@pytest.mark.parametrize(
    ("one", "other", "distance"), [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
)
def test_distances(one: str, other: str, distance: int) -> None:
    assert levenshtein(one, other) == levenshtein(other, one) == distance


def test_a_page_takes_no_time() -> None:
    page = "".join(chr(97 + i * i % 26) for i in range(20_000))
    assert levenshtein(page, page[7:] + "1234567") <= 14


@given(one=WORDS, other=WORDS, floor=st.floats(0, 1))
@settings(deadline=None)
def test_similarity_is_symmetric_and_bounded(one: str, other: str, floor: float) -> None:
    found = similarity(one, other, floor)
    assert found == similarity(other, one, floor)
    assert found == 0.0 or floor <= found <= 1.0
    assert (similarity(one, other) == 1.0) == (one == other)


@given(answer=WORDS, golds=st.lists(WORDS.filter(str.strip), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_anls_is_of_the_nearest_gold(answer: str, golds: list[str]) -> None:
    async def value(wanted: list[str]) -> float | None:
        async with make("anls") as scorer:
            return (await scorer.score(f"\\boxed{{{answer}}}", list(wanted), {})).value

    alone = [anyio.run(value, [gold]) for gold in golds]
    assert anyio.run(value, golds) == max(score for score in alone if score is not None)
    assert all(one == 0.0 or 0.5 <= one <= 1.0 for one in alone if one is not None)
