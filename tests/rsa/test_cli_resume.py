"""`rsa solve` and run folders: what may be resumed, with what, and what stands in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import rsa

from rsa import read_result

pytestmark = pytest.mark.usefixtures("with_a_problem")


@pytest.fixture
def finished(writer: list[object], tmp_path: Path) -> Path:
    assert rsa("solve", "problem.txt", *writer, "--out", "run").code == 0
    return tmp_path / "run"


def test_a_folder_that_holds_a_run_already(finished: Path, writer: list[object]) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    done = rsa("solve", "problem.txt", *writer, "--out", "run")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: run already holds a run: resume it, or choose another folder\n"
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("folder", ["problem.txt", "problem.txt/run"])
def test_a_folder_that_cannot_be_made(writer: list[object], folder: str) -> None:
    done = rsa("solve", "problem.txt", *writer, "--out", folder)
    assert (done.code, done.out) == (2, "")
    assert f"cannot use run folder {folder}: " in done.err


def test_a_finished_run_gives_its_answer_again(finished: Path) -> None:
    first = read_result(finished)
    done = rsa("solve", "--resume", finished)
    assert (done.code, done.out) == (0, f"{first.answer}\n")
    assert done.err.startswith("resuming with ")


def test_the_same_flags_may_be_repeated(finished: Path, writer: list[object]) -> None:
    assert rsa("solve", "problem.txt", "--resume", "run", *writer).code == 0


def test_resuming_from_another_folder(
    finished: Path, writer: list[object], plain_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Path("tiny")
    link.symlink_to(plain_model)
    flags = ["--model", "./tiny", *writer[2:], "--out", "relative"]
    assert rsa("solve", "problem.txt", *flags).code == 0
    there = Path("relative").absolute()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert rsa("solve", "--resume", there).code == 0


def test_the_environment_does_not_change_the_model_of_a_run(finished: Path) -> None:
    assert rsa("solve", "--resume", finished, env={"RSA_MODEL": "nowhere/at-all"}).code == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n", "8"], "n is 3, not 8"),
        (["--beta", "2k", "--seed", "4"], "beta is 40, not 2048; seed is 0, not 4"),
        (["--total-tokens", "5k"], "total_tokens is None, not 5120"),
        (["--deadline", "3"], "deadline_s is None, not 3.0"),
        (["--task", "math"], "task is general, not math"),
        (["--strict"], "strict is False, not True"),
        (["--profile", "light"], "n is 3, not 8; c is 2, not 4; t is 1, not 2; beta is 40, not 8192"),
        (["--out", "other"], "leave out --out"),
        (["--image", "problem.txt"], "leave out --image"),
        (["other.txt"], "another problem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_resuming_with_another_flag_names_it(finished: Path, flags: list[str], words: str) -> None:
    Path("other.txt").write_text("Say something else.")
    done = rsa("solve", "--resume", "run", *flags)
    assert (done.code, done.out) == (2, "")
    assert words in done.err, done.err


def test_resuming_with_another_model_names_it(finished: Path, thinking_model: Path) -> None:
    done = rsa("solve", "--resume", "run", "--model", thinking_model)
    assert (done.code, done.out) == (2, "")
    assert "run holds another run. Different: model fingerprint: " in done.err


@pytest.mark.parametrize("made", [True, False])
def test_resuming_what_is_no_run(made: bool) -> None:
    if made:
        Path("something").mkdir()
    done = rsa("solve", "--resume", "something")
    assert (done.code, done.err) == (2, "error: something is no run folder: it has no run.json\n")
    assert Path("something").exists() == made
    assert not made or not list(Path("something").iterdir())


def test_a_damaged_run_folder_is_told(finished: Path) -> None:
    log = finished / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], b"nonsense\n", *lines[3:]]))
    done = rsa("solve", "--resume", finished)
    assert done.code == 2
    assert "events.jsonl, line 3, is no event" in done.err
    (finished / "run.json").write_text("{}")
    done = rsa("solve", "--resume", finished)
    assert done.code == 2
    assert "run.json cannot be understood" in done.err


def test_a_changed_run_folder_is_refused_or_taken_on_trust(finished: Path) -> None:
    result = finished / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "answer": "8"}, separators=(",", ":")))
    done = rsa("solve", "--resume", finished)
    said = f"{result} is not what was written there: put it back as it was, or take it as it is with --trust"
    assert (done.code, done.out, done.err) == (2, "", f"error: {said}\n")
    done = rsa("solve", "--resume", finished, "--trust")
    assert (done.code, done.out) == (0, "8\n")
    assert "warning: taken on trust: result.json is not what was written there" in done.err
    assert "warning: taken on trust: result.json does not add up: its answer: '8' is recorded, " in done.err
    done = rsa("solve", "problem.txt", "--trust")
    assert (done.code, done.out) == (2, "")
    assert "--trust is for what a folder holds already: it goes with --resume" in done.err
