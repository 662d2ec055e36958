"""Some hundred hostile inputs at each door, and all that ever went wrong at one. `make fuzz` goes on for hours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing.core import Door, fuzz, judged, opened
from fuzzing.doors.known import DOORS

FOUND = json.loads((Path(__file__).parents[1] / "data" / "fuzz_cases.json").read_text(encoding="utf-8"))
CASES = {
    **{"settings": 200, "arguments": 25, "scores": 150, "data": 80, "runs": 60, "results": 20},
    **{"models": 10, "images": 300, "prompts": 80, "paths": 60, "library": 250},
}
"""Cases of each door, some seconds of it."""
KNOWN = {door.name: door for door in DOORS}


@pytest.fixture(scope="module", params=KNOWN)
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with opened(KNOWN[request.param]) as entered:
        yield entered


@pytest.mark.thorough
def test_hostile_inputs_are_refused_in_a_line_or_come_to_what_is_right(door: Door) -> None:
    tally = fuzz(door, cases=CASES[door.name], seed=20_261_129)
    assert not tally.found, "\n".join(map(str, tally.found.values()))
    assert len(tally.seen) > CASES[door.name] * 0.8
    assert len(tally.outcomes) > 1, "some are refused, and some are not"


@pytest.mark.thorough
def test_what_was_found_once_stays_mended(door: Door) -> None:
    for row in FOUND:
        if row["door"] == door.name:
            judged(door, row["case"])


def test_each_found_case_is_of_a_door() -> None:
    assert all(isinstance(row["why"], str) and row["door"] in {door.name for door in DOORS} for row in FOUND)


def test_doors_have_names_of_their_own() -> None:
    names: list[Any] = [door.name for door in DOORS]
    assert len({*names}) == len(names)
