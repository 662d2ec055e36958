"""What a person sees of an evaluation, on standard error: a line that is redrawn on a terminal, plain lines elsewhere,
and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evals.comparison import Comparison, Contrast
from evals.events import EvalEvent, EvalFinished, EvalStarted, LapStarted, OnEvent, PlaceLost, RunEnded
from evals.meter import EngineLoad
from evals.results import EvalResults
from evals.stats import Estimate, estimate, mean_of
from evals.ticker import Ticker
from rsa.command.display import Display, as_clock, note_lines, printable, redrawn
from rsa.command.terminal import can_redraw
from rsa.settings.suitability import sampling_of
from rsa.words import plural

_REFRESH_PER_S = 4
_LINES = 20
"""Progress lines in a log file, however many problems there are."""
QUIET_S = 10.0
"""Seconds after which a log file hears that something still goes on."""
_SPEED_WINDOW_S = 10.0
_PASS_COLUMNS = 2
"""Columns of pass@k in a table, which are those of the largest k: it fits in 80 columns."""


class Tally:
    """The state of an evaluation as a display needs it, built up from its events. `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.started: EvalStarted | None = None
        self.done = self.found = self.failed = 0
        self._clock = clock
        self._began = clock()
        self._values: dict[str, list[float | None]] = {}
        self._clusters: dict[str, str | None] = {}
        self._speeds: list[tuple[float, int]] = []

    @property
    def runs(self) -> int:
        return self.started.runs if self.started else 0

    @property
    def meter(self) -> EngineLoad:
        return self.started.meter if self.started else EngineLoad()

    def now_s(self) -> float:
        """On the clock."""
        return self._clock()

    def update(self, event: EvalEvent) -> None:
        """Take the next event."""
        if isinstance(event, EvalStarted):
            self.started, self._began = event, self._clock()
            self._speeds = [(self._began, event.meter.tokens)]
        elif isinstance(event, RunEnded):
            self.done += 1
            self.found += event.found
            self.failed += event.scores.failed
            self._values.setdefault(event.scores.problem_id, []).append(event.value)
            self._clusters[event.scores.problem_id] = event.scores.cluster

    def headline(self) -> Estimate:
        """Of the problems done so far; an epoch that still runs is not waited for."""
        values = list(self._values.items())  # a copy: who draws may be another thread than who updates
        return estimate({problem: mean_of(epochs) for problem, epochs in values}, self._clusters)

    def elapsed_s(self) -> float:
        """Since the evaluation started in this process."""
        return self._clock() - self._began

    def tokens_per_s(self) -> float:
        """Over the last few seconds."""
        now = self._clock()
        self._speeds.append((now, self.meter.tokens))
        while len(self._speeds) > 2 and now - self._speeds[0][0] > _SPEED_WINDOW_S:
            del self._speeds[0]
        (then, before), (_, after) = self._speeds[0], self._speeds[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def eta_s(self) -> float | None:
        """Seconds to the end if problems go on to end as often as in this process so far; None: unknown."""
        made = self.done - self.found
        return self.elapsed_s() / made * (self.runs - self.done) if made else None


class Lines:
    """Plain lines for a log file: the beginning, what failed, progress now and then, the table.

    Where nothing is worth a line, progress is told every QUIET_S; `ticker` is what runs `beat` for that.
    """

    def __init__(
        self,
        console: Console,
        tally: Tally | None = None,
        ticker: Callable[[Callable[[], float]], AbstractContextManager[object]] = Ticker,
    ) -> None:
        self._console = console
        self._tally = tally or Tally()
        self._ticker = ticker(self.beat)
        self._turn = Lock()  # the ticker is another thread
        self._said_s = self._tally.now_s()

    def __enter__(self) -> Self:
        self._ticker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticker.__exit__(kind, error, trace)

    def show(self, event: EvalEvent) -> None:
        """Print what the event has to say."""
        with self._turn:
            self._tally.update(event)
            self._say(*notices(event))
            if isinstance(event, RunEnded) and self._is_time():
                self._say(status_line(self._tally))
            elif isinstance(event, EvalFinished):
                self._say(*result_lines(event.results))

    def beat(self) -> float:
        """Tell how far it is if nothing was said for QUIET_S; the seconds until that may be so again."""
        with self._turn:
            if self._tally.now_s() - self._said_s >= QUIET_S:
                self._say(status_line(self._tally) if self._tally.started else loading_line(self._tally))
            return self._said_s + QUIET_S - self._tally.now_s()

    def _say(self, *lines: str) -> None:
        for line in lines:
            _print(self._console, line)
            self._said_s = self._tally.now_s()

    def _is_time(self) -> bool:
        done, runs = self._tally.done, max(self._tally.runs, 1)
        return done * _LINES // runs > (done - 1) * _LINES // runs


class LiveLine:
    """A bar and a line that are redrawn; failures scroll above them. At the end they go, and the table stays."""

    def __init__(self, console: Console, tally: Tally | None = None) -> None:
        self._console = console
        self._tally = tally or Tally()
        self._results: EvalResults | None = None
        self._live = redrawn(console, self._render, per_second=_REFRESH_PER_S)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        if self._results is not None:
            for line in result_lines(self._results):
                _print(self._console, line)

    def show(self, event: EvalEvent) -> None:
        """Take the event in; what failed is printed above the line."""
        self._tally.update(event)
        for line in notices(event):
            _print(self._console, line)
        if isinstance(event, EvalFinished):
            self._results = event.results

    def _render(self) -> Table | Text:
        tally = self._tally
        if tally.started is None:
            return Text(loading_line(tally), style="bold")
        bar = ProgressBar(total=max(tally.runs, 1), completed=tally.done, width=min(self._console.width, 60))
        lines = Table.grid()  # in a Group the text would stand behind the bar: a bar does not end its line
        lines.add_row(bar)
        lines.add_row(Text(status_line(tally, live=True), style="bold"))
        return lines


def make_display(console: Console) -> Display[EvalEvent]:
    """The display that suits where standard error goes."""
    return LiveLine(console) if can_redraw(console) else Lines(console)


@contextmanager
def watching(progress: bool, on_event: OnEvent | None = None) -> Iterator[OnEvent | None]:
    """Whom to tell the events of an evaluation: `on_event`, and with `progress` the display of standard error."""
    if not progress:
        yield on_event
        return
    with make_display(Console(stderr=True)) as display:

        def tell(event: EvalEvent) -> None:
            display.show(event)
            if on_event is not None:
                on_event(event)

        yield tell


def notices(event: EvalEvent) -> list[str]:
    """Lines that an event is worth at once, on a terminal and in a file."""
    if isinstance(event, EvalStarted):
        return describe_start(event)
    if isinstance(event, LapStarted):
        return [describe_lap(event)]
    if isinstance(event, PlaceLost):
        others = "the other" if event.left == 1 else f"the other {event.left}"
        return [f"lost {event.name}: {one_line(event.why)}; its problems go to {others}"]
    failure = describe_failure(event) if isinstance(event, RunEnded) else None
    return [] if failure is None else [failure]


def describe_start(event: EvalStarted) -> list[str]:
    """What is going to happen, and what should be known about the data."""
    record, c = event.record, event.record.config
    epochs = f" x {record.epochs} epochs" if record.epochs > 1 else ""
    drawn = "".join(f" {name}={value:g}" for name, value in sampling_of(c).items())
    sizes = f"n={c.n} c={c.c} t={c.t} beta={c.beta} tau={c.tail_tokens}{drawn} seed={c.seed}"
    at_once = f"{event.in_flight} at once{f' in each of {event.places} workers' if event.places > 1 else ''}"
    return [
        f"{record.benchmark}: {plural(record.data.selected, 'problem')}{epochs}, method {record.method} with "
        f"{record.model.name}: {sizes}, {at_once}",
        *([record.budget.sentence] if record.budget is not None else []),
        *note_lines(c, record.model, record.method),
        *(f"warning: {one_line(warning)}" for warning in record.data_warnings),
    ]


def describe_lap(event: LapStarted) -> str:
    """Who plays on with what is left of the budget."""
    left = "" if event.left is None else f"; {event.left:,} tokens are left"
    return f"round {event.round} of {plural(event.runs, 'run')}{left}"


def describe_failure(event: RunEnded) -> str | None:
    """Why a run failed; None if it did not."""
    if not event.scores.failed or event.scores.error is None:
        return None
    return f"failed: {event.scores.problem_id}: {one_line(event.scores.error)}"


def loading_line(tally: Tally) -> str:
    """Before there is anything to count."""
    return f"loading the data and the model · {as_clock(tally.elapsed_s())}"


def status_line(tally: Tally, *, live: bool = False) -> str:
    """How far it is and how well it goes."""
    speed, eta, headline = tally.tokens_per_s(), tally.eta_s(), tally.headline()
    parts = [
        f"{tally.done} of {tally.runs}",
        f"{number(headline)} so far" if headline.problems else "",
        f"{tally.failed} failed" if tally.failed else "",
        f"{plural(tally.meter.running, 'candidate')} running" if live or tally.meter.running else "",
        f"{speed:,.0f} tok/s" if speed else "",
        f"{as_clock(tally.elapsed_s())} elapsed",
        f"about {as_clock(eta)} left" if eta else "",
    ]
    return "  " + " · ".join(part for part in parts if part)


def number(figure: Estimate, *, signed: bool = False) -> str:
    """A mean with its interval: `0.533 [0.412, 0.655]`; `-` where there is none.

    Where all problems score alike the interval has no width, and to show it would feign certainty: `1.000 [all alike]`.
    """
    if figure.value is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:{form}}, {figure.high:{form}}]"
    return f"{figure.value:{form}}{' [all alike]' if figure.se == 0 else interval}"


def result_lines(results: EvalResults) -> list[str]:
    """The headline, a table of the rounds, how candidates ended, what it cost, and what a reader should know."""
    what = {"candidates": "final candidates", "vote": "final vote", "answer": "the runs' answers"}[results.headline]
    tokens = results.usage.completion_tokens
    each = mean_of([problem.tokens for problem in results.problems])
    statuses = ", ".join(f"{count} {status}" for status, count in results.statuses.items()) or "none"
    return [
        f"{results.benchmark}, {results.method}: {number(results.mean)} ({what}, 95% interval)",
        *aligned(_round_rows(results)),
        f"the runs' answers: {number(results.answer)}; final candidates: {statuses}",
        f"{'-' if each is None else f'{each:,.0f}'} tokens a problem, {tokens:,} in all",
        *([results.budget.ends] if results.budget is not None else []),
        *(f"warning: {one_line(warning)}" for warning in results.warnings),
    ]


def _round_rows(results: EvalResults) -> list[tuple[str, ...]]:
    ks = sorted({k for played in results.rounds for k in played.best_of if k > 1})[-_PASS_COLUMNS:]
    rows = [("round", "mean", "vote", *(f"pass@{k}" for k in ks), "tokens")]
    for played in results.rounds:
        best = [_short(played.best_of.get(k)) for k in ks]
        rows.append((str(played.round), number(played.mean), number(played.vote), *best, f"{played.tokens:,.0f}"))
    return rows


def comparison_lines(c: Comparison) -> list[str]:
    """A comparison as people read it."""
    ratio = f"x {c.tokens_ratio:.2f}" if c.tokens_ratio else "-"
    left = f", {c.only_first + c.only_second} in only one of them" if c.only_first or c.only_second else ""
    rows = [
        ("", *c.methods, "difference (second - first)"),
        ("headline", *_contrast(c.headline)),
        ("final mean", *_contrast(c.final_mean)),
        ("final vote", *_contrast(c.vote)),
        ("answer", *_contrast(c.answer)),
        ("tokens a problem", *("-" if spent is None else f"{spent:,.0f}" for spent in c.tokens), ratio),
    ]
    both = f"{plural(c.problems, 'problem')} in both"
    return [
        f"{c.benchmark}, scored by {c.metric}: {both}{left}; 95% intervals, by problem",
        *aligned(rows),
        *(f"note: {one_line(note)}" for note in c.notes),
    ]


def _contrast(contrast: Contrast) -> tuple[str, str, str]:
    first, second = (("-" if value is None else f"{value:.3f}") for value in (contrast.first, contrast.second))
    return first, second, number(contrast.difference, signed=True)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table without lines: names and numbers with intervals to the left of their column, others to the right."""
    columns = list(zip(*rows, strict=True))
    padded = []
    for place, cells in enumerate(columns):
        width = max(map(len, cells))
        left = place == 0 or any(" [" in cell for cell in cells)
        padded.append([cell.ljust(width) if left else cell.rjust(width) for cell in cells])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _short(figure: Estimate | None) -> str:
    return "-" if figure is None or figure.value is None else f"{figure.value:.3f}"


def one_line(text: str) -> str:
    """A text of anybody's as a line on a terminal."""
    return " ".join(printable(text).split())


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
