"""A folder holds a run, or an evaluation, or a tuning: no command begins its own in that of another."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest
from command_line import rsa

MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
SIZES = ["--n", "2", "--c", "1", "--t", "0", "--beta", "16", "--tau", "8", "--answer-budget", "16"]
COMMANDS = {
    "run": ["solve", "problem.txt", "--model", MODEL, *SIZES, "--out"],
    "evaluation": ["eval", "aime25", "--data", "rows.jsonl", "--model", MODEL, *SIZES, "--no-report", "--out"],
    "tuning": ["tune", MODEL, "--data", "rows.jsonl", *SIZES, "--budget", "20k", "--out"],
}
WHAT = {"run": "a run (run.json)", "evaluation": "an evaluation (eval.json)", "tuning": "a tuning (asked.json)"}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_another_kind_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `solve` and `eval` before the model is opened."""
    monkeypatch.chdir(tmp_path)
    Path("problem.txt").write_text("what is one?")
    rows = [{"problem": f"what is number {i}?", "answer": str(i % 3), "problem_idx": i + 1} for i in range(16)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind, command in COMMANDS.items():
        done = rsa(*command, kind)
        assert done.code == 0, done.err
    Path("broken.py").write_text("raise RuntimeError('a model that takes minutes to open')")
    before = files(tmp_path)
    for there, other in permutations(COMMANDS, 2):
        model = MODEL if other == "tuning" else "scripted:broken.py"
        done = rsa(*(model if word == MODEL else word for word in COMMANDS[other]), there)
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[-1] == f"error: {there} holds {WHAT[there]}: choose another folder"
    assert files(tmp_path) == before
