"""What a person sees of a run, on standard error: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.api import Completion, ModelInfo
from rsa.answers.checking import mark_of
from rsa.command.options import with_flags
from rsa.command.pace import Row
from rsa.command.progress import Progress
from rsa.command.terminal import can_redraw
from rsa.descent import line_of_descent, reasoning
from rsa.events import (
    BudgetsLowered,
    CandidateFinished,
    Event,
    LimitHit,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from rsa.policies.words import chosen, in_words
from rsa.results import Candidate, Check, RoundKind, RunResult, Vote
from rsa.settings.config import RSAConfig
from rsa.settings.suitability import HARMFUL, auto_note, rounds_may_harm, sampling_of
from rsa.unanswered import unanswered
from rsa.words import listed, plural, shortened

_REFRESH_PER_S = 8
_SHOWN_CHARACTERS = 80
"""Characters of an answer shown in a line: programs and texts are answers too."""
_LINES_OF_REASONING, _CHARACTERS_OF_REASONING = 20, 160
"""How much is shown of each candidate that led to the answer: thousands of tokens may stand above it, in the run
folder."""
_FIXED_WIDTH = 3 + 8 + 6 + 10 + 4 * 2  # of the table's other columns and the gaps between all of them
_NARROW, _NARROW_FIXED_WIDTH = 60, 3 + 7 + 10 + 3 * 2
"""Columns below which there is no room for speeds, since what is written matters more; and the width of the other
columns."""
_MIN_WORDS_WIDTH = 10
_STATUS_STYLE = {"ok": "green", "degenerate": "yellow", "failed": "red", "cancelled": "yellow", "cut": "dim"}
_MARK_STYLE = {"verified": "green", "wrong": "red", "unchecked": "yellow"}


EventT_contra = TypeVar("EventT_contra", contravariant=True)


class Display(Protocol[EventT_contra]):
    """Shows events of a kind as they come; used within `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: EventT_contra) -> None: ...


class Silent:
    """Shows nothing: `--quiet`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Nothing to see."""


class Lines:
    """One plain line for everything worth a line in a log file."""

    def __init__(self, console: Console, *, method: str | None = None) -> None:
        self._console, self._method = console, method
        self._progress = Progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        self._progress.update(event)
        line = describe(event, self._method)
        if line is not None:
            self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def redrawn(console: Console, render: Callable[[], RenderableType], *, per_second: int) -> Live:
    """What `render` makes, drawn anew so often, below whatever scrolls by; it goes when the `with` ends."""
    return Live(
        console=console,
        refresh_per_second=per_second,
        transient=True,
        redirect_stdout=False,
        get_renderable=render,
    )


class LiveTable:
    """A row for each candidate of the round, redrawn as tokens come; notices scroll above it.

    At the end the table goes, and the line that sums up the run stays. `clock` counts seconds between events.
    """

    def __init__(
        self, console: Console, *, method: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._method = console, method
        self._clock = clock
        self._progress = Progress()
        self._at_s, self._seen_at = 0.0, clock()  # the newest event, on the run's clock and on ours
        self._live = redrawn(console, self._render, per_second=_REFRESH_PER_S)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        if self._progress.result is not None:
            self._print("\n".join(result_lines(self._progress.result)))

    def show(self, event: Event) -> None:
        """Take the event in; what a table has no place for is printed above it."""
        self._progress.update(event)
        self._at_s, self._seen_at = max(self._at_s, event.at_s), self._clock()
        shown = isinstance(event, CandidateFinished) and event.candidate.status != "failed"
        if not shown and not isinstance(event, RoundStarted | RunFinished):
            line = describe(event, self._method)
            if line is not None:
                self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group | Text:
        now_s = self._at_s + self._clock() - self._seen_at
        if not self._progress.started:
            return Text(f"loading the model · {as_clock(now_s)}", style="bold")
        if not self._progress.rows:
            return Text("")
        return Group(_table(self._progress, now_s, self._console), _totals(self._progress, now_s))


def make_display(console: Console, *, quiet: bool, method: str | None = None) -> Display[Event]:
    """The display that suits where standard error goes; `method`: that was asked for."""
    if quiet:
        return Silent()
    return LiveTable(console, method=method) if can_redraw(console) else Lines(console, method=method)


def describe(event: Event, method: str | None = None) -> str | None:
    """What there is to say about an event, a line for each thing; None for those that come too often. `method`: that
    was asked for."""
    match event:
        case RunStarted():
            c = event.config
            state = "resuming" if event.resumed else "solving"
            drawn = "".join(f" {name}={value:g}" for name, value in sampling_of(c).items())
            settings = f"n={c.n} c={c.c} t={c.t} beta={event.budgets.beta} tau={event.budgets.tau}{drawn} seed={c.seed}"
            return "\n".join([f"{state} with {event.model.name}: {settings}", *note_lines(c, event.model, method)])
        case BudgetsLowered() | Warned():
            return f"warning: {event.message}"
        case RoundStarted():
            return _begins(event)
        case CandidateFinished():
            return _candidate_line(event.candidate, event.kind)
        case RoundFinished():
            return _ends(event)
        case LimitHit():
            what = {"conclude": "asking for answers", "cancel": "cutting off", "no_new_round": "no further round"}
            return f"limit {event.limit} ({event.used:g} of {event.allowed:g}): {what[event.action]}"
        case PolicyDecided():
            return printable(in_words(event.decision))
        case RunFinished():
            return "\n".join(result_lines(event.result))
        case _:
            return None


def _begins(event: RoundStarted) -> str:
    if event.kind == "selection":
        return "one more aggregation selects the answer"
    if event.kind == "match":
        matches = plural(len(event.subsets) // 2, "match", "matches")
        return f"{matches} between answers of the last round, each judged in both orders"
    from_tails = f", each from {plural(len(event.subsets[0]), 'tail')}" if event.round and event.subsets else ""
    return f"round {event.round}: {len(event.subsets)} candidates{from_tails}"


def _ends(event: RoundFinished) -> str:
    if event.kind == "match":
        told = [f"{in_a_line(vote.answer)} ({plural(vote.count, 'time')})" for vote in event.votes]
        return f"matches done: {f'preferred {listed(told, 3)}' if told else 'none says which answer is better'}"
    return f"round {event.round} done: {_votes(event)}"


def note_lines(config: RSAConfig, model: ModelInfo, method: str | None = None) -> list[str]:
    """What people should know of a model before a run with these settings; `method`: that was asked for."""
    came_to = auto_note(config, model) if method == "auto" else None
    harm = HARMFUL if rounds_may_harm(config, model) else None
    return [f"note: {with_flags(note)}" for note in (*model.notes, came_to, harm) if note is not None]


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or recolour it: models write anything."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def in_a_line(answer: str) -> str:
    """An answer, shortened to a part of a line."""
    return shortened(" ".join(printable(answer).split()), _SHOWN_CHARACTERS)


def marked(answer: str, check: Check | None) -> str:
    """An answer as a part of a line, and in parentheses what its model's checker says of it, if there is one."""
    mark = in_a_line(mark_of(check))
    return f"{in_a_line(answer)} ({mark})" if mark else in_a_line(answer)


def descent_lines(result: RunResult) -> list[str]:
    """How the answer came about: the last lines that its candidate wrote, below those of its ancestors."""
    lines = []
    for candidate in line_of_descent(result):
        written = [line for line in printable(reasoning(candidate)).split("\n") if line.strip()]
        above = len(written) - _LINES_OF_REASONING
        lines.append(f"reasoning of round {candidate.round} candidate {candidate.index}:")
        lines += [f"  ... {plural(above, 'line')} above"] if above > 0 else []
        lines += [f"  {shortened(line.strip(), _CHARACTERS_OF_REASONING)}" for line in written[-_LINES_OF_REASONING:]]
    return lines


def _candidate_line(candidate: Candidate, kind: RoundKind) -> str:
    where = f"  round {candidate.round} candidate {candidate.index:>2}"
    if kind == "match":
        where = f"  candidates {' and '.join(map(str, candidate.parents))}"
    if candidate.completion is None:
        status = "not begun" if candidate.status == "cut" else candidate.status
        return f"{where}: {status}{f': {candidate.error}' if candidate.error else ''}"
    parts = [
        f"{candidate.completion.usage.completion_tokens} tokens",
        _budget_reached(candidate, candidate.completion),
        candidate.status if candidate.status != "ok" else "",
        _interrupted(candidate.completion),
        _answer(candidate, kind),
    ]
    return f"{where}: {', '.join(part for part in parts if part)}"


def _answer(candidate: Candidate, kind: RoundKind) -> str:
    if candidate.answer is None:
        return "prefers neither" if kind == "match" and candidate.status == "ok" else _silence(candidate)
    what = "prefers" if kind == "match" else "answer"
    return f"{what} {marked(candidate.answer, candidate.check)}"


def _budget_reached(candidate: Candidate, completion: Completion) -> str:
    budget = candidate.sampling.reasoning_budget if candidate.sampling else None
    if completion.forced:
        of = f" (beta = {budget})" if budget is not None else ""
        return f"reasoning closed at {completion.usage.reasoning_tokens} tokens{of}"
    if completion.finish_reason == "budget":
        return f"reasoning ended at beta = {budget}" if budget is not None else "reasoning ended at beta"
    return "answer ended at its budget" if completion.finish_reason == "length" else ""


def _interrupted(completion: Completion) -> str:
    """How often the connection to who generated it broke, and what became of its tokens."""
    lost = sum(each.after_tokens for each in completion.interruptions if each.action == "restarted")
    if not completion.interruptions:
        return ""
    return f"broke off {plural(len(completion.interruptions), 'time')}{f', {lost:,} tokens lost' if lost else ''}"


def _silence(candidate: Candidate | Row) -> str:
    """What there is in place of an answer of a candidate that ended."""
    if not candidate.asked and candidate.status == "ok":
        return "handed on"
    return "no answer" if candidate.status == "ok" else ""


def _votes(event: RoundFinished) -> str:
    votes = event.votes
    if not votes:
        return "no answers" if event.asked else "tails handed on"
    return f"answers {listed([f'{in_a_line(vote.answer)} ({_ballot(vote)})' for vote in votes], 3)}"


def _ballot(vote: Vote) -> str:
    return f"{vote.count}, {vote.check.mark}" if vote.check else str(vote.count)


def result_lines(result: RunResult) -> list[str]:
    """The line that sums up a run; without an answer, also what its final candidates wrote, and what to try."""
    why = unanswered(result)
    if why is None:
        how = chosen(result)
        return [_result_line(result, "no candidate gave one"), *([printable(how)] if how else [])]
    lines = [_result_line(result, why.why)]
    lines += [f"  {many} wrote at the end: {printable(words)}" for words, many in why.wrote]
    lines += [f"  and {why.more} more wrote something else"] if why.more else []
    lines += ["try a larger --beta"] if why.beta_short else []
    return lines


def _result_line(result: RunResult, why_none: str) -> str:
    rounds = plural(len(result.rounds), "round")
    spent = f"{rounds}, {result.usage.completion_tokens:,} tokens in {result.timings.wall_s:.1f} s"
    if result.answer is None:
        stopped = "" if result.stopped_because == "finished" else f", stopped by {result.stopped_because}"
        return f"no answer{stopped}: {why_none}; {spent}"
    winner = result.agreeing
    votes = f", {winner.count} of {winner.of} candidates agree" if winner else ""
    early = "" if result.stopped_because == "finished" else f", stopped by {result.stopped_because}"
    answer = marked(result.answer, result.check)
    return f"answer {answer} from round {result.answered_from_round}{votes}{early}; {spent}"


def _table(progress: Progress, now_s: float, console: Console) -> Table:
    titles = {"selection": "selecting the answer", "match": "comparing answers"}
    title = titles.get(progress.kind, f"round {progress.round} of {progress.rounds_planned - 1}")
    table = Table(title=title, title_justify="left", title_style="bold", box=None, expand=True, pad_edge=False)
    table.add_column("#", justify="right", width=3)
    narrow = console.width < _NARROW
    table.add_column("tokens", justify="right", width=7 if narrow else 8)
    if not narrow:
        table.add_column("tok/s", justify="right", width=6)
    table.add_column("state", width=10)
    words = "answer" if narrow else "answer so far, or what it writes"
    table.add_column(words, no_wrap=True, overflow="ellipsis", ratio=1)
    room = max(console.height - (7 if narrow else 6), 1)  # narrow, the totals take two lines
    words_width = max(console.width - (_NARROW_FIXED_WIDTH if narrow else _FIXED_WIDTH), _MIN_WORDS_WIDTH)
    rows = progress.rows
    if len(rows) > room:
        rows = sorted(rows, key=lambda row: row.status is not None)  # those that still run first
    for row in rows[:room]:
        speed = [] if narrow else [f"{row.tokens_per_s(now_s):.0f}" if row.tokens else ""]
        table.add_row(str(row.index), f"{row.tokens:,}", *speed, _state(row), _words(row, words_width))
    if len(rows) > room:
        table.add_row(*[""] * (3 if narrow else 4), Text(f"... and {len(rows) - room} more", style="dim"))
    return table


def _state(row: Row) -> Text:
    if row.status is not None:
        return Text("done" if row.status == "ok" else row.status, style=_STATUS_STYLE[row.status])
    if row.tokens == 0:
        return Text("waiting", style="dim")
    return Text("thinking" if row.section == "reasoning" else "answering", style="cyan")


def _words(row: Row, width: int) -> Text:
    if row.answer is not None:
        mark = f" ({row.check.mark})" if row.check else ""
        answer = Text(shortened(in_a_line(row.answer), max(width - len(mark), 1)), style="bold")  # the mark must fit
        return answer.append(mark, style=_MARK_STYLE[row.check.mark]) if row.check else answer
    if row.status is not None:
        return Text(_silence(row), style="dim")
    line = " ".join(printable(row.text).split())
    return Text(line if len(line) <= width else f"…{line[1 - width :]}", style="dim")  # the newest words


def _totals(progress: Progress, now_s: float) -> Text:
    eta, unread = progress.eta_s(), sum(row.waits for row in progress.rows)
    parts = [
        f"{progress.running} running",
        f"{len(progress.rows) - unread} of {len(progress.rows)} prompts read" if progress.round and unread else "",
        f"{progress.tokens:,} tokens",
        f"{progress.tokens_per_s():,.0f} tok/s",
        f"{as_clock(now_s)} elapsed",
        f"about {as_clock(eta)} left" if eta is not None else "",
    ]
    return Text("  " + " · ".join(part for part in parts if part), style="bold")


def as_clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
