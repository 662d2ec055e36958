"""What a person sees, as text."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from rich.console import Console

from rsa.command.display import Lines, LiveTable, Silent, describe, in_a_line, make_display, marked, printable
from rsa.events import BudgetsLowered, LimitHit, PolicyDecided, Warned
from rsa.results import Check, Decision, Vote


def lines(events: Iterable[Any], width: int = 60) -> list[str]:
    """What the plain display prints; narrow, so that wrapping would show."""
    out = io.StringIO()
    with Lines(Console(file=out, width=width)) as display:
        for event in events:
            display.show(event)
    return out.getvalue().splitlines()


def test_plain_lines_of_a_run(story: Any) -> None:
    lowered = BudgetsLowered(message="lowered: beta 100 -> 60")
    events = [
        *(story.starts(), lowered, story.begins_round(0), story.begins(0), story.begins(1)),
        *(story.writes(0, 5, 0.5), story.ends(0, 40, 1.0), story.ends(1, 60, 2.0, status="degenerate")),
        *(story.ends_round(2.0), story.begins_round(1, 2.0), story.begins(0), story.begins(1)),
        *(story.ends(1, 30, 3.0, "[7]"), story.ends(0, 0, 3.0, status="failed", completion=None, error="no memory")),
        *(story.ends_round(3.0, ("[7]", 1)), Warned(message="mind this"), story.finishes(3.0, "[7]", ("[7]", 1))),
    ]
    assert lines(events) == [
        "solving with tiny: n=2 c=2 t=1 beta=100 tau=10 seed=0",
        "warning: lowered: beta 100 -> 60",
        "round 0: 2 candidates",
        "  round 0 candidate  0: 40 tokens, handed on",
        "  round 0 candidate  1: 60 tokens, degenerate",
        "round 0 done: tails handed on",
        "round 1: 2 candidates, each from 2 tails",
        "  round 1 candidate  1: 30 tokens, answer [7]",
        "  round 1 candidate  0: failed: no memory",
        "round 1 done: answers [7] (1)",
        "warning: mind this",
        "answer [7] from round 1, 1 of 2 candidates agree; 2 rounds, 1,234 tokens in 3.0 s",
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            LimitHit(limit="total_tokens", round=1, action="conclude", used=900.0, allowed=1000.0),
            "limit total_tokens (900 of 1000): asking for answers",
        ),
        (
            LimitHit(limit="deadline_s", round=1, action="cancel", used=2.5, allowed=2.5),
            "limit deadline_s (2.5 of 2.5): cutting off",
        ),
        (
            LimitHit(limit="total_tokens", round=1, action="no_new_round", used=1.0, allowed=2.0),
            "limit total_tokens (1 of 2): no further round",
        ),
    ],
)
def test_limits_in_words(event: Any, line: str) -> None:
    assert describe(event) == line


def agreed(vote: Vote) -> PolicyDecided:
    numbers = {"share": vote.share}
    return PolicyDecided(decision=Decision(round=0, policy="consensus:.3", action="end", numbers=numbers, vote=vote))


def test_endings_in_words(tell: Callable[..., Any]) -> None:
    story = tell(n=8)
    story.begins_round(0)
    assert describe(story.starts(resumed=True)) == "resuming with tiny: n=8 c=2 t=1 beta=100 tau=10 seed=0"
    assert describe(story.begins_round(2, kind="selection")) == "one more aggregation selects the answer"
    story.begins_round(0)
    (vote,) = story.votes(("7", 6))
    assert describe(agreed(vote)) == ("the run ends after round 0 by consensus:.3 (share 0.75): 6 of 8 agree on 7")
    assert describe(story.ends_round(1.0, ("7", 4), ("8", 2), ("9", 1), ("1", 1))) == (
        "round 0 done: answers 7 (4), 8 (2), 9 (1) and 1 more"
    )
    spent = "1 round, 1,234 tokens in 1.0 s"
    assert describe(story.finishes(1.0, None)) == f"no answer: no candidate gave one; {spent}"
    stopped = story.finishes(1.0, None, stopped_because="total_tokens")
    assert describe(stopped) == f"no answer, stopped by total_tokens: no candidate gave one; {spent}"
    early = story.finishes(1.0, "7", ("7", 8), stopped_because="policy")
    assert describe(early) == f"answer 7 from round 0, 8 of 8 candidates agree, stopped by policy; {spent}"


def test_what_people_should_know_of_the_model_stands_first(story: Any) -> None:
    event = story.starts()
    model = event.model.model_copy(update={"notes": ("it knows [b]sums[/b] only", "it is slow")})
    told = event.model_copy(update={"model": model})
    assert lines([told])[1:] == ["note: it knows [b]sums[/b] only", "note: it is slow"]


def test_answers_of_many_lines_stay_in_one() -> None:
    assert in_a_line("def f():\n    return 1") == "def f(): return 1"
    assert len(in_a_line("x" * 1000)) == 80
    assert in_a_line("x" * 1000).endswith("x…")


VERIFIED = Check(mark="verified", reason="8*3 = 24, each number used once")
WRONG = Check(mark="wrong", reason="uses 24, which is not given")
UNCHECKED = Check(mark="unchecked", reason="it is no puzzle")


def test_no_answer_of_a_checked_model_is_shown_without_its_mark(tell: Callable[..., Any]) -> None:
    story = tell(n=3)
    story.begins_round(0)
    votes = tuple(
        Vote(answer=answer, of=3, candidates=(index,), check=check)
        for index, (answer, check) in enumerate([("8*3", VERIFIED), ("24*1", WRONG), ("47", UNCHECKED)])
    )
    events = [
        *(story.ends(vote.candidates[0], 5, 1.0, vote.answer, check=vote.check) for vote in votes),
        story.ends_round(1.0).model_copy(update={"votes": votes}),
        agreed(votes[0]),
        *(story.finishes(1.0, vote.answer, votes=(vote,), check=vote.check) for vote in votes),
    ]
    spent = "from round 0, 1 of 3 candidates agree; 1 round, 1,234 tokens in 1.0 s"
    assert lines(events) == [
        "  round 0 candidate  0: 5 tokens, answer 8*3 (verified)",
        "  round 0 candidate  1: 5 tokens, answer 24*1 (wrong: uses 24, which is not given)",
        "  round 0 candidate  2: 5 tokens, answer 47 (unchecked)",
        "round 0 done: answers 8*3 (1, verified), 24*1 (1, wrong), 47 (1, unchecked)",
        "the run ends after round 0 by consensus:.3 (share 0.333): 1 of 3 agree on 8*3 (verified)",
        f"answer 8*3 (verified) {spent}",
        f"answer 24*1 (wrong: uses 24, which is not given) {spent}",
        f"answer 47 (unchecked) {spent}",
    ]


def test_a_reason_cannot_drive_the_terminal() -> None:
    assert marked("1\x1b", Check(mark="wrong", reason="uses\x1b[2J 7\nand 8")) == "1� (wrong: uses�[2J 7 and 8)"


def test_what_models_write_cannot_drive_the_terminal(story: Any) -> None:
    nasty = "\x1b[2Jgone\x07\r\x08 \u202ebidi"
    assert printable("a\tb\nc") == "a\tb\nc"
    assert printable(nasty) == "�[2Jgone��� �bidi"
    shown = lines([story.starts(), story.begins_round(0), story.begins(0), story.ends(0, 3, 1.0, nasty)])
    assert shown[-1] == "  round 0 candidate  0: 3 tokens, answer �[2Jgone��� �bidi"


def test_markup_in_answers_is_text(story: Any) -> None:
    shown = lines([story.begins_round(0), story.ends(0, 3, 1.0, "[bold]7[/bold] :smile:")])
    assert shown[-1].endswith("answer [bold]7[/bold] :smile:")


class Screen:
    """A live table on a terminal of 100 columns, and what is on it at one moment."""

    def __init__(self, height: int = 30, width: int = 100) -> None:
        self.now_s = 0.0
        self.out = io.StringIO()
        self.console = Console(file=self.out, force_terminal=True, record=True, width=width, height=height)
        self.table = LiveTable(self.console, clock=lambda: self.now_s)

    def shows(self, *events: Any) -> list[str]:
        for event in events:
            self.table.show(event)
        still = Console(file=io.StringIO(), width=self.console.width, height=self.console.height, record=True)
        still.print(self.table._render())
        return [line.rstrip() for line in still.export_text().splitlines()]


def test_table_before_the_model_is_there() -> None:
    screen = Screen()
    screen.now_s = 65.0
    assert screen.shows() == ["loading the model · 1:05"]


def test_table_of_a_round(tell: Callable[..., Any]) -> None:
    story, screen = tell(n=5), Screen()
    shown = screen.shows(
        *(story.starts(), story.begins_round(0), *(story.begins(index) for index in range(5))),
        *(story.writes(0, 1500, 2.0, "so that\n we have"), story.writes(1, 20, 2.0, "It is", "answer")),
        *(story.ends(2, 40, 2.0, "42"), story.ends(3, 7, 2.0, status="degenerate")),
    )
    assert shown == [
        "round 0 of 1",
        "  #    tokens   tok/s  state       answer so far, or what it writes",
        "  0     1,500     750  thinking    so that we have",
        "  1        20      10  answering   It is",
        "  2        40      20  done        42",
        "  3         7       4  degenerate",
        "  4         0          waiting",
        "  3 running · 1,567 tokens · 784 tok/s · 0:02 elapsed",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_mark_of_an_answer_stands_in_the_table_however_long_the_answer(
    tell: Callable[..., Any], width: int
) -> None:
    story, screen = tell(n=3), Screen(width=width)
    shown = screen.shows(
        *(story.starts(), story.begins_round(0), *(story.begins(index) for index in range(3))),
        story.ends(0, 5, 1.0, "8*3", check=VERIFIED),
        story.ends(1, 5, 1.0, "24" + "*1" * 60, check=WRONG),
        story.ends(2, 5, 1.0, "47", check=UNCHECKED),
    )
    assert shown[2].endswith("done        8*3 (verified)")
    assert shown[3].endswith("*… (wrong)") or shown[3].endswith("1… (wrong)")
    assert shown[4].endswith("done        47 (unchecked)")


def test_rows_that_ended_show_what_came_of_them_and_no_half_sentence(tell: Callable[..., Any]) -> None:
    story, screen = tell(n=2), Screen()
    begun = [story.begins_round(0), story.begins(0), story.writes(0, 20, 1.0, "5-2=3, 7*3="), story.ends(0, 22, 1.2)]
    assert screen.shows(story.starts(), *begun)[2].split() == ["0", "22", "10", "done", "handed", "on"]
    begun = [story.begins_round(1), story.begins(0), story.writes(0, 20, 2.0, "5-2=3, 7*3="), story.ends(0, 22, 2.2)]
    assert screen.shows(*begun)[2].split() == ["0", "22", "10", "done", "no", "answer"]
    failed = story.ends(1, 0, 4.0, status="failed", completion=None, error="no memory")
    assert screen.shows(story.writes(1, 20, 3.0, "5-2="), failed)[3].split() == ["1", "20", "5", "failed"]


def test_the_clock_goes_on_between_events(story: Any) -> None:
    screen = Screen()
    screen.shows(story.starts(), story.begins_round(0, 3600.0))
    screen.now_s += 61
    assert screen.shows()[-1] == "  2 running · 0 tokens · 0 tok/s · 1:01:01 elapsed"


def test_more_rows_than_the_screen_has(tell: Callable[..., Any]) -> None:
    story, screen = tell(n=64), Screen()
    shown = screen.shows(
        *(story.starts(), story.begins_round(0), *(story.begins(index) for index in range(64))),
        *(story.ends(index, 9, 1.0, "42") for index in range(30)),
    )
    assert len(shown) <= 29, "the table leaves the screen's last line alone"
    assert [int(line.split()[0]) for line in shown[2:26]] == list(range(30, 54)), "who still runs comes first"
    assert shown[26].strip() == "... and 40 more"
    assert shown[27].startswith("  34 running")


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_row_wraps_and_the_newest_words_show(story: Any, width: int) -> None:
    screen = Screen(width=width)
    shown = screen.shows(story.starts(), story.begins_round(0), story.begins(0), story.writes(0, 5, 1.0, "ab " * 99))
    assert len([line for line in shown if "thinking" in line]) == 1
    assert shown[2].strip().startswith("0 ")
    assert shown[3].strip().startswith("1 ")
    assert max(map(len, shown)) <= width
    assert shown[2].endswith("ab")
    assert len(shown[2].split("…")[1]) >= 10
    assert ("tok/s" in shown[1]) == (width >= 60)


def test_what_stays_on_the_terminal(story: Any) -> None:
    screen = Screen()
    with screen.table:
        for event in (
            *(story.starts(), story.begins_round(0), story.begins(0), story.begins(1)),
            *(story.ends(0, 4, 1.0, "7"), story.ends(1, 0, 1.0, status="failed", completion=None, error="no memory")),
            *(story.ends_round(1.0, ("7", 1)), story.finishes(2.0, "7", ("7", 1))),
        ):
            screen.table.show(event)
    text = screen.console.export_text(clear=False)
    kept = [
        "solving with tiny: n=2 c=2 t=1 beta=100 tau=10 seed=0",
        "  round 0 candidate  1: failed: no memory",
        "round 0 done: answers 7 (1)",
        "answer 7 from round 0, 1 of 2 candidates agree; 1 round, 1,234 tokens in 2.0 s",
    ]
    places = [text.index(line) for line in kept]
    assert places == sorted(places)
    assert text.rstrip().endswith(kept[-1])
    # The table was erased before the last line: cursor up and erase line, for each of its lines.
    raw = screen.out.getvalue()
    assert "\x1b[2K" in raw[raw.rindex("elapsed") : raw.rindex("answer")]


def test_the_display_suits_its_place() -> None:
    assert isinstance(make_display(Console(file=io.StringIO()), quiet=False), Lines)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True), quiet=False), LiveTable)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True), quiet=True), Silent)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_display(dumb, quiet=False), Lines), "a shell in an editor"
