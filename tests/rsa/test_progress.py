"""What a display knows of a run, from its events alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rsa.command.progress import Progress


def fed(*events: Any) -> Progress:
    progress = Progress()
    for event in events:
        progress.update(event)
    return progress


def test_nothing_is_known_before_the_start() -> None:
    progress = Progress()
    assert not progress.started
    assert (progress.tokens, progress.running, progress.tokens_per_s(), progress.eta_s()) == (0, 0, 0.0, None)


def test_a_round_as_it_goes(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0, 1.0), story.begins(1, 1.0))
    assert (progress.rounds_planned, progress.running) == (2, 2)
    progress.update(story.writes(0, 30, 2.0, "abc"))
    progress.update(story.writes(1, 10, 2.0, "x", "answer"))
    first, second = progress.rows
    assert (first.tokens, first.text, first.section, first.status) == (30, "abc", "reasoning", None)
    assert (second.tokens, second.section) == (10, "answer")
    assert progress.tokens == 40
    assert first.tokens_per_s(4.0) == 10.0
    progress.update(story.writes(0, 31, 2.5, "abc"))
    progress.update(story.ends(0, 40, 5.0, "7", started_s=1.0))
    assert (first.tokens, first.status, first.answer, progress.running) == (40, "ok", "7", 1)
    assert first.tokens_per_s(99.0) == pytest.approx(10 / 3), "since it began to write"


def test_tokens_of_all_rounds_add_up(story: Any) -> None:
    progress = fed(
        story.starts(),
        story.begins_round(0),
        *(story.begins(0), story.begins(1), story.ends(0, 40, 1.0), story.ends(1, 60, 2.0)),
        story.ends_round(2.0, ("7", 2)),
    )
    assert [(vote.answer, vote.count) for vote in progress.votes] == [("7", 2)]
    progress.update(story.begins_round(1, 2.0))
    assert (progress.round, progress.tokens, progress.votes, len(progress.rows)) == (1, 100, (), 2)
    assert progress.rows[0].parents == (0, 1)
    progress.update(story.writes(0, 5, 3.0))
    assert progress.tokens == 105


def test_nothing_is_said_of_the_end_while_it_would_be_a_guess(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0), story.begins(1))
    for index, tokens, at_s in ((0, 1, 0.5), (1, 1, 0.5), (0, 11, 1.5), (1, 11, 1.5)):
        progress.update(story.writes(index, tokens, at_s))
        assert progress.eta_s() is None, "no candidate has ended, and all are far from beta"
    progress.update(story.writes(0, 31, 3.5))
    assert progress.eta_s() is not None, "none can be longer than beta"


def test_the_end_is_the_rest_of_this_round_and_those_to_come(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0), story.begins(1))
    for index, tokens, at_s in ((0, 1, 1.0), (1, 1, 1.0), (0, 11, 2.0), (1, 11, 2.0)):
        progress.update(story.writes(index, tokens, at_s))
    progress.update(story.ends(1, 21, 3.0))
    progress.update(story.writes(0, 21, 3.0))
    # Each writes 10 tokens a second, and is 21 long. What comes: two prompts of 5 + 2 x 10 tokens, taken to be read
    # twice as fast as both write, and 21 tokens; the first may write a little more than the second did.
    assert progress.eta_s() == pytest.approx(2 * 25 / 40 + 2.1 + 21 / 6 / 10)


def test_speed_is_that_of_the_last_seconds(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0))
    for second in range(1, 21):
        progress.update(story.writes(0, second if second <= 10 else 10 + 100 * (second - 10), float(second)))
    assert progress.tokens_per_s() == 100.0


def test_what_comes_late_changes_nothing(story: Any) -> None:
    late = story.writes(0, 7, 2.5)
    ended = story.ends(0, 40, 2.0)
    again = story.ends(0, 99, 3.0)
    progress = fed(story.starts(), story.begins_round(0), story.begins(0), ended, late, again, story.begins(0, 9.0))
    assert (progress.rows[0].tokens, progress.rows[0].status) == (40, "ok")
    progress.update(story.begins_round(1, 3.0))
    progress.update(late)  # of the round before
    progress.update(ended)
    assert [(row.tokens, row.status) for row in progress.rows] == [(0, None), (0, None)]
    progress.update(story.writes(5, 7, 4.0))  # of nobody
    assert progress.tokens == 40


def test_times_that_go_back_do_not_upset_the_speed(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0))
    for at_s, tokens in ((2.0, 20), (1.0, 25), (4.0, 40)):
        progress.update(story.writes(0, tokens, at_s))
    assert progress.tokens_per_s() == 10.0


def test_a_failed_candidate_without_a_completion(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0), story.writes(0, 5, 1.0))
    progress.update(story.ends(0, 0, 2.0, status="failed", completion=None))
    assert (progress.rows[0].status, progress.rows[0].tokens) == ("failed", 5)


def test_what_a_resumed_run_finds_is_not_its_speed(tell: Callable[..., Any]) -> None:
    story = tell(n=3)
    progress = fed(story.starts(resumed=True), story.begins_round(0, 100.0))
    progress.update(story.ends(0, 5000, 100.0))  # from the log: it never began here
    progress.update(story.ends(1, 5000, 100.0))
    progress.update(story.begins(2, 100.0))
    progress.update(story.writes(2, 10, 101.0))
    assert progress.tokens == 10010
    assert progress.tokens_per_s() == 10.0


def test_the_selection_is_a_round_of_one(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(2, 5.0, kind="selection"))
    assert progress.kind == "selection"
    assert progress.eta_s() is None
