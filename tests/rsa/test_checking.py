"""Checks of answers: recorded with every answer, and never more than a label."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import GenerationRequest, ModelInfo
from engine.scripted import Script, ScriptedEngine
from rsa import Check, MarkovianRSA, RSAConfig, RunResult, compose, read_events, read_result
from rsa.answers.checking import Checker, find_checker
from rsa.events import CandidateFinished, RoundFinished

NANO = ModelInfo(name="nano", details={"source": "nano"})
VERIFIED, WRONG, UNCHECKED = (Check(mark=mark) for mark in ("verified", "wrong", "unchecked"))


def answers(request: GenerationRequest) -> Script:
    """One of five answers, by the request's seed, or none."""
    value = request.sampling.seed % 6
    return Script(reasoning="hm", answer=rf"\boxed{{{value}}}" if value < 5 else "I do not know.")


def run(checker: Checker | None, out: Path | None = None, *, resume: bool = False, **settings: Any) -> RunResult:
    config = RSAConfig(**{"n": 6, "c": 2, "t": 1, "beta": 64, "tau": 16, "carry": "answer_or_reasoning", **settings})
    rsa = MarkovianRSA(ScriptedEngine(answers), config=config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "checker_of", lambda model: checker)
        return rsa.solve_sync("why?", out=out, resume=resume)


def by_value(problem: str, answer: str) -> Check:
    assert problem == "why?"
    return Check(mark=("verified", "wrong", "unchecked")[int(answer) % 3], reason=f"it is {answer}")


def test_every_answer_has_its_check_in_result_and_log(tmp_path: Path) -> None:
    result = run(by_value, tmp_path / "run")
    candidates = [candidate for played in result.rounds for candidate in played.candidates]
    assert {candidate.answer is None for candidate in candidates} == {True, False}
    for candidate in candidates:
        assert candidate.check == (None if candidate.answer is None else by_value("why?", candidate.answer))
    assert result.answer is not None
    assert result.check == by_value("why?", result.answer)
    assert [vote.check for vote in result.votes] == [by_value("why?", vote.answer) for vote in result.votes]
    events = read_events(tmp_path / "run")
    assert {e.candidate for e in events if isinstance(e, CandidateFinished)} == set(candidates)
    assert [e.votes for e in events if isinstance(e, RoundFinished)] == [played.votes for played in result.rounds]
    assert read_result(tmp_path / "run") == result


@given(st.dictionaries(st.integers(0, 4), st.sampled_from([VERIFIED, WRONG, UNCHECKED])), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_whatever_it_says_the_run_is_the_same(marks: dict[int, Check], seed: int) -> None:
    def checker(problem: str, answer: str) -> Check:
        return marks.get(int(answer), UNCHECKED)

    assert bare(run(checker, seed=seed)) == bare(run(None, seed=seed))


def bare(result: RunResult) -> Any:
    """The result without checks and times."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            gone = {"check", "timings", "started_s", "finished_s"}
            return {key: strip(item) for key, item in value.items() if key not in gone}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(result.model_dump(mode="json"))


def test_a_resumed_run_keeps_the_checks_that_were_recorded(tmp_path: Path) -> None:
    whole = run(by_value, tmp_path / "run")
    log = tmp_path / "run" / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "result.json").unlink()
    log.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert bare(run(by_value, tmp_path / "run", resume=True)) == bare(whole)


def test_nano_has_a_checker_and_other_models_have_none() -> None:
    assert compose.checker_of(NANO) is find_checker("puzzles")
    assert compose.checker_of(ModelInfo(name="zaya1-8b", details={"source": "Zyphra/ZAYA1-8B"})) is None
    assert compose.checker_of(ModelInfo(name="nano", details={"source": "/home/me/nano"})) is None, "another's folder"
    assert compose.checker_of(ModelInfo(name="mine")) is None
    assert run(None).check is None


def test_the_checker_that_comes_with_the_package_is_found() -> None:
    assert find_checker("puzzles")("What is 2 + 2?", "4").mark == "verified"


def test_a_checker_that_is_not_installed_leaves_answers_unchecked() -> None:
    found = find_checker("no such checker")("What is 2 + 2?", "4")
    assert found.mark == "unchecked"
    assert found.reason == "the checker 'no such checker' cannot be loaded: install markovian-rsa again"


def test_a_checker_that_fails_leaves_answers_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        @staticmethod
        def load() -> Checker:
            def checker(problem: str, answer: str) -> Check:
                raise RuntimeError("it is Monday")

            return checker

    monkeypatch.setattr(metadata, "entry_points", lambda **which: (Point(),))
    found = find_checker("works not on Mondays")("why?", "4")
    assert found == Check(
        mark="unchecked", reason="the checker 'works not on Mondays' failed: RuntimeError: it is Monday"
    )
