"""Every metric on its table of cases in tests/data; each bug adds a row. The values are worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import BenchmarkError, GoldError
from evals.scorers import make, names
from evals.scorers.protocol import Score

pytestmark = pytest.mark.anyio
DATA = Path(__file__).parent.parent / "data"
QUICK = ("choice", "anls", "vqa", "mathvista", "mmmu")
FREE = {"question_type": "free_form"}
MULTI = {"question_type": "multi_choice", "choices": ["a", "b"]}
OPTIONS = {"question_type": "multiple-choice", "options": ["a", "b"]}


def cases(metric: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DATA / f"{metric}_cases.json").read_text())
    return loaded


def check(case: Mapping[str, Any], found: Score) -> None:
    assert found.status == case.get("status", "scored"), found
    assert found.value == (None if case["value"] is None else pytest.approx(case["value"])), found
    assert found.extracted == case.get("extracted", found.extracted)


@pytest.mark.parametrize(
    ("metric", "case"),
    [pytest.param(metric, case, id=f"{metric}-{case['name']}") for metric in QUICK for case in cases(metric)],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_case(metric: str, case: dict[str, Any]) -> None:
    async with make(metric, settings=case.get("settings")) as scorer:
        check(case, await scorer.score(case["answer"], case["gold"], case.get("fields", {})))


@pytest.mark.parametrize(
    ("metric", "gold", "fields", "said"),
    [
        ("math", "", {}, "gold: should be a text or a number"),
        ("math", ["1"], {}, "gold: should be a text or a number"),
        ("math", True, {}, "gold: should be a text or a number, not True"),
        ("math", None, {}, "not missing"),
        ("integer", "1/2", {}, "gold: should be an integer"),
        ("integer", "x" * 1000, {}, r"gold: should be an integer, not 'x+…$"),
        ("choice", "AB", {}, "gold: should be a letter up to Z"),
        ("choice", "4", {"options": ["a", "b"]}, "gold: should be a letter up to B or an index from 0"),
        ("choice", "A", {"options": "ab"}, "field options: should be a list of 1 to 26 options"),
        ("anls", [], {}, "gold: the list of answers is empty"),
        ("anls", ["a", None], {}, "gold: should be a text"),
        ("vqa", "red", {}, "gold: should list the answers of at least 4 annotators"),
        ("vqa", ["red"] * 3, {}, "at least 4 annotators"),
        ("vqa", [{"text": "red"}] * 10, {}, "gold: should be a text"),
        ("mathvista", "7", {}, "field question_type: should be one of multi_choice, free_form, not missing"),
        ("mathvista", "7", FREE, "field answer_type: should be one of integer, float, list, text"),
        ("mathvista", "7", {**FREE, "answer_type": "float"}, "field precision: should be a number of digits"),
        ("mathvista", "7", {**FREE, "answer_type": "float", "precision": 1.5}, "field precision"),
        ("mathvista", "seven", {**FREE, "answer_type": "integer"}, "gold: should be of type integer"),
        ("mathvista", "c", MULTI, "gold: 'c' is not among the choices"),
        ("mathvista", "c", {**MULTI, "choices": None}, "field choices: should be a list"),
        ("mmmu", "A", {"question_type": "short"}, "field question_type: should be one of multiple-choice, open"),
        ("mmmu", "C", OPTIONS, "gold: should be a letter of 2 options"),
        ("mmmu", "A", {**OPTIONS, "options": []}, "field options"),
        ("countdown", "24", {}, "gold: should be an object with numbers and target"),
        ("countdown", {"numbers": [1, "2"], "target": 3}, {}, "gold: numbers should be whole numbers above 0"),
        ("countdown", {"numbers": [1, 2], "target": "3"}, {}, "gold: target should be of type int"),
        ("chain", {"start": 97, "ops": [["+", 5]]}, {}, "gold: start is 97"),
        ("chain", {"start": 9, "ops": [["/", 5]]}, {}, "gold: ops should be like"),
        ("chain", {"start": 9, "ops": []}, {}, "gold: there are no ops"),
        ("sums", {"terms": ["9"]}, {}, "gold: terms should be a list of whole numbers"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_gold_or_field_that_does_not_fit_is_named(metric: str, gold: Any, fields: Any, said: str) -> None:
    async with make(metric) as scorer:
        for answer in ("", "<think>"):  # also where there is no answer: the benchmark is wrong, whatever was written
            with pytest.raises(GoldError, match=said):
                await scorer.score(answer, gold, fields)


@pytest.mark.parametrize(
    ("metric", "settings", "said"),
    [
        ("mth", {}, "no metric is called 'mth'; did you mean 'math'.*There are math, integer"),
        ("vqa", {"threshold": 0.5}, "metric vqa: no setting is called 'threshold'. It has none"),
        ("anls", {"treshold": 0.5}, "did you mean 'threshold'"),
        ("anls", {"threshold": 5}, "threshold should be a number from 0 to 1, not 5"),
        ("math", {"math": None}, "no setting is called 'math'"),
    ],
)
async def test_a_metric_or_setting_that_does_not_exist(metric: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        make(metric, settings=settings)


@pytest.mark.parametrize(
    ("metric", "answers", "groups"),
    [
        ("choice", ["A", "B", None, "B"], [(1, 3), (0,)]),
        ("anls", ["New  York", "new york", "Boston"], [(0, 1), (2,)]),
        ("vqa", ["two dogs", "2 dogs.", "The 2 dogs", "cats", None], [(0, 1, 2), (3,)]),
        ("mathvista", ["12", "7", "12"], [(0, 2), (1,)]),
        ("mmmu", ["1,200", "1200.0", "Paris", "paris"], [(0, 1), (2, 3)]),
        ("countdown", ["7*5-9-2", "(7*5)-(9+2)", "7*5-2-9=24", "7+5+9+2", "x"], [(0, 1, 2), (3,), (4,)]),
        ("chain", ["40", None, "41", "41"], [(2, 3), (0,)]),
        ("sums", [], []),
    ],
)
async def test_equivalent_answers_are_one_group(
    metric: str, answers: list[str | None], groups: list[tuple[int, ...]]
) -> None:
    async with make(metric) as scorer:
        assert await scorer.group(answers) == groups


GROUPED = ("choice", "anls", "vqa", "mathvista", "mmmu", "countdown", "chain", "sums")


@given(
    metric=st.sampled_from(GROUPED),
    answers=st.lists(st.one_of(st.none(), st.text("aB 1.,+'", min_size=1, max_size=4)), max_size=12),
)
@settings(max_examples=80, deadline=None)
def test_groups_are_a_partition(metric: str, answers: list[str | None]) -> None:
    async def grouped() -> list[tuple[int, ...]]:
        async with make(metric) as scorer:
            return await scorer.group(answers)

    groups = anyio.run(grouped)
    members = [index for group in groups for index in group]
    assert sorted(members) == [index for index, answer in enumerate(answers) if answer is not None]
    assert groups == sorted(groups, key=lambda group: (-len(group), group[0]))
    assert all(list(group) == sorted(group) for group in groups)
    where = {index: group for group in groups for index in group}
    assert all(where[i] is where[j] for i in members for j in members if answers[i] == answers[j])


def test_every_metric_has_cases() -> None:
    tables = {file.stem.removesuffix("_cases") for file in DATA.glob("*_cases.json")}
    assert set(names()) - tables == {"countdown", "chain", "sums"}, "their checkers have tests of their own"
