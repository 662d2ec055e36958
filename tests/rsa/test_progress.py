"""What a display knows of a run, from its events alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rsa.events import BudgetsLowered
from rsa.progress import Progress


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
    progress.update(story.ends(0, 40, 5.0, "7", started_s=1.0))
    assert (first.tokens, first.status, first.answer, progress.running) == (40, "ok", "7", 1)
    assert first.tokens_per_s(99.0) == 10.0, "a candidate's speed is that of its own time"


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


def test_eta_takes_beta_until_a_length_is_known(story: Any) -> None:
    progress = fed(story.starts(), story.begins_round(0), story.begins(0), story.begins(1), story.writes(0, 50, 1.0))
    # 50 tokens/s. 50 + 100 tokens are left here and two candidates of 100 in the round to come.
    assert progress.tokens_per_s() == 50.0
    assert progress.eta_s() == pytest.approx(350 / 50)
    progress.update(story.ends(1, 20, 1.0))
    # They seem to be 20 long: the first is past that, two of 20 are to come. 70 tokens in a second.
    assert progress.eta_s() == pytest.approx(40 / 70)


def test_lowered_budgets_count(story: Any) -> None:
    lowered = BudgetsLowered(
        message="m", context_tokens=9, prompt_tokens=1, asked_beta=100, asked_tau=10, asked_answer_budget=9, beta=60,
        tau=10, answer_budget=9,
    )  # fmt: skip
    progress = fed(story.starts(), lowered, story.begins_round(0), story.begins(0), story.writes(0, 10, 1.0))
    assert progress.eta_s() == pytest.approx((50 + 60 + 2 * 60) / 10)


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
    assert (progress.rows[0].tokens, progress.rows[0].status, progress.finished_tokens) == (40, "ok", [40])
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
    assert (progress.rows[0].status, progress.rows[0].tokens, progress.finished_tokens) == ("failed", 5, [])


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
