"""Names of columns that lead into a row: which part of it they find, whatever its keys are called."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.data.columns import Found, find, paths, top

Row = dict[str, Any]
ROW = {
    "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2 + 3?"}],
    "reward": {"truth": "5", "Truth": "6", "none": None},
    "a.b": "dotted",
    "a": {"b": "nested", "c.d": {"e": 1}},
    "l[0]": "bracketed",
    "l": ["listed", ["deep"]],
    "empty": None,
    "Capital": {"Letters": "x"},
}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("prompt[0].content", Found("prompt[0].content", "be brief")),
        ("prompt[-1].content", Found("prompt[-1].content", "2 + 3?")),
        ("prompt[2].content", None),
        ("prompt[-3].content", None),
        ("prompt.content", None),
        ("prompt[0]content", None),
        ("prompt[x]", None),
        ("reward.truth", Found("reward.truth", "5")),
        ("reward.TRUTH", Found("reward.truth", "5")),
        ("reward.Truth", Found("reward.Truth", "6")),
        ("reward.", None),
        ("reward.none", Found("reward.none", None)),
        ("reward.none.further[3]", Found("reward.none.further[3]", None)),
        ("reward.truth.further", None),
        ("a.b", Found("a.b", "dotted")),
        ("a.c.d.e", Found("a.c.d.e", 1)),
        ("l[0]", Found("l[0]", "bracketed")),
        ("l[1][0]", Found("l[1][0]", "deep")),
        ("empty", Found("empty", None)),
        ("capital.letters", Found("Capital.Letters", "x")),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_name_leads_into_a_row(name: str, found: Found | None) -> None:
    assert find(ROW, [name]) == found


def test_the_first_alternative_that_is_there_counts() -> None:
    assert find(ROW, ["nowhere", "reward.truth", "a.b"]) == Found("reward.truth", "5")
    assert find(ROW, ["nowhere"]) is None


KEYS = st.text(st.sampled_from("aB.[0] é"), min_size=1, max_size=4)
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)


@pytest.mark.thorough
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_column_of_a_row_is_found_by_its_literal_name(row: Row) -> None:
    for key, value in row.items():
        assert find(row, [key]) == Found(key, value)
        assert top(list(row), [key]) == key


PLAIN = st.text(st.characters(categories=["L"], max_codepoint=0x24F), min_size=1, max_size=4).map(str.lower)
NESTED = st.recursive(
    st.integers(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3), st.dictionaries(PLAIN, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.thorough
@given(st.dictionaries(PLAIN, NESTED, min_size=1, max_size=4))
def test_every_path_that_a_message_names_leads_somewhere(row: Row) -> None:
    for path in paths(row):
        found = find(row, [path])
        assert found is not None
        assert found.name == path
        assert re.split(r"[.\[]", path)[0] == top(list(row), [path])
