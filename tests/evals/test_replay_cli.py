"""`rsa replay`: what goes where, what a mistake is told, and the page it leaves."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from command_line import rsa

from evals import display
from evals.folder import read_results
from evals.replay.command import replay
from evals.replay.drawing import DRAWS
from evals.replay.figures import Replays
from evals.replay.keeping import REPLAY

MODEL = f"scripted:{Path(__file__).with_name('answers_by_seed.py')}"
SIZES = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "16", "--answer-budget", "32"]


@pytest.fixture(autouse=True)
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with an evaluation in `out`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSA_MODEL", MODEL)
    monkeypatch.setattr(display, "QUIET_S", 3600.0)
    rows = [{"problem": f"what is number {i}?", "answer": str(i % 3), "problem_idx": i + 1} for i in range(5)]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rsa("eval", "aime25", "--data", "data.jsonl", *SIZES, "--out", "out", "--no-report", "--quiet")
    assert done.code == 0, done.err


def test_a_table_on_standard_output() -> None:
    done = rsa("replay", "out", "--stop", "decided", "--stop", "none", "--t", "0", "--t", "1")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    answer = read_results("out").answer
    assert lines[0].startswith("aime25, rsa, in out: 5 problems; the runs' answers, scored by integer; 95% intervals")
    assert lines[1] == "as recorded: reproduced 5 of 5"
    assert lines[2].split() == ["answer", "difference", "tokens", "x", "steps", "x"]
    assert lines[3].startswith(f"as recorded        {answer.value:.3f} [{answer.low:.3f}, {answer.high:.3f}]  -")
    names = ["t 0, stop decided", "t 0, stop none", "t 1, stop decided", "t 1, stop none"]
    assert [line[:17].strip() for line in lines[4:8]] == names
    assert lines[8].startswith("note: steps: ")


def test_a_combination_that_contradicts_itself_is_left_out_with_a_note() -> None:
    done = rsa("replay", "out", "--stop", "decided", "--stop", "none", "--select", "weighted")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    rows = [line for line in lines[3:] if not line.startswith("note: ")]
    assert [line.split("  ")[0] for line in rows] == ["as recorded", "stop none, select weighted"]
    assert [line for line in lines if line.startswith("note: left out")] == [
        "note: left out: stop decided, select weighted: stop = decided is for select = vote, not 'weighted': leave one "
        "of them out"
    ]


def test_of_several_runs_a_combination_that_one_was_not_recorded_for_is_left_out() -> None:
    again = ("--data", "data.jsonl", *SIZES[:4], "--t", "0", *SIZES[6:], "--limit", "1", "--no-report", "--quiet")
    assert rsa("eval", "aime25", *again, "--out", "shorter").code == 0
    (run,) = Path("shorter/runs").iterdir()
    done = rsa("replay", *sorted(Path("out/runs").iterdir()), run, "--t", "0", "--t", "1", "--json")
    assert (done.code, done.err) == (0, "")
    (replayed,) = Replays.model_validate_json(done.out).replays
    assert [each.name for each in replayed.variants] == ["t 0"]
    assert replayed.notes == (f"left out, for the run in {run}: t 1: t = 1 is more than was generated, which is t = 0",)


def test_the_help_says_how_often_it_draws() -> None:
    assert inspect.signature(replay).parameters["draws"].default == DRAWS


def test_json_is_one_object() -> None:
    done = rsa("replay", "out", "out/runs", "--json")
    assert (done.code, done.out) == (2, "")
    done = rsa("replay", "out", *sorted(Path("out/runs").iterdir()), "--method", "vote", "--json")
    assert (done.code, done.err) == (0, "")
    found = Replays.model_validate_json(done.out)
    assert [each.kind for each in found.replays] == ["evaluation", "runs"]
    assert found.replays[0].recorded.answer == read_results("out").answer


def test_the_report_has_it() -> None:
    done = rsa("replay", "out", "--n", "1", "--n", "2", "--t", "0", "--report")
    assert (done.code, done.err) == (0, "report: out/report.html\n")
    assert Path("out", REPLAY).is_file()
    page = Path("out/report.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in ("as recorded", "n 1, t 0", "n 2, t 0"))
    done = rsa("replay", next(Path("out/runs").iterdir()), "--report")
    assert (done.code, done.err) == (
        2,
        "error: runs have no report that a replay could be part of: that is for evaluations\n",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["out", "--stop", "often"], "stop = 'often': no policy is called so"),
        (["out", "--stop", "often", "--stop", "none"], "stop = 'often': no policy is called so"),
        (["out", "--n", "0", "--n", "4", "--t", "0"], "n = 0: should be greater than or equal to 1"),
        (["out", "--waves", "0,4", "--waves", "none"], "waves.0 = 0: should be greater than or equal to 1"),
        (
            ["out", "--stop", "decided", "--select", "weighted", "--select", "first"],
            "stop = decided is for select = vote",
        ),
        (["out", "--select", "aggregate"], "select = aggregate needs the model"),
        (
            ["out", "--n", "2"],
            "n = 2 of 4 is for round 0 alone: later rounds read tails of candidates that would not be",
        ),
        (["out", "--t", "2"], "t = 2 is more than was generated, which is t = 1"),
        (["out", "--waves", "2,x"], "waves = '2,x': should be numbers with commas between them"),
        (["out", "--waves", ","], "waves = ',': should be numbers with commas between them"),
        (["out", "--stop", ",", "--stop", "none"], "stop = ',': should be policies with commas between them"),
        (["out", "--waves", "2,3"], "waves = 2,3 are 5 candidates, not n = 4"),
        (["out", "--draws", "0"], "draws = 0: should be 1 to 10000"),
        (["out", "--draws", "999999999999"], "draws = 999999999999: should be 1 to 10000"),
        (["out", "--n", "0", "--t", "0"], "n = 0: should be greater than or equal to 1"),
        (["out", "--method", "rza"], "no method is called 'rza'; did you mean 'rsa'?"),
        (["data.jsonl"], "there is no folder data.jsonl"),
    ],
)
def test_a_mistake_is_told_in_a_line(words: list[str], says: str) -> None:
    done = rsa("replay", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {says}")
    assert done.err.count("\n") == 1
