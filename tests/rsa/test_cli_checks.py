"""What `rsa solve` says of answers that can be checked: bare for programs, marked for people, never silent."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engine.scripted import Script, ScriptedEngine
from rsa import compose
from rsa.answers.checking import find_checker
from rsa.command.cli import app

SMALL = ["--n", "2", "--c", "2", "--t", "0", "--beta", "64", "--tau", "16"]
SUM, PRODUCT = "What is 2 + 2?", "What is 12 * 12?"
Solve = Callable[..., Result]


@pytest.fixture
def solve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Solve:
    """Run `rsa solve` on a model that gives one answer and is checked as nano is."""

    def run(problem: str, answer: str, *flags: str, checker: str = "puzzles") -> Result:
        engine = ScriptedEngine(lambda request: Script(reasoning="hm", answer=rf"\boxed{{{answer}}}"))
        monkeypatch.setattr(compose, "open_engine", lambda model: engine)
        monkeypatch.setattr(compose, "checker_of", lambda model: find_checker(checker) if checker else None)
        words = ["solve", "--model", "nano", "--out", str(tmp_path / "run"), *SMALL, *flags, "-"]
        done = CliRunner().invoke(app, words, input=problem)
        assert done.exit_code == 0, done.stderr
        return done

    return run


CASES = [
    (SUM, "4", "verified", "4 (verified)", ""),
    (SUM, "5", "wrong", "5 (wrong: 5 is not 4)", "answer 5 is wrong: 5 is not 4\n"),
    (
        *(PRODUCT, "47", "unchecked", "47 (unchecked)"),
        "answer 47 is unchecked: the problem is not read as one of the puzzles that can be checked\n",
    ),
]


@pytest.mark.parametrize(("problem", "answer", "mark", "shown", "quiet_line"), CASES, ids=["right", "wrong", "open"])
def test_a_pipe_gets_the_bare_answer_and_standard_error_the_mark(
    solve: Solve, problem: str, answer: str, mark: str, shown: str, quiet_line: str
) -> None:
    done = solve(problem, answer)
    assert done.stdout == f"{answer}\n"
    assert f"\nanswer {shown} from round 0, 2 of 2 candidates agree; " in done.stderr
    assert done.stderr.count(f", answer {shown}\n") == 2


@pytest.mark.parametrize(("problem", "answer", "mark", "shown", "quiet_line"), CASES, ids=["right", "wrong", "open"])
def test_quiet_still_says_what_is_not_verified(
    solve: Solve, problem: str, answer: str, mark: str, shown: str, quiet_line: str
) -> None:
    done = solve(problem, answer, "--quiet")
    assert (done.stdout, done.stderr) == (f"{answer}\n", quiet_line)


@pytest.mark.parametrize(("problem", "answer", "mark", "shown", "quiet_line"), CASES, ids=["right", "wrong", "open"])
def test_a_terminal_gets_answer_and_mark(
    solve: Solve,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
    answer: str,
    mark: str,
    shown: str,
    quiet_line: str,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("rsa.command.cli._run", _with_stdout(monkeypatch, terminal))
    done = solve(problem, answer, "--quiet")
    assert terminal.getvalue() == f"{shown}\n"
    assert done.stderr == "", "it is said once"


def _with_stdout(monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO) -> Callable[..., object]:
    """`rsa.command.cli._run` that leaves standard output on a terminal."""
    from rsa.command import cli

    run = cli._run

    def wrapped(*words: Any, quiet: bool) -> object:
        result = run(*words, quiet=quiet)
        monkeypatch.setattr(sys, "stdout", stdout)
        return result

    return wrapped


@pytest.mark.parametrize(("problem", "answer", "mark", "shown", "quiet_line"), CASES, ids=["right", "wrong", "open"])
def test_json_and_files_hold_the_mark(
    solve: Solve, tmp_path: Path, problem: str, answer: str, mark: str, shown: str, quiet_line: str
) -> None:
    printed = json.loads(solve(problem, answer, "--json").stdout)
    assert printed["check"]["mark"] == mark
    assert [vote["check"]["mark"] for vote in printed["votes"]] == [mark]
    assert [candidate["check"]["mark"] for candidate in printed["rounds"][0]["candidates"]] == [mark, mark]
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept == {**printed, "digest": kept["digest"]}
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [e["candidate"]["check"]["mark"] for e in events if e["type"] == "candidate_finished"] == [mark, mark]


def test_nothing_changes_for_a_model_without_a_checker(solve: Solve) -> None:
    done = solve(SUM, "5", "--quiet", checker="")
    assert (done.stdout, done.stderr) == ("5\n", "")


def test_an_installation_that_lacks_the_checker_says_so(solve: Solve) -> None:
    done = solve(SUM, "4", "--quiet", checker="of another version")
    assert done.stdout == "4\n"
    assert done.stderr == (
        "answer 4 is unchecked: the checker 'of another version' cannot be loaded: install markovian-rsa again\n"
    )
