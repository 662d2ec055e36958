"""`rsa solve --method`, and what is said of rounds to who brings a model that was not trained for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Ended, rsa

from engine.api import ModelInfo
from rsa import read_run
from rsa.command.display import note_lines
from rsa.settings.config import RSAConfig
from rsa.settings.suitability import rounds_may_harm

SMALL = ["--task", "general", "--n", "2", "--beta", "12", "--tau", "8", "--answer-budget", "8", "--out", "run"]
OURS = ModelInfo(name="nano", details={"architecture": "zaya"})


def solve(*words: object) -> Ended:
    return rsa("solve", *words)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("problem.txt").write_text("Say something.\n")


@pytest.mark.parametrize(("flags", "noted"), [(["--t", "1"], True), (["--method", "vote"], False)])
def test_who_plays_rounds_with_any_model_is_told(plain_model: Path, flags: list[str], noted: bool) -> None:
    done = solve("problem.txt", "--model", plain_model, *SMALL, *flags)
    assert done.code in (0, 3)
    notes = [line for line in done.err.splitlines() if line.startswith("note: ") and "aggregat" in line]
    assert len(notes) == noted
    assert all("--method vote" in note for note in notes)


def test_a_method_is_its_settings_and_a_run_goes_on_with_it(plain_model: Path) -> None:
    first = solve("problem.txt", "--model", plain_model, *SMALL, "--method", "vote")
    record, _ = read_run("run")
    assert (record.config.t, record.config.c, record.config.n) == (0, 1, 2)
    again = solve("--resume", "run", "--method", "vote")
    assert (again.code, again.out) == (first.code, first.out)
    other = solve("--resume", "run", "--method", "full-rsa")
    assert other.code == 2
    assert "carry is reasoning, not full" in other.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method", "votes"], "no method is called 'votes'; did you mean 'vote'"),
        (["--method", "vote", "--t", "2"], "t = 2 contradicts method = vote, which means t = 0"),
        (["--method", "auto", "--t", "0"], "t = 0 contradicts method = auto, which plays rounds while nobody answers"),
        (
            ["--method", "auto", "--select", "pooled"],
            "select = pooled contradicts method = auto, which means select = vote",
        ),
        (["--method", "auto", "--stop", "bayes:.9"], "stop = bayes:.9 contradicts method = auto, which means stop"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: list[str], words: str) -> None:
    done = solve("problem.txt", "--model", "nano", *flags)
    assert done.code == 2
    assert words in done.err
    assert not Path("run").exists()


def test_rounds_are_doubted_only_where_they_are_played_by_others() -> None:
    other = ModelInfo(name="m", notes=("a first note",))
    assert rounds_may_harm(RSAConfig(), other)
    assert not rounds_may_harm(RSAConfig(t=0), other)
    assert not rounds_may_harm(RSAConfig(), OURS)
    assert note_lines(RSAConfig(), OURS) == []
    assert len(note_lines(RSAConfig(), other)) == 2
