"""The report of a solved problem: its rounds, what limits and policies did, its conversation and its tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest, Tool, ToolCall
from engine.scripted import Script, ScriptedEngine
from evals.report import write_report
from rsa import read_result
from rsa.controller import MarkovianRSA
from rsa.errors import RunFolderError
from rsa.problem import Problem, Turn
from rsa.settings.config import Limits, RSAConfig

from .pages import copy_of, page_of

pytestmark = pytest.mark.thorough


def test_a_solved_problem_is_told_whole(solved: Path) -> None:
    result = read_result(solved)
    page = page_of(solved)
    assert result.answer is not None
    assert page.text.count(f" {result.answer} ") > result.votes[0].count
    assert f"{result.votes[0].count} of 6 candidates of round 2 gave this answer." in page.text
    assert f"{result.usage.completion_tokens:,} tokens" in page.text
    assert "Who read whom" in page.text
    for played in result.rounds:
        assert f"{played.usage.completion_tokens:,}" in page.text
        for candidate in played.candidates:
            assert candidate.tail is not None
            assert " ".join(candidate.tail.text.split()) in page.text
            if candidate.parents:
                assert f"Went on from the tails of {' , '.join(map(str, candidate.parents))}" in page.text
    agreeing = sum(vote.count for played in result.rounds for vote in played.votes if vote.answer == result.answer)
    assert page.text.count("● agrees") == agreeing


def test_the_turns_before_a_problem_are_shown_in_order_with_their_pictures(tmp_path: Path) -> None:
    turns = [Turn("user", "What is a rhombus?", [b"\x89PNG of nothing"]), Turn("assistant", "A parallelogram.")]
    problem = Problem("And a square?", system="Answer in one line.", earlier=turns)
    MarkovianRSA(ScriptedEngine(Script("so", r"\boxed{1}")), n=1, c=1, t=0).solve_sync(problem, out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    said = ["Earlier in the conversation", "System", "Answer in one line.", "User", "What is a rhombus?"]
    said += ["Image 1 of turn 2: ", "Assistant", "A parallelogram.", "The problem itself", "And a square?"]
    places = [text.index(words, text.index(said[0])) for words in said]
    assert places == sorted(places)


def test_tools_calls_and_results_are_shown_and_the_vote_on_calls(tmp_path: Path) -> None:
    call = ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}')
    later = [Turn("assistant", "I look.", calls=[call]), Turn("tool", "21 degrees", answers="c1")]
    tools = [Tool(name="weather"), Tool(name="now")]
    problem = Problem(
        "Is it warm?", images=[b"\x89PNG of nothing"], earlier=[Turn("user", "Hi.")], later=later, tools=tools
    )
    spelled = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
    rsa = MarkovianRSA(ScriptedEngine(Script("so", spelled)), n=2, c=1, t=0)
    rsa.solve_sync(problem, out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    said = ["Earlier in the conversation", "Hi.", "The problem itself", "Is it warm?", "Image 1 of the problem: "]
    said += ["Tools that could be called: weather, now", "Calls of tools, and their results", "I look."]
    said += ['Calls weather(city="Paris")', "21 degrees", "Answers by round", 'weather(city="Rome")']
    places = [text.index(words, text.index(said[0])) for words in said]
    assert places == sorted(places)


def test_a_run_of_an_older_version_has_no_report_but_a_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 2, "problem": "why?"}')
    with pytest.raises(RunFolderError, match=r"by an older version \(format 2\), which this one cannot read"):
        write_report(tmp_path)


def test_a_run_that_has_not_ended_is_told_so_far(tmp_path: Path, solved: Path) -> None:
    folder = copy_of(solved, tmp_path)
    (folder / "result.json").unlink()
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    middle = next(i for i, line in enumerate(lines) if b'"round_started"' in line and b'"round":2' in line)
    (folder / "events.jsonl").write_bytes(b"".join(lines[:middle]) + lines[middle][:20])
    page = page_of(folder)
    assert "This run has not ended" in page.text
    assert "Round 1" in page.text
    assert "Round 2" not in page.text
    (folder / "events.jsonl").unlink()
    assert "This run has not ended" in page_of(folder).text


def test_who_was_not_asked_handed_on_and_who_was_says_why_there_is_no_answer(tmp_path: Path) -> None:
    def refuses(request: GenerationRequest) -> Script:
        return Script("It is not a puzzle.", "I only know <number> puzzles." if "c00" in request.id else "No.")

    solver = MarkovianRSA(ScriptedEngine(refuses), n=4, c=2, t=2, beta=64, tau=16, answer_budget=64)
    solver.solve_sync("What?", out=tmp_path / "run")
    text = page_of(tmp_path / "run").text
    assert text.count("→ handed on") == 2 * 4
    assert text.count("→ 4 handed on") == 2
    assert text.count("∅ no answer") == 4
    assert r"No answer: 4 of 4 final candidates ended without an answer in \boxed{...}." in text
    assert "3 wrote at the end “No.”; 1 wrote at the end “I only know <number> puzzles.”." in text


def test_limits_and_warnings_come_first(tmp_path: Path, make: Any) -> None:
    engine = ScriptedEngine(make.reasoner(), context_tokens=900, tokens_per_step=16)
    config = RSAConfig(n=3, c=2, t=2, beta=2000, tau=100, answer_budget=60, limits=Limits(total_tokens=700))
    result = MarkovianRSA(engine, config=config).solve_sync("What is 2 + 40? (gold 42. )", out=tmp_path / "run")
    assert result.warnings
    assert result.limits_hit
    text = page_of(tmp_path / "run").text
    warned = text[text.index("Read this first") : text.index("Round by round")]
    assert "Limit total_tokens:" in warned
    assert all(" ".join(warning.split()) in warned for warning in result.warnings)
    assert "It stopped early: the limit on tokens was reached." in text
    assert "β as used" in text


def test_what_policies_decided_is_told_and_is_no_warning(tmp_path: Path, make: Any) -> None:
    config = RSAConfig(n=3, c=2, t=2, beta=400, tau=60, answer_budget=60, stop=("consensus:.1",))
    engine = ScriptedEngine(make.reasoner(skill=0.9, cut=0.0), tokens_per_step=16)
    result = MarkovianRSA(engine, config=config).solve_sync("What is 2 + 40? (gold 42. )", out=tmp_path / "run")
    assert result.decisions
    text = page_of(tmp_path / "run").text
    assert "Decided: the run ends after round 0 by consensus:.1" in text
    assert "Read this first" not in text
