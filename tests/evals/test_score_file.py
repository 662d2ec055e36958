"""`rsa score`: JSON lines in, scores out, in order; what is wrong is named by its line."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer
from processes import run
from typer.testing import CliRunner

from evals.cli import score
from evals.errors import BenchmarkError, DataError, GoldError
from evals.score_file import IN_FLIGHT, score_file
from rsa.command.terminal import errors_for_people

pytestmark = pytest.mark.anyio
COUNTDOWN = {"numbers": [7, 5, 9, 2], "target": 24}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(*lines: Any) -> Path:
        file = tmp_path / "answers.jsonl"
        texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        file.write_bytes(b"\n".join(texts))
        return file

    return write_file


def line(number: int, gold: Any = "B", candidate: str = "\\boxed{B}", **fields: Any) -> dict[str, Any]:
    return {"id": f"q{number}", "gold": gold, "candidate": candidate, **fields}


async def test_scores_come_in_order_with_a_summary(write: Write) -> None:
    file = write(
        line(1),
        line(2, candidate="\\boxed{C}"),
        b"",
        line(3, candidate="no idea"),
        line(4, candidate="<think> hm"),
        {**line(5, "2", "\\boxed{stem}"), "options": ["root", "leaf", "stem"], "unused": {"a": 1}},
        {**line(6), "id": 6},
    )
    written: list[str] = []
    summary = await score_file(file, "choice", written.append)
    rows = [json.loads(text) for text in written]
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in written)
    assert [row["id"] for row in rows] == ["q1", "q2", "q3", "q4", "q5", 6]
    assert [row["value"] for row in rows] == [1, 0, 0, 0, 1, 1]
    assert [row["status"] for row in rows] == ["scored", "scored", "no_answer", "truncated", "scored", "scored"]
    assert [row["extracted"] for row in rows] == ["B", "C", None, None, "C", "B"]
    assert all(set(row) == {"id", "value", "status", "extracted", "reason"} for row in rows)
    assert (summary.n, summary.scored, summary.mean) == (6, 6, 0.5)
    assert summary.statuses == {"scored": 4, "no_answer": 1, "truncated": 1}
    assert summary.line == ("choice: 6 answers, mean 0.5000 over 6 with a value (scored 4, no_answer 1, truncated 1)")


async def test_a_line_without_end_is_not_read_to_its_end(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.score_file.MAX_LINE_BYTES", 1000)
    written: list[str] = []
    with pytest.raises(DataError, match="has a line of more than"):
        await score_file(write(line(1), line(2, candidate="x" * 1000)), "choice", written.append)
    assert len(written) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_slow_lines_keep_their_place_and_what_is_too_hard_is_left_out_of_the_mean(write: Write) -> None:
    answers = ["\\boxed{\\sqrt{8}}", "\\boxed{1}", "\\boxed{9^{9^9}}", "\\boxed{2\\sqrt 2}"]
    file = write(*(line(i, "2\\sqrt{2}", answers[i % 4]) for i in range(2 * IN_FLIGHT)))
    written: list[str] = []
    summary = await score_file(file, "math", written.append)
    assert [json.loads(text)["id"] for text in written] == [f"q{i}" for i in range(2 * IN_FLIGHT)]
    assert [json.loads(text)["value"] for text in written[:4]] == [1.0, 0.0, None, 1.0]
    assert (summary.n, summary.scored) == (2 * IN_FLIGHT, 3 * IN_FLIGHT // 2)
    assert summary.mean == pytest.approx(2 / 3)


async def test_an_empty_file(write: Write) -> None:
    summary = await score_file(write(), "anls", print)
    assert (summary.n, summary.scored, summary.mean, summary.statuses) == (0, 0, None, {})
    assert summary.line == "anls: 0 answers, no mean (none)"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "line 3: no JSON: "),
        (b"[" * 100_000, "line 3: lists and tables are nested more than 100 deep"),
        (b'"text"', "line 3: should be an object with id, gold, candidate"),
        (b'{"id": "\xff"}', r"line 3: no UTF-8 text \(byte 9\)"),
        ({"id": "a", "gold": "B", "answer": "B"}, "line 3: candidate is missing; there are id, gold, answer"),
        ({}, "line 3: id is missing; there are no keys"),
        ({**line(1), "id": None}, "line 3: id should be a text or a number, not null"),
        (line(1, candidate=["B"]), r'line 3 \(q1\): candidate should be a text, not \["B"\]'),  # type: ignore[arg-type]
        (line(1, gold="?"), r"line 3 \(q1\): gold: should be a letter"),
        (line(1, gold=math.nan), r"line 3 \(q1\): gold: should be a text or a number, not missing"),
        (line(1, gold=math.inf), r"line 3 \(q1\): gold: should be a text or a number, not inf"),
        (line(1, options="abc"), r"line 3 \(q1\): field options: should be a list"),
    ],
)
async def test_a_line_that_is_wrong_ends_it_by_its_number(write: Write, bad: Any, said: str) -> None:
    written: list[str] = []
    with pytest.raises(DataError, match=said):
        await score_file(write(line(1), line(2), bad, line(4)), "choice", written.append)
    assert [json.loads(text)["id"] for text in written] == ["q1", "q2"], "the lines before it are written"


async def test_the_first_of_two_wrong_lines_is_named(write: Write) -> None:
    with pytest.raises(GoldError, match="line 1"):
        await score_file(write(line(1, gold="?"), b"{"), "choice", print)


async def test_no_such_file_or_metric(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing\.jsonl: No such file"):
        await score_file(tmp_path / "nothing.jsonl", "math", print)
    with pytest.raises(DataError, match="cannot read"):
        await score_file(tmp_path, "math", print)
    with pytest.raises(BenchmarkError, match="no metric is called 'maths'; did you mean 'math'"):
        await score_file(write(line(1)), "maths", print)


async def test_a_reader_that_goes_away(write: Write) -> None:
    def gone(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await score_file(write(line(1), line(2)), "choice", gone)


async def test_odd_characters_come_through(write: Write) -> None:
    row = '{"id": "café \\ud800", "gold": "\\ud800naïve", "candidate": "\\u0000 naïve"}\r\n'
    file = write(b"\xef\xbb\xbf" + row.encode())
    written: list[str] = []
    await score_file(file, "anls", written.append)
    assert json.loads(written[0])["id"] == "café \ufffd"
    assert "naïve" in json.loads(written[0])["extracted"]


async def test_lines_of_a_pipe_are_scored_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is written once the score of the one before has been seen: nothing waits for the end of the pipe."""
    reading, writing = os.pipe()
    send, receive = anyio.create_memory_object_stream[str](100)
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as feed:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        async with send, receive, anyio.create_task_group() as group:

            async def run() -> None:
                summary = await score_file("-", "choice", send.send_nowait)
                assert summary.n == 4

            group.start_soon(run)
            for number in range(3):
                text = json.dumps(line(number)).encode()
                feed.write(text[:20])
                await anyio.wait_all_tasks_blocked()
                feed.write(text[20:] + b"\n")
                assert json.loads(await receive.receive())["id"] == f"q{number}"
            feed.write(json.dumps(line(3)).encode())  # without a line break at the end
            feed.close()
            assert json.loads(await receive.receive())["id"] == "q3"


# ---- the command


def command() -> typer.Typer:
    """As `evals.cli` mounts it."""
    app = typer.Typer()
    app.command()(errors_for_people()(score))
    return app


def test_the_command(write: Write) -> None:
    done = CliRunner().invoke(command(), [str(write(line(1), line(2, candidate="?"))), "--metric", "choice"])
    assert done.exit_code == 0
    assert [json.loads(text)["value"] for text in done.stdout.splitlines()] == [1, 0]
    assert done.stderr == "choice: 2 answers, mean 0.5000 over 2 with a value (scored 1, no_answer 1)\n"


def test_the_command_on_standard_input_and_quietly() -> None:
    done = CliRunner().invoke(
        command(), ["-", "--metric", "countdown", "-q"], input=json.dumps(line(1, COUNTDOWN, "\\boxed{7*5-9-2}"))
    )
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "mth"], "error: no metric is called 'mth'; did you mean 'math'"),
        (["--metric", "integer"], "answers.jsonl, line 2 (q2): gold: should be an integer, not 'x'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(write: Write, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(command(), [str(write(line(1, 5, "\\boxed{5}"), line(2, "x"))), *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_naming_the_metrics_imports_no_model_libraries() -> None:
    """The command is mounted by `rsa`, which must start at once."""
    code = """
import sys
import evals.cli, evals.scorers
heavy = {"mlx", "transformers", "datasets", "numpy", "sympy", "math_verify", "PIL", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    run([sys.executable, "-c", code], check=True)
