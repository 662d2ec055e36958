"""The programs of docs/serving.md run as they stand, on a server as its page starts one."""

from __future__ import annotations

import sys
from pathlib import Path

import programs
from processes import run
from serving import served_process

PAGE = Path(__file__).resolve().parents[3] / "docs" / "serving.md"
SHOWN_URL = "http://127.0.0.1:8000"


def test_programs_of_the_page_run_and_are_right(tmp_path: Path) -> None:
    with served_process(cwd=tmp_path) as (_, url):
        whole, streamed, responses = (
            run([sys.executable, "-c", program.replace(SHOWN_URL, url)], cwd=tmp_path, check=True).stdout
            for program in programs.of_markdown(PAGE)
        )
    assert "'of': 8" in whole
    assert " verified " in whole
    assert "Round 2 of 2" in streamed
    assert "answer 261 (verified)" in streamed
    assert streamed.endswith(" tokens\n")
    assert "Round 2 of 2" in responses
    assert "completed The answer is \\boxed{" in responses
