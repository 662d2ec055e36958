"""Tools of a problem: in every prompt of every round, in its id and its folder; what makes no sense is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, Problem, ProblemError, ResumeMismatchError, RSAConfig, Tool, ToolCall, Turn, read_run
from rsa.budgets import plan
from rsa.prompts import load_prompts

SMALL: dict[str, Any] = {"n": 3, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 256, "task": "general"}
WEATHER = Tool(
    name="weather",
    description="Of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CALL = ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}')
TALK = Problem(
    "Is it warm in Paris?",
    system="Be brief.",
    earlier=[Turn("user", "Hi."), Turn("assistant", "Hello.")],
    later=[Turn("assistant", "", calls=[CALL]), Turn("tool", "21 degrees", answers="c1")],
    tools=[WEATHER],
)


def script(request: GenerationRequest) -> Script:
    return Script(f"in {request.id}", "It is.")


def test_tools_and_all_turns_are_in_every_prompt() -> None:
    engine = ScriptedEngine(script)
    MarkovianRSA(engine, **SMALL).solve_sync(TALK)
    first, second = engine.requests[:3], engine.requests[3:]
    for request in engine.requests:
        assert request.tools == (WEATHER,)
        assert request.messages[:3] == TALK.earlier
        assert request.messages[4:6] == TALK.later
    assert {len(request.messages) for request in first} == {6}
    assert {request.messages for request in first} == {request.messages[:6] for request in second}, "as in round 0"
    for request in second:
        *_, last = request.messages
        assert (last.role, TALK.text in last.text, last.text.count("in r0-c")) == ("user", True, 2)


def test_tools_count_in_the_budgets() -> None:
    config, prompts = RSAConfig(**SMALL), load_prompts("general")
    engine = ScriptedEngine(script)
    bare, told = (plan(engine, config, Problem("Is it?", tools=tools), prompts) for tools in ([], [WEATHER]))
    added = len(WEATHER.model_dump_json())
    assert (told.initial_prompt - bare.initial_prompt, told.prompt_bound - bare.prompt_bound) == (added, added)


def test_a_model_that_takes_no_tools_is_not_given_any(tmp_path: Path) -> None:
    for problem in (Problem("Is it?", tools=[WEATHER]), Problem("Is it?", later=TALK.later)):
        with pytest.raises(ProblemError, match="the problem has tools, but scripted calls no tools: use"):
            MarkovianRSA(ScriptedEngine(script, tools=False), **SMALL).solve_sync(problem, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_whole_conversation_ends_with_a_result() -> None:
    assert Problem.conversation(TALK.messages, tools=[WEATHER]) == TALK
    assert (TALK.text, TALK.itself.role, len(TALK.earlier), len(TALK.later)) == ("Is it warm in Paris?", "user", 3, 2)


def test_the_id_follows_from_tools_and_calls() -> None:
    def talk(**changes: Any) -> Problem:
        given = {"arguments": CALL.arguments, "result": "21 degrees", "tools": [WEATHER], **changes}
        call = CALL.model_copy(update={"arguments": given["arguments"]})
        later = [Turn("assistant", "", calls=[call]), Turn("tool", given["result"], answers="c1")]
        return Problem(TALK.text, system="Be brief.", earlier=TALK.earlier[1:], later=later, tools=given["tools"])

    other = WEATHER.model_copy(update={"parameters": {"type": "object"}})
    changed = [talk(arguments='{"city": "Rome"}'), talk(result="cold"), talk(tools=[]), talk(tools=[other])]
    assert talk() == TALK
    assert len({each.id for each in [TALK, *changed, Problem(TALK.text), Problem(TALK.text, tools=[WEATHER])]}) == 7


def test_a_run_with_tools_is_resumed_from_its_folder(tmp_path: Path) -> None:
    whole = MarkovianRSA(ScriptedEngine(script), **SMALL).solve_sync(TALK, out=tmp_path / "run")
    record, problem = read_run(tmp_path / "run")
    assert problem == TALK
    assert (record.problem, record.tools) == (TALK.text, (WEATHER,))
    (tmp_path / "run" / "result.json").unlink()
    again = ScriptedEngine(script)
    resumed = MarkovianRSA(again, **SMALL).solve_sync(problem, out=tmp_path / "run", resume=True)
    assert again.requests == []
    assert [r.candidates for r in resumed.rounds] == [r.candidates for r in whole.rounds]
    hashes = {candidate.prompt_sha256 for candidate in whole.rounds[0].candidates}
    bare = Problem.conversation(TALK.messages, problem_id=TALK.id)
    with pytest.raises(ResumeMismatchError) as caught:
        MarkovianRSA(again, **SMALL).solve_sync(bare, out=tmp_path / "run", resume=True)
    assert set(caught.value.keys) == {"tools"}
    other = MarkovianRSA(again, **SMALL).solve_sync(bare)
    assert hashes.isdisjoint({candidate.prompt_sha256 for candidate in other.rounds[0].candidates})


def schema(**parameters: Any) -> Callable[[], Problem]:
    return lambda: Problem("x", tools=[Tool(name="f", parameters=parameters)])


def after(*turns: Turn) -> Callable[[], Problem]:
    return lambda: Problem.conversation([Turn("user", "x"), *turns])


BROKEN = CALL.model_copy(update={"arguments": "{"})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Problem("x", tools=[WEATHER, WEATHER]), "two tools have the name 'weather'"),
        (lambda: Problem("x", tools=["weather"]), "a tool is 'weather': should be a Tool("),  # type: ignore[list-item]
        (lambda: Problem("x", tools="weather"), "tools is 'weather': should be a list of tools"),  # type: ignore[arg-type]
        (lambda: Problem("x", tools=[Tool(name="a b")]), "the tool 'a b' has no name that can be called"),
        (schema(type="string"), "the parameters of the tool 'f' are no JSON schema of an object: its type is 'string'"),
        (schema(properties={"a": {"type": "strnig"}}), "'strnig' is not valid"),
        (schema(properties=5), "5 is not of type 'object' at properties"),
        (schema(required="a"), "at required"),
        (after(Turn("tool", "21")), "turn 2 of the conversation names no call that it answers"),
        (after(Turn("tool", "21", answers="c1")), "turn 2 of the conversation answers the call 'c1', which no turn"),
        (after(Turn("assistant", "", calls=[CALL])), "ends with a turn of the assistant"),
        (after(Turn("user", "", calls=[CALL])), "turn 2 of the conversation calls tools: only an assistant's turn can"),
        (after(Turn("assistant", "", calls=[BROKEN])), "the arguments of the call 'c1' in turn 2 of the conversation"),
        (after(Turn("user", "a", answers="c1")), "answers a call: only a tool's turn can"),
        (after(Turn("assistant", "a", calls=["c1"])), "a call in turn 2"),  # type: ignore[list-item]
        (lambda: Problem.conversation(TALK.later), "has no turn of a user"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(make: Callable[[], Problem], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_schema_nested_beyond_reason_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"properties": {"a": deep}}
    with pytest.raises(ProblemError, match="nested more than 64 deep"):
        Problem("x", tools=[Tool(name="f", parameters=deep)])
