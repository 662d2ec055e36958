"""examples/check_countdown.py: a person's way to verify what `rsa solve` printed."""

import sys
from pathlib import Path

import pytest
from processes import Done, run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def check(answer: str, file: Path = EXAMPLES / "countdown.txt") -> Done:
    return run([sys.executable, EXAMPLES / "check_countdown.py", file], text=answer)


def test_a_right_answer_is_verified() -> None:
    done = check("3*7+5-2\n")
    assert done.stdout == "verified: 3*7+5-2 = 24, each number used once\n"
    assert done.returncode == 0


@pytest.mark.parametrize("answer", ["3*7+5", "3*7+5+2", "24", "", "I do not know", "__import__('os')"])
def test_a_wrong_answer_is_not(answer: str) -> None:
    done = check(answer)
    assert done.stdout.startswith("not verified: ")
    assert done.returncode == 1


@pytest.mark.parametrize(
    "text",
    [
        "Make 24 from the numbers 3, 7, 5, 2.",
        "Numbers: 3, 7, 5, 2\nTarget: 24",
        "3, 7, 5, 2 -> 24",
        "Using each of 3 7 5 2 exactly once with + - * /, reach 24",
    ],
)
def test_other_wordings_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    assert check("3*7+5-2", tmp_path / "p.txt").returncode == 0


@pytest.mark.parametrize("text", ["What is the capital of France?", "", "make 24"])
def test_a_text_that_is_no_problem_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    done = check("1", tmp_path / "p.txt")
    assert done.returncode == 2
    assert "cannot read the problem" in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = check("1", tmp_path / "none.txt")
    assert done.returncode == 2
    assert "none.txt" in done.stderr
