"""`rsa tune` as a real process that is really killed: gone on with, it writes what an unbroken one writes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from processes import run, started
from sealed import content

from evals.tuning.records import PAGE, PROFILE, TUNED

from . import tunings

HOLDING_PLAY = r"""
import os, signal

completions = 0
plain = script

def script(request):
    global completions
    completions += 1
    if str(completions) == os.environ.get("HOLD_AT"):
        os.write(1, b"held\n")
        signal.pause()
    return plain(request)
"""
COMMAND = [Path(sys.executable).with_name("rsa"), "tune"]
WORDS = [
    "scripted:play.py", "--data", "rows.jsonl", *tunings.WORDS, "--beta", "32", "--limit", "16",
    "--stop", "none", "--select", "vote", "--out", "tuned",
]  # fmt: skip
FIRST, SECOND = 70, 20
"""Completions of the first process and of the next one until they are killed: in the first family of settings, which
has 64 of them on eight problems, and in the second."""


def start_in(folder: Path) -> Path:
    folder.mkdir()
    (folder / "play.py").write_text(tunings.PLAY + HOLDING_PLAY)
    tunings.rows(folder, 40)
    return folder


@pytest.fixture
def unbroken(tmp_path: Path) -> Path:
    folder = start_in(tmp_path / "unbroken")
    run([*COMMAND, *WORDS], cwd=folder, check=True)
    return folder / "tuned"


def kill_at(completions: int, words: list[str], folder: Path) -> None:
    with started([*COMMAND, *words], cwd=folder, env={**os.environ, "HOLD_AT": str(completions)}) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line == "held\n", child.communicate()
        child.kill()
        child.wait()


def test_killed_twice_it_comes_to_what_an_unbroken_tuning_does(unbroken: Path, tmp_path: Path) -> None:
    """Gone on with by the same words, and by --resume; what was generated before is not generated again."""
    folder = start_in(tmp_path / "killed")
    tuned = folder / "tuned"
    kill_at(FIRST, WORDS, folder)
    assert not (tuned / TUNED).exists()
    kept = finished(tuned)
    assert kept
    kill_at(SECOND, WORDS, folder)
    assert kept.items() <= finished(tuned).items(), "nothing is lost"
    done = run([*COMMAND, "--resume", "tuned"], cwd=folder, check=True)
    assert kept.items() <= finished(tuned).items()
    assert content(tuned / TUNED) == content(unbroken / TUNED)
    for name in (PROFILE, PAGE):
        assert undated(tuned / name) == undated(unbroken / name)
    assert done.stdout


def undated(path: Path) -> list[str]:
    """The lines of a file without the one that names the day."""
    return [line for line in path.read_text().splitlines() if ", tuned on " not in line]


def finished(tuned: Path) -> dict[Path, bytes]:
    """The results of single runs, byte for byte."""
    return {path: path.read_bytes() for path in tuned.rglob("runs/*/result.json")}
