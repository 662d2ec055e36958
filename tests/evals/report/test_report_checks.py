"""A report of a problem whose answers were checked: each answer in the page has its mark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from evals.report import write_report
from rsa import MarkovianRSA, compose
from rsa.answers.checking import find_checker


def page(folder: Path, problem: str, checker: str, monkeypatch: pytest.MonkeyPatch) -> str:
    def play(request: GenerationRequest) -> Script:
        return Script(reasoning="hm", answer=rf"\boxed{{{4 if request.id.endswith(('0', '1')) else 5}}}")

    monkeypatch.setattr(compose, "checker_of", lambda model: find_checker(checker) if checker else None)
    MarkovianRSA(ScriptedEngine(play), n=3, c=2, t=0, beta=64, tau=16).solve_sync(problem, out=folder)
    return " ".join(write_report(folder).read_text().split())


def marks(text: str, before: str) -> list[str]:
    """The words of the marks that follow an answer, in this kind of element."""
    return re.findall(rf"{before}<bdi>\d</bdi> <span class=\"badge \w+\"><span[^>]*>.</span> (\w+)</span>", text)


def test_every_answer_has_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page(tmp_path / "run", "What is 2 + 2?", "puzzles", monkeypatch)
    assert "<title>What is 2 + 2?: 4 (verified)</title>" in text
    assert re.search(r"</span> verified</span>: 4 is the total\.</p>", text)
    assert marks(text, "<td [^>]*>") == ["verified", "wrong"], "the votes"
    assert marks(text, '<span class="answer">') == ["verified", "verified", "wrong"], "the candidates"
    assert "<p>Its answer is wrong: 5 is not 4.</p>" in text


def test_what_cannot_be_checked_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page(tmp_path / "run", "What is 12 * 12?", "puzzles", monkeypatch)
    assert "<title>What is 12 * 12?: 4 (unchecked)</title>" in text
    assert marks(text, '<span class="answer">') == ["unchecked"] * 3


def test_without_a_checker_there_are_no_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page(tmp_path / "run", "What is 2 + 2?", "", monkeypatch)
    assert "<title>What is 2 + 2?: 4</title>" in text
    assert not re.search(r"\b(verified|unchecked)\b|</span> wrong<|Its answer is", text)
