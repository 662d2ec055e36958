"""The programs of docs/serving.md run as they stand, on a server as its page starts one."""

from __future__ import annotations

import sys
from pathlib import Path

import programs
from processes import run
from serving import served_process

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"
SHOWN_URL = "http://127.0.0.1:8000"
BETWEEN = "=== the next program ===\n"


def test_programs_of_the_page_run_and_are_right(tmp_path: Path) -> None:
    together = f"\nprint({BETWEEN!r}, end='')\n".join(programs.of_markdown(PAGE))  # importing the client takes seconds
    with served_process(cwd=tmp_path) as (_, url):
        done = run([sys.executable, "-c", together.replace(SHOWN_URL, url)], cwd=tmp_path, check=True)
    whole, streamed, responses = done.stdout.split(BETWEEN)
    assert "'of': 4" in whole
    assert " verified " in whole
    assert "Round 2 of 2" in streamed
    assert "answer 261 (verified)" in streamed
    assert streamed.endswith(" tokens\n")
    assert "Round 2 of 2" in responses
    assert "completed The answer is \\boxed{" in responses
