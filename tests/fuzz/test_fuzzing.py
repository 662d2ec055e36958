"""The fuzzers themselves: they find what is planted, make it short, and harm what they say they harm."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fuzzing.core import AmissError, Case, DifferentError, Door, fuzz, judged
from fuzzing.edits import RAW, Edit, apply, changed, edits, written
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rsa.errors import ConfigError

FILES = ["run.json", "log.jsonl", "a.toml", "w.safetensors"]


class Planted(Door):
    """A door with a fault for every word that a case may have, but for the first two."""

    name = "planted"
    limit_s = 0.2

    @property
    def cases(self) -> SearchStrategy[Case]:
        words = ("right", "refused", "raised", "lines", "different")
        return st.fixed_dictionaries({"word": st.sampled_from(words), "numbers": st.lists(st.integers())})

    def enter(self, case: Case) -> str:
        match case["word"]:
            case "refused":
                raise ConfigError("n = 0: should be at least 1")
            case "raised" if len(case["numbers"]) > 2:
                raise ExceptionGroup("of a task group", [KeyError("x")])
            case "lines":
                raise ConfigError("more than\na line")
            case "different":
                raise DifferentError("the answer: 8")
            case "hung":
                while True:
                    time.monotonic()
        return "right"


def test_each_planted_fault_is_found_and_made_short(tmp_path: Path) -> None:
    tally = fuzz(Planted(tmp_path), cases=200, seed=3)
    found = {error.kind: error.case for error in tally.found.values()}
    assert found == {
        "raised": {"word": "raised", "numbers": [0, 0, 0]},
        "message": {"word": "lines", "numbers": []},
        "different": {"word": "different", "numbers": []},
    }
    assert "raised: KeyError in no code of ours" in tally.found
    assert tally.cases >= 200
    assert {*tally.outcomes} == {"right", "refused"}
    assert tally.again > 0


def test_a_seed_gives_the_same_cases(tmp_path: Path) -> None:
    def tried(seed: int) -> list[Case]:
        cases: list[Case] = []
        fuzz(Planted(tmp_path), cases=60, seed=seed, before=cases.append)
        return cases

    assert tried(1) == tried(1)
    assert tried(1) != tried(2)


def test_what_does_not_end_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(AmissError, match="hung"):
        judged(Planted(tmp_path), {"word": "hung", "numbers": []})


def fill(folder: Path) -> dict[str, bytes]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    contents = {
        "run.json": json.dumps({"a": [1, "x", None], "b": {"c": 0.5}}).encode(),
        "log.jsonl": b'{"a": 1}\n{"b": [true]}\n',
        "a.toml": b'n = 4\n[limits]\ntotal_tokens = "4k"\n',
        "w.safetensors": len(header).to_bytes(8, "little") + header + b"\0\0\0\0",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


@settings(max_examples=60)
@given(edits(FILES))
def test_an_edit_harms_the_file_that_it_names_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Edit]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "edited"
    before = fill(folder)
    apply(folder, json.loads(json.dumps(drawn)))
    named = {edit["file"] for edit in drawn}
    for name in {*FILES} - named:
        assert (folder / name).read_bytes() == before[name]


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        ({"do": "value", "leaf": 1, "value": 7}, {"a": 7, "b": 1}),
        ({"do": "value", "leaf": 2, "value": "y"}, {"a": ["y"], "b": 1}),
        ({"do": "nudge", "leaf": 3}, {"a": ["x"], "b": 2}),
        ({"do": "drop", "leaf": 1}, {"b": 1}),
        ({"do": "same", "leaf": 3, "other": 1}, {"a": ["x"], "b": ["x"]}),
        ({"do": "add", "leaf": 0, "key": "c", "value": None}, {"a": ["x"], "b": 1, "c": None}),
    ],
    ids=lambda value: value.get("do") if isinstance(value, dict) else None,
)
def test_a_leaf_of_json_is_changed_alone(edit: Edit, after: Any) -> None:
    data = json.dumps({"a": ["x"], "b": 1}).encode()
    assert json.loads(changed("run.json", data, edit)) == after


@pytest.mark.parametrize("name", RAW)
def test_what_python_cannot_say_in_json_is_spelled_out(name: str) -> None:
    assert written({"a": [{"raw": name}]}) == f'{{"a": [{RAW[name]}]}}'
