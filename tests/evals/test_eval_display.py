"""What is seen of an evaluation while it runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from rich.console import Console

from engine.api import ModelInfo
from evals.budget import Ended
from evals.display import (
    QUIET_S,
    Lines,
    LiveLine,
    Tally,
    describe_start,
    make_display,
    notices,
    number,
    result_lines,
    status_line,
)
from evals.eval_record import DataSource, EvalRecord
from evals.events import EvalFinished, EvalStarted, PlaceLost, RunEnded
from evals.meter import EngineLoad
from evals.results import DataInfo
from evals.run_scores import RunScores
from evals.stats import Estimate, estimate
from evals.summary import summarise
from rsa import RSAConfig

RECORD = EvalRecord.now(
    benchmark="made-up",
    metric="exactly",
    method="rsa",
    config=RSAConfig(n=4, c=1, t=1, beta=64, tau=16, answer_budget=8),
    epochs=1,
    model=ModelInfo(name="tiny", details={"architecture": "zaya"}),
    prompt_sha256="ab",
    data=DataInfo(kind="given", name="made-up", selected=4),
    source=DataSource(),
    versions={},
)


def started(runs: int = 4, meter: EngineLoad | None = None) -> EvalStarted:
    return EvalStarted(Path("out"), RECORD, runs, 2, meter or EngineLoad())


def ended(problem: str, value: float | None = 1.0, *, found: bool = False, error: str | None = None) -> RunEnded:
    why: Ended = "finished" if error is None else "failed"
    scores = RunScores(problem_id=problem, epoch=0, metric="exactly", question_sha256="", ended=why, error=error)
    return RunEnded(scores, value, found)


class Clock:
    """Goes on by what it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_people_should_know_of_the_model_and_the_data_stands_first() -> None:
    model = ModelInfo(name="tiny", notes=("it knows sums only",))
    record = RECORD.model_copy(update={"model": model, "data_warnings": ("odd rows",)})
    lines = describe_start(EvalStarted(Path("out"), record, 4, 2, EngineLoad()))
    first, of_rounds, last = lines[1:]
    assert (first, last) == ("note: it knows sums only", "warning: odd rows")
    assert of_rounds.startswith("note: rounds of aggregation help models trained to aggregate")


def test_workers_are_counted_and_named_when_they_are_lost() -> None:
    assert describe_start(EvalStarted(Path("out"), RECORD, 4, 3, EngineLoad(), 8))[0].endswith(
        "3 at once in each of 8 workers"
    )
    for left, others in ((1, "the other"), (7, "the other 7")):
        event = PlaceLost("worker 2 (GPU 1)", "it was\nkilled", left)
        assert notices(event) == [f"lost worker 2 (GPU 1): it was killed; its problems go to {others}"]


def test_how_far_how_well_how_fast_and_how_long() -> None:
    clock, meter = Clock(), EngineLoad()
    tally = Tally(clock)
    tally.update(started(4, meter))
    assert (tally.eta_s(), tally.headline().value) == (None, None)
    assert status_line(tally) == "  0 of 4 · 0:00 elapsed"
    tally.update(ended("p", 1.0, found=True))
    assert tally.eta_s() is None, "what was found says nothing about speed"
    clock.now += 60.0
    meter.tokens, meter.running = 6000, 8
    tally.update(ended("q", 0.5))
    assert tally.eta_s() == 120.0
    assert status_line(tally) == (
        "  2 of 4 · 0.750 [0.000, 1.000] so far · 8 candidates running · 100 tok/s · 1:00 elapsed · about 2:00 left"
    )
    tally.update(ended("r", None, error="it broke"))
    assert tally.headline().problems == 2
    assert "3 of 4" in status_line(tally)
    assert "1 failed" in status_line(tally)


def test_speed_is_that_of_the_last_seconds() -> None:
    clock, meter = Clock(), EngineLoad()
    tally = Tally(clock)
    tally.update(started(4, meter))
    assert tally.tokens_per_s() == 0.0
    for _ in range(30):
        clock.now += 1.0
        meter.tokens += 10
        slow = tally.tokens_per_s()
    assert slow == pytest.approx(10.0)
    for _ in range(30):
        clock.now += 1.0
        meter.tokens += 500
        fast = tally.tokens_per_s()
    assert fast == pytest.approx(500.0)


def test_epochs_of_a_problem_are_one_problem() -> None:
    tally = Tally(Clock())
    tally.update(started(4))
    for value in (1.0, 0.0):
        tally.update(ended("p", value))
    assert (tally.done, tally.headline().value, tally.headline().problems) == (2, 0.5, 1)


@pytest.mark.parametrize("runs", [1, 3, 20, 5000])
def test_a_log_file_gets_so_many_lines_however_long_it_takes(runs: int) -> None:
    output = io.StringIO()
    with Lines(Console(file=output, width=200)) as lines:
        lines.show(started(runs))
        for index in range(runs):
            lines.show(ended(str(index)))
    printed = output.getvalue().splitlines()
    assert len(printed) == 1 + min(runs, 20)
    assert printed[-1].startswith(f"  {runs} of {runs} · 1.000")


class Idle:
    """Takes the place of a ticker: what it would call is for the test to call."""

    def __init__(self, beat: Callable[[], float]) -> None:
        self.running = False

    def __enter__(self) -> Self:
        self.running = True
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False


def test_a_log_file_hears_every_ten_seconds_that_something_goes_on() -> None:
    output, clock, meter = io.StringIO(), Clock(), EngineLoad()
    with Lines(Console(file=output, width=200), Tally(clock), Idle) as lines:
        assert lines.beat() == QUIET_S == 10.0
        clock.now += 10.0
        assert lines.beat() == 10.0
        assert output.getvalue().splitlines() == ["loading the data and the model · 0:10"]
        lines.show(started(100, meter))
        clock.now += 9.0
        assert lines.beat() == 1.0, "the start was a line"
        clock.now += 1.0
        meter.tokens, meter.running = 500, 8
        assert lines.beat() == 10.0
        assert output.getvalue().splitlines()[2:] == ["  0 of 100 · 8 candidates running · 50 tok/s · 0:10 elapsed"]
        clock.now += 4.0
        lines.show(ended("failing", error="it broke"))
        clock.now += 6.0
        assert lines.beat() == 4.0, "a failure was a line"
        clock.now += 100.0
        assert lines.beat() == 10.0, "one line however late it is"
    assert len(output.getvalue().splitlines()) == 5
    assert not lines._ticker.running  # type: ignore[attr-defined]


def test_failures_are_told_in_one_line_that_moves_no_cursor() -> None:
    output = io.StringIO()
    with Lines(Console(file=output, width=40)) as lines:
        lines.show(started())
        lines.show(ended("p", None, error="it broke\n[bold]and\x1b[2J more " + "x" * 60))
    failed = output.getvalue().splitlines()[1]
    assert failed == f"failed: p: it broke [bold]and�[2J more {'x' * 60}"


def test_on_a_terminal_the_line_goes_and_the_table_stays() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)
    clock, meter = Clock(), EngineLoad(running=5)
    results = summarise(RECORD, runs())
    with LiveLine(console, Tally(clock)) as live:
        assert "loading the data and the model · 0:00" in drawn(console, live)
        live.show(started(4, meter))
        live.show(ended("p"))
        live.show(ended("q", None, error="it broke"))
        seen = drawn(console, live)
        assert "2 of 4" in seen
        assert "5 candidates running" in seen
        lines = [each.rstrip() for each in seen.splitlines()]
        assert status_line(live._tally, live=True) in lines, "whole, on a line of its own"
        live.show(EvalFinished(results))
    after = output.getvalue()
    assert "failed: q: it broke" in after
    for line in result_lines(results):
        assert line in after


def drawn(console: Console, live: LiveLine) -> str:
    with console.capture() as capture:
        console.print(live._render())
    return capture.get()


def runs() -> Iterator[RunScores]:
    yield RunScores(problem_id="p", epoch=0, metric="exactly", question_sha256="", ended="failed", error="it broke")


def test_results_without_a_single_value() -> None:
    assert result_lines(summarise(RECORD, runs())) == [
        "made-up, rsa: - (final candidates, 95% interval)",
        "round  mean  vote  tokens",
        "the runs' answers: -; final candidates: none",
        "- tokens a problem, 0 in all",
        "warning: problems that failed: 1; p: it broke",
        "warning: the final rounds have 0 of the 4 candidates asked for",
    ]


def test_numbers() -> None:
    whole = Estimate(value=0.5, se=0.1, low=0.25, high=0.75, problems=4, clusters=4)
    assert (number(whole), number(whole, signed=True)) == ("0.500 [0.250, 0.750]", "+0.500 [+0.250, +0.750]")
    alike = estimate({"a": 1.0, "b": 1.0, "c": 1.0})
    assert number(alike) == "1.000 [all alike]"  # three right answers are no certainty
    assert number(Estimate(value=0.5, problems=1, clusters=1)) == "0.500"
    assert number(Estimate(value=None, problems=0, clusters=0)) == "-"


def test_the_display_suits_where_it_goes() -> None:
    assert isinstance(make_display(Console(file=io.StringIO())), Lines)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), LiveLine)
