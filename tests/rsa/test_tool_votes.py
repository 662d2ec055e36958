"""Candidates that call tools: equivalent calls are one answer, the leader's are returned, recorded and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import GenerationRequest, ToolCall
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, Problem, RSAConfig, Tool, read_events
from rsa.answers.calls import group_calls, in_words
from rsa.events import RoundFinished

PARAMETERS = {"city": {"type": "string"}, "days": {"type": "number"}, "why": {"type": "string"}}
WEATHER = Tool(name="weather", parameters={"type": "object", "properties": PARAMETERS})
NOW = Tool(name="now")
PROBLEM = Problem("Will it be warm in Paris?", tools=[WEATHER, NOW])
SMALL: dict[str, Any] = {"n": 5, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 512, "task": "general"}


def call(name: str = "weather", _id: str = "x", **arguments: Any) -> ToolCall:
    return ToolCall(id=_id, name=name, arguments=json.dumps(arguments))


def spelled(name: str = "weather", **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


# ---- which calls are the same

values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2, allow_nan=False) | st.text("ab1 ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)


def reordered(value: Any) -> Any:
    """The same value, its keys in another order and whole numbers with a fraction that is none."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reordered(each) for each in value]
    return float(value) if type(value) is int else value


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: that of Python, but that true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = {type(one), type(other)} <= {int, float}
    return (numbers or type(one) is type(other)) and bool(one == other)


@given(one=arguments, other=arguments)
def test_calls_are_the_same_if_their_arguments_are_as_json(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert group_calls([[call(**one)], [call(**reordered(one))]]) == [(0, 1)]
    assert (len(group_calls([[call(**one)], [call(**other)]])) == 1) == same(one, other)
    assert len(group_calls([[call(**one)], [call("now", **one)]])) == 2


@given(one=arguments, other=arguments, kept=arguments)
def test_arguments_may_be_left_out_of_the_comparison(
    one: dict[str, Any], other: dict[str, Any], kept: dict[str, Any]
) -> None:
    differing = [call(**{**kept, "why": each}) for each in (one, other)]
    for uncompared in (["why"], ["weather.why"]):
        assert group_calls([[each] for each in differing], uncompared=uncompared) == [(0, 1)]
    apart = group_calls([[each] for each in differing], uncompared=["now.why", "whyever"])
    assert (len(apart) == 1) == same(one, other)


@given(answers=st.lists(st.lists(st.sampled_from(["Paris", "Rome", "Oslo"]), max_size=3), max_size=8))
def test_several_calls_are_one_answer_in_whatever_order(answers: list[list[str]]) -> None:
    calls = [[call(city=city) for city in answer] for answer in answers]
    groups = group_calls(calls)
    assert sorted(index for group in groups for index in group) == [i for i, answer in enumerate(answers) if answer]
    for group in groups:
        assert len({tuple(sorted(answers[index])) for index in group}) == 1
    assert len(groups) == len({tuple(sorted(answer)) for answer in answers if answer})
    assert groups == sorted(groups, key=lambda group: (-len(group), group[0])), "the largest first, then the earliest"


def test_calls_in_words() -> None:
    assert in_words([call(city="Zürich", days=2), call("now")]) == 'weather(city="Zürich", days=2); now()'
    assert in_words([ToolCall(id="x", name="now", arguments="{oops")]) == "now({oops)"
    assert len(in_words([call(city="x" * 10_000)])) <= 400


# ---- in a run


def by_index(*answers: str) -> Callable[[GenerationRequest], Script]:
    """Candidate i of a round answers with `answers[i]`."""
    return lambda request: Script(f"in {request.id}", answers[int(request.id.rpartition("c")[2])])


FIVE = (
    "I look it up.\n" + spelled(city="Paris", days=1),
    spelled(city="Rome"),
    "<zyphra_tool_call>\n<function=weather>\n<parameter=days>\n1.0\n</parameter>\n<parameter=city>\nParis\n</parameter>\n"
    "</function>\n</zyphra_tool_call>",
    "It will.",
    spelled("rm"),
)


def test_the_winning_call_is_returned(tmp_path: Path) -> None:
    result = MarkovianRSA(ScriptedEngine(by_index(*FIVE)), **SMALL).solve_sync(PROBLEM, out=tmp_path / "run")
    assert result.answer == 'weather(city="Paris", days=1)'
    assert [(each.name, each.values) for each in result.calls] == [("weather", {"city": "Paris", "days": 1})]
    assert result.text == "I look it up."
    assert [(vote.answer, vote.candidates) for vote in result.votes] == [
        ('weather(city="Paris", days=1)', (0, 2)),
        ('weather(city="Rome")', (1,)),
        ("It will.", (3,)),
        (spelled("rm"), (4,)),
    ]
    assert result.votes[0].calls == result.rounds[-1].candidates[0].calls == result.calls
    assert all(candidate.calls == () for candidate in result.rounds[0].candidates), "no answer was asked for"
    logged = [event for event in read_events(tmp_path / "run") if isinstance(event, RoundFinished)]
    assert logged[-1].votes == result.votes


def test_left_out_arguments_join_votes() -> None:
    answers = [spelled(city="Paris", why=str(i)) for i in range(3)] + [spelled(city="Rome", why="x")] * 2
    apart = MarkovianRSA(ScriptedEngine(by_index(*answers)), **SMALL).solve_sync(PROBLEM)
    joined = MarkovianRSA(ScriptedEngine(by_index(*answers)), **SMALL, uncompared=["why"]).solve_sync(PROBLEM)
    assert (apart.calls[0].values or {})["city"] == "Rome"
    assert (joined.calls[0].values, joined.votes[0].candidates) == ({"city": "Paris", "why": "0"}, (0, 1, 2))
    assert RSAConfig.model_validate_json(joined.config.model_dump_json()) == joined.config


def test_calls_make_a_consensus() -> None:
    engine = ScriptedEngine(by_index(*[spelled(city="Paris")] * 4, "No."))
    result = MarkovianRSA(engine, **{**SMALL, "t": 3}, stop="consensus:.75").solve_sync(PROBLEM)
    assert (result.stopped_because, result.answered_from_round) == ("policy", 0)
    assert result.calls[0].name == "weather"


@pytest.mark.parametrize("lines", [2, 5, 8, 12, 14])
def test_a_resumed_run_returns_the_same_calls(tmp_path: Path, lines: int) -> None:
    settings = {**SMALL, "answers": "every"}
    whole = MarkovianRSA(ScriptedEngine(by_index(*FIVE)), **settings).solve_sync(PROBLEM, out=tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    log = tmp_path / "run" / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:lines]))
    again = ScriptedEngine(by_index(*FIVE))
    resumed = MarkovianRSA(again, **settings).solve_sync(PROBLEM, out=tmp_path / "run", resume=True)
    assert (resumed.answer, resumed.calls, resumed.votes) == (whole.answer, whole.calls, whole.votes), "ids, too"
    ids = [each.id for played in resumed.rounds for candidate in played.candidates for each in candidate.calls]
    assert len(ids) == len(set(ids)) == 6


def test_of_a_completion_that_was_cut_off_only_complete_calls_count() -> None:
    cut = spelled(city="Paris") + "\n" + spelled(city="Rome", why="x" * 600)
    result = MarkovianRSA(ScriptedEngine(cut), **SMALL).solve_sync(PROBLEM)
    assert [each.values for each in result.calls] == [{"city": "Paris"}]
    assert {c.completion.finish_reason for c in result.rounds[-1].candidates} == {"length"}
