"""Whose reasoning an answer comes from."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RSAConfig, RunResult
from rsa.command.display import descent_lines
from rsa.descent import line_of_descent, reasoning
from rsa.policies.registry import select_policy
from rsa.policies.selecting import Played, choose

pytestmark = pytest.mark.anyio


def named(request: GenerationRequest) -> Script:
    return Script(reasoning=f"thinking in {request.id}", answer=rf"\boxed{{{request.sampling.seed % 2}}}")


def tedious(request: GenerationRequest) -> Script:
    """Round 0 counts; whoever comes after it says its last line again."""
    lines = [f"line {number}" for number in range(1, 24)] if request.id.startswith("r0") else ["line 23"]
    return Script(reasoning="\n".join(lines), answer=r"\boxed{7}")


async def solve(script: Any, **settings: Any) -> RunResult:
    config = RSAConfig(**{"n": 6, "c": 2, "t": 3, "beta": 256, "tau": 64, "answer_budget": 32, **settings})
    return await MarkovianRSA(ScriptedEngine(script), config=config).solve("why?")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("select", ["vote", "first", "aggregate", "pooled", "tournament"])
async def test_each_is_a_parent_of_the_next_from_round_0_to_the_answer(select: str, seed: int) -> None:
    result = await solve(named, select=select, seed=seed)
    line = line_of_descent(result)
    choice = choose(Played.of(result), select_policy(result.config.select))
    assert choice is not None
    assert line[-1] == choice.candidate
    assert [candidate.round for candidate in line] == list(range(line[-1].round + 1))
    for parent, child in itertools.pairwise(line):
        assert parent.index in child.parents


async def test_parents_that_agree_are_followed() -> None:
    result = await solve(named, answers="every")
    line = line_of_descent(result)
    for parent, child in itertools.pairwise(line):
        answers = {result.rounds[parent.round].candidates[index].answer for index in child.parents}
        assert parent.answer == result.answer or result.answer not in answers


@pytest.mark.parametrize("seed", range(8))
async def test_without_answers_who_wrote_it_is_followed(seed: int) -> None:
    """Earlier rounds do not answer by default: what they wrote shows who was on the way."""

    def scripted(request: GenerationRequest) -> Script:
        right = request.sampling.seed % 2
        final = request.id.startswith("r3")
        return Script(reasoning=f"{request.id}: {7 if right and not final else 77}", answer=r"\boxed{7}")

    result = await solve(scripted, seed=seed)
    for parent, child in itertools.pairwise(line_of_descent(result)):
        written = [reasoning(result.rounds[parent.round].candidates[index]) for index in child.parents]
        assert reasoning(parent).endswith(": 7") == any(text.endswith(": 7") for text in written)


async def test_who_does_not_reason_is_shown_by_its_answer_section() -> None:
    result = await solve(lambda _: Script(reasoning="", answer=r"Seven, so \boxed{7}"), t=0)
    assert descent_lines(result) == ["reasoning of round 0 candidate 0:", r"  Seven, so \boxed{7}"]


async def test_who_says_it_again_is_left_out_and_long_reasoning_is_cut_to_its_end() -> None:
    result = await solve(tedious)
    assert [candidate.round for candidate in line_of_descent(result)] == [0]
    lines = descent_lines(result)
    assert lines[0].startswith("reasoning of round 0 candidate ")
    assert lines[1:3] == ["  ... 3 lines above", "  line 4"]
    assert lines[-1] == "  line 23"


async def test_a_terminal_is_not_moved_and_a_line_is_not_endless() -> None:
    result = await solve(lambda _: Script(reasoning="\x1b[2Jso" + "o" * 199, answer=r"\boxed{7}"))
    _, line = descent_lines(result)
    assert line.startswith("  �[2Jsoo")
    assert len(line) == 2 + 160


async def test_without_an_answer_there_is_nothing_to_tell() -> None:
    result = await solve(lambda _: Script(reasoning="hm", answer="none"))
    assert result.answer is None
    assert line_of_descent(result) == descent_lines(result) == []
    assert reasoning(result.rounds[0].candidates[0]) == "hm"
