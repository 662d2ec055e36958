"""A run's events made small for the page, and its reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.api import Completion, Usage
from rsa.results import Tail
from rsa.serve.errors import ApiError
from rsa.serve.feed import ANSWER_CHARACTERS, PROGRESS_EVERY_S, TEXT_CHARACTERS, Feed, text_of
from rsa.serve.reports import TICKET_S, Reports


def test_a_whole_run_is_small(tell: Callable[..., Any]) -> None:
    """Nobody's tokens or texts are in it, however long they are."""
    run = tell(n=4, t=1)
    feed = Feed()
    told: list[Any] = feed.take(run.starts())
    for number in (0, 1):
        told += feed.take(run.begins_round(number))
        for index in range(4):
            told += feed.take(run.begins(index))
            told += feed.take(run.ends(index, 40_000, 5.0, "x" * 10_000))
        told += feed.take(run.ends_round(6.0, ("x" * 10_000, 4)))
    told += feed.take(run.finishes(7.0, "4", ("4", 4)))
    assert [each["type"] for each in told[:2]] == ["run_started", "round_started"]
    assert told[-1]["answer"] == "4"
    (first, *_) = [each for each in told if each["type"] == "candidate_finished"]
    assert (first["tokens"], len(first["answer"])) == (40_000, ANSWER_CHARACTERS)
    assert len(json.dumps(told)) < 10_000


def test_progress_comes_together_and_not_too_often(tell: Callable[..., Any]) -> None:
    run = tell(n=3, t=0)
    feed = Feed()
    run.begins_round(0)
    told = []
    for step in range(1, 101):
        for index in range(3):
            told += feed.take(run.writes(index, step, at_s=step / 50, text="what it writes"))
    assert all(each["type"] == "progress" for each in told)
    assert len(told) <= 2.0 / PROGRESS_EVERY_S
    assert [row[0] for row in told[-1]["rows"]] == [0, 1, 2]
    assert "what it writes" not in json.dumps(told)


def test_who_has_ended_makes_no_more_progress(tell: Callable[..., Any]) -> None:
    run = tell(n=2, t=0)
    feed = Feed()
    run.begins_round(0)
    feed.take(run.writes(0, 5, at_s=0.1))
    feed.take(run.writes(1, 6, at_s=0.2))
    feed.take(run.ends(0, 9, 0.3, "4"))
    (told,) = feed.take(run.writes(1, 7, at_s=9.0))
    assert told["rows"] == [[1, 7, "reasoning"]]


def test_seeds_are_whole_in_a_script(tell: Callable[..., Any]) -> None:
    (told,) = Feed().take(tell(seed=2**63 + 1).starts())
    assert told["seed"] == "9223372036854775809"


def test_the_text_of_a_candidate_is_its_end_where_it_is_long(tell: Callable[..., Any]) -> None:
    completion = Completion(
        request_id="r",
        token_ids=(1, 2),
        reasoning="a" + "b" * TEXT_CHARACTERS,
        text=r"\boxed{4}",
        finish_reason="stop",
        usage=Usage(completion_tokens=2, reasoning_tokens=1),
    )
    run = tell(n=2, t=0)
    ended = run.ends(1, 2, 1.0, "4", completion=completion, tail=Tail(ids=(1,), text="bb"))
    text = text_of(ended)
    assert (text["type"], text["text"], text["tail"], text["cut"]) == ("written", r"\boxed{4}", "bb", 1)
    assert text["reasoning"] == "b" * TEXT_CHARACTERS
    assert text_of(run.writes(1, 3, 1.0, text="and so"))["text"] == "and so"


# ---- reports


def write(folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text("<p>report</p>")
    return path


@pytest.mark.anyio
async def test_a_report_is_found_by_its_ticket_for_a_while(tmp_path: Path) -> None:
    now = [100.0]
    reports = Reports(write, clock=lambda: now[0])
    ticket, other = await reports.write(tmp_path), await reports.write(tmp_path)
    assert ticket != other
    assert len(ticket) >= 32
    assert reports.find(ticket) == tmp_path / "report.html"
    for wrong in ("", "x", ticket[:-1], "../" + ticket):
        with pytest.raises(ApiError, match="no such report"):
            reports.find(wrong)
    now[0] += TICKET_S
    with pytest.raises(ApiError, match="no such report"):
        reports.find(ticket)


@pytest.mark.anyio
async def test_reports_are_written_one_at_a_time(tmp_path: Path) -> None:
    writing = [0]

    def slowly(folder: Path) -> Path:
        writing[0] += 1
        assert writing[0] == 1
        path = write(folder)
        writing[0] -= 1
        return path

    reports = Reports(slowly)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(reports.write, tmp_path)


@pytest.mark.anyio
async def test_without_a_writer_there_are_no_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsa.serve.reports.metadata.entry_points", lambda **_: ())
    reports = Reports()
    assert not reports.available
    with pytest.raises(ApiError, match="nothing that is installed here writes reports"):
        await reports.write(tmp_path)
