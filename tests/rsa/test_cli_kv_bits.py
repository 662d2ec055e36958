"""`--kv-bits`: what takes it, what it is recorded as, and runs that go on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import rsa

from rsa import read_result
from rsa.compose import options_to_open
from rsa.runlog import EVENTS, RESULT, read_run

SIZES = ("--n", 3, "--c", 2, "--t", 1, "--beta", 24, "--tau", 8, "--answer-budget", 8, "--quiet")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RSA_MODEL", raising=False)
    Path("problem.txt").write_text("1 2 3")


@pytest.mark.parametrize("bits", ["3", "4", "0", "-8"])
def test_other_numbers_of_bits_are_refused_in_a_line(bits: str) -> None:
    code, out, err = rsa("solve", "problem.txt", "--kv-bits", bits)
    assert (code, out) == (2, "")
    assert err == f"error: --kv-bits = {bits}: should be 8, or 16 for what the model computes\n"
    assert list(Path().iterdir()) == [Path("problem.txt")]


def test_a_model_that_cannot_is_refused_in_a_line(plain_model: Path) -> None:
    code, _, err = rsa("solve", "problem.txt", "--model", plain_model, "--kv-bits", "8")
    assert code == 2
    assert err.startswith("error: --kv-bits = 8: llama runs by mlx-lm")
    assert err.count("\n") == 1


@pytest.mark.thorough
def test_a_run_goes_on_with_the_bits_that_it_began_with(golden: Path) -> None:
    words = ("solve", "problem.txt", "--model", golden / "tiny_hf", *SIZES)
    assert rsa(*words, "--kv-bits", 8, "--out", "whole")[0] in (0, 3)
    assert rsa(*words, "--kv-bits", 16, "--out", "other")[0] in (0, 3)
    record, _ = read_run("whole")
    assert record.model.details["kv_bits"] == 8
    assert options_to_open(record.model) == {"kv_bits": 8}
    other, _ = read_run("other")
    assert record.model.fingerprint == f"{other.model.fingerprint}-kv8"
    assert options_to_open(other.model) == {}

    unbroken = read_result("whole")
    lines = Path("whole", EVENTS).read_text().splitlines(keepends=True)
    Path("whole", RESULT).unlink()
    Path("whole", EVENTS).write_text("".join(lines[: len(lines) // 2]))
    assert rsa("solve", "--resume", "whole", "--quiet")[0] in (0, 3)
    resumed = read_result("whole")
    texts = [
        [candidate.completion and candidate.completion.text for round_ in run.rounds for candidate in round_.candidates]
        for run in (unbroken, resumed)
    ]
    assert texts[0] == texts[1]
    assert all(texts[0])

    code, _, err = rsa("solve", "--resume", "whole", "--kv-bits", 16, "--quiet")
    assert code == 2
    assert "holds another run. Different: model fingerprint" in err
