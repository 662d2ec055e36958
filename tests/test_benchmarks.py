"""Programs that measure speed run, and say what they measured in one line of JSON last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import processes

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "golden" / "tiny_hf"


def measured(program: str, *words: object) -> dict[str, Any]:
    done = processes.run([sys.executable, ROOT / "benchmarks" / program, *words], check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["mlx"]
    return found


def test_rows_that_come_and_go_leave_memory_and_graph_as_they_were() -> None:
    found = measured("endurance.py", "--model", TINY, "--steps", 200, "--rows", 3, "--tokens", 5, 30)
    assert len(found["rows"]) == 10
    assert found["joined"] > 20
    assert found["memory_flat"]
    assert found["graph_flat"]
    assert all(row["operations/step"] > 50 for row in found["rows"])


def test_prompts_are_read_and_timed() -> None:
    found = measured("prefill.py", "--model", TINY, "--prompts", "1x40", "3x9", "--rounds", 1, "--kv-bits", 8)
    assert [(row["prompts"], row["tokens"]) for row in found["rows"]] == [(1, 40), (3, 9)]
    assert all(row["tok/s"] > 0 and row["model alone tok/s"] > 0 for row in found["rows"])


def test_a_whole_run_is_told_in_shares_of_its_time() -> None:
    sizes = ("--n", 3, "--c", 2, "--t", 1, "--beta", 16, "--tau", 8, "--answer-budget", 4)
    (row,) = measured("whole_run.py", *sizes)["rows"]
    assert row["tokens"] > 3
    assert 0 < row["batch full"] <= 1
    assert 1 <= row["rows"] <= 3
    assert 0 < row["decoding"] + row["reading"] <= 1
