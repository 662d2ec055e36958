"""`rsa tune`: what it writes and says, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import rsa

from evals.folder import read_eval
from evals.tuning.records import Tuned, read_tuned
from evals.tuning.table import tuned_lines

from .tunings import MODEL, PLAY, WORDS, rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("play.py").write_text(PLAY)
    rows(tmp_path, 40)
    return tmp_path


def test_the_command_writes_a_profile_that_others_take(here: Path) -> None:
    done = rsa("tune", MODEL, "--data", "rows.jsonl", *WORDS, "--out", "out", "--budget", "100k")
    assert done.code == 0, done.err
    found = read_tuned(Path("out"))
    assert done.out.splitlines() == tuned_lines(found)
    assert done.err.splitlines()[-2:] == ["profile: out/profile.toml", "page: out/tune.html"]
    assert found.profile["t"] == 1
    words = ["eval", f"{next(Path('out').glob('rows.toml'))}", "--model", MODEL, "--profile", "out/profile.toml"]
    fresh = rsa(*words, "--seed", "7", "--out", "fresh", "--no-report", "--quiet")
    assert fresh.code == 0, fresh.err
    assert read_eval("fresh").config.t == 1
    again = rsa("tune", "--resume", "out", "--json", "--quiet")
    assert (again.code, again.err) == (0, "")
    assert Tuned.model_validate_json(again.out) == found
    for budget, says in (("0", "budget = 0: should be greater"), ("x", "budget: 'x' is no size")):
        refused = rsa("tune", "--resume", "out", "--budget", budget)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert says in refused.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no model given: rsa tune MODEL --data FILE"),
        ([MODEL], "no problems given: --data FILE, or --benchmark NAME"),
        ([MODEL, "--data", "rows.jsonl", "--limit", "3"], "3 problems cannot tell settings apart: give 16 at least"),
        ([MODEL, "--data", "rows.jsonl", "--limit", "0"], "error: limit = 0: should be greater than or equal to 1"),
        ([MODEL, "--data", "rows.jsonl", "--stop", ","], "error: stop = ',': should be policies with commas between"),
        ([MODEL, "--data", "rows.jsonl", "--beta", "64", "--beta", "x"], "error: beta: 'x' is no size"),
        ([MODEL, "--data", "rows.jsonl", "--budget", "many"], "budget: 'many' is no size"),
        ([MODEL, "--benchmark", "chain", "--metric", "math"], "--metric goes with --data alone"),
        ([MODEL, "--data", "rows.jsonl", "--beta", "64", "--tau", "128"], "tau = 128 is more than beta = 64"),
        (["--resume", "nowhere"], "holds no tuning"),
        (["--resume", "nowhere", "--n", "4"], "--resume does not go with --n"),
        ([MODEL, "--resume", "nowhere"], "--resume does not go with MODEL"),
    ],
)
def test_wrong_usage_is_a_line(here: Path, words: list[str], says: str) -> None:
    done = rsa("tune", *words)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not Path("runs").exists()
