"""From scores to figures: worked by hand, and against a plain second way of computing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import ModelInfo, Usage
from evals.display import result_lines
from evals.eval_record import DataSource, EvalRecord
from evals.results import CandidateRecord, DataInfo, EvalResults
from evals.run_scores import RunScores
from evals.scorers.protocol import UNSCORED, Score, ScoreStatus
from evals.stats import best_of, estimate
from evals.summary import headline_value, protocol, summarise
from rsa import RSAConfig
from rsa.results import Budgets

Mark = tuple[ScoreStatus, float | None, str | None]
"""Status, value and extracted answer of a candidate."""
RIGHT: Mark = ("scored", 1.0, "a")
WRONG: Mark = ("scored", 0.0, "b")
OTHER: Mark = ("scored", 0.0, "c")
SILENT: Mark = ("no_answer", 0.0, None)
FAILED: Mark = ("failed", None, None)
HARD: Mark = ("too_hard", None, "d")
CUT: Mark = ("cut", None, None)
TOKENS = 10


def record_of(n: int = 4, t: int = 1, *, method: str = "rsa", epochs: int = 1, selected: int = 2) -> EvalRecord:
    return EvalRecord.now(
        benchmark="made-up",
        metric="exactly",
        method=method,
        config=RSAConfig(n=n, c=1, t=t, beta=64, tau=16, answer_budget=8, seed=3),
        epochs=epochs,
        model=ModelInfo(name="m"),
        prompt_sha256="ab",
        data=DataInfo(kind="given", name="made-up", selected=selected),
        source=DataSource(),
        versions={},
    )


BUDGETS = Budgets(
    beta=64,
    tau=16,
    answer_budget=8,
    asked={"beta": 64, "tau": 16, "answer_budget": 8},
    initial_prompt=9,
    prompt_bound=9,
)


def lowered(**used: int) -> Budgets:
    return BUDGETS.model_copy(update={**used, "lowered": "lowered to fit"})


def run_of(problem: str, *rounds: Sequence[Mark], epoch: int = 0, **more: Any) -> RunScores:
    """A run whose candidates took ten tokens each, three of them reasoning."""
    candidates = [
        CandidateRecord(
            problem_id=problem,
            epoch=epoch,
            round=number,
            index=index,
            parents=(),
            seed=0,
            prompt_sha256="",
            sampling={},
            status="failed" if status == "failed" else "ok",
            finish_reason="stop",
            forced=False,
            prompt_tokens=100 + number,
            reasoning_tokens=3,
            completion_tokens=TOKENS,
            score=Score(value=value, status=status, extracted=extracted),
        )
        for number, marks in enumerate(rounds)
        for index, (status, value, extracted) in enumerate(marks)
    ]
    fields = {
        "metric": "exactly",
        "question_sha256": "",
        "answer": Score(value=1.0),
        "usage": Usage(completion_tokens=TOKENS * len(candidates)),
        "budgets": BUDGETS,
        "ended": "finished",
        "groups": tuple(_groups(marks) for marks in rounds),
    }
    return RunScores(**{"problem_id": problem, "epoch": epoch, "candidates": tuple(candidates), **fields, **more})


def _groups(marks: Sequence[Mark]) -> tuple[tuple[int, ...], ...]:
    answers = [extracted for _, _, extracted in marks]
    kinds = dict.fromkeys(answer for answer in answers if answer is not None)
    groups = [tuple(i for i, answer in enumerate(answers) if answer == kind) for kind in kinds]
    return tuple(sorted(groups, key=lambda group: (-len(group), group[0])))


# ---- by hand


def test_two_problems_by_hand() -> None:
    runs = [
        run_of("p", [RIGHT, WRONG, WRONG, SILENT], [RIGHT, RIGHT, RIGHT, WRONG]),
        run_of("q", [WRONG, OTHER, WRONG, WRONG], [RIGHT, RIGHT, WRONG, WRONG], answer=Score(value=0.0)),
    ]
    results = summarise(record_of(), runs)
    first, second = results.rounds
    assert results.mean.value == pytest.approx((3 / 4 + 2 / 4) / 2)
    # Two values around 0.625: sd = 0.125 sqrt(2), se = sd / sqrt(2); t of one degree of freedom is 12.706.
    assert results.mean.se == pytest.approx(0.125)
    assert results.mean.margin == pytest.approx(12.706 * 0.125, abs=1e-4)
    assert (results.mean.low, results.mean.high) == (0.0, 1.0), "where scores end"
    assert (first.mean.value, second.mean.value) == pytest.approx((0.125, 0.625))
    assert first.vote.value == 0.0
    assert second.vote.value == pytest.approx((1.0 + 0.5) / 2)  # a tie is shared
    assert {k: each.value for k, each in first.best_of.items()} == pytest.approx({1: 0.125, 2: 0.25, 4: 0.5})
    assert {k: each.value for k, each in second.best_of.items()} == pytest.approx(
        {1: 0.625, 2: (1 + 5 / 6) / 2, 4: 1.0}
    )
    assert (first.statuses, second.statuses) == ({"scored": 7, "no_answer": 1}, {"scored": 8})
    assert (first.asked, first.present) == (8, 8)
    assert (second.became_right, second.became_wrong) == (1, 0)
    assert (first.reasoning_tokens, first.answer_tokens, first.tokens, second.tokens) == (12.0, 28.0, 40.0, 80.0)
    assert (first.longest_prompt, second.longest_prompt) == (100, 101)
    assert results.answer.value == 0.5
    assert results.usage.completion_tokens == 160
    assert [(p.id, p.value, p.answer, p.tokens) for p in results.problems] == [
        ("p", 0.75, 1.0, 80.0),
        ("q", 0.5, 0.0, 80.0),
    ]
    assert [(p.means, p.votes) for p in results.problems] == [((0.25, 0.75), (0.0, 1.0)), ((0.0, 0.5), (0.0, 0.5))]
    assert results.warnings == ()


def test_what_has_no_value_is_left_out_and_counted() -> None:
    runs = [run_of("p", [RIGHT, FAILED, HARD, WRONG]), run_of("q", [RIGHT, RIGHT, WRONG, RIGHT])]
    results = summarise(record_of(t=0), runs)
    (only,) = results.rounds
    assert results.mean.value == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert set(only.best_of) == {1, 2}, "one problem has but two scored candidates"
    assert only.best_of[2].value == pytest.approx((1.0 + 1.0) / 2)
    assert results.statuses == {"scored": 6, "too_hard": 1, "failed": 1}
    assert results.warnings == (
        "2 of 8 candidates of the final rounds have no value (1 failed, 1 too_hard) and are left out",
    )


def test_who_was_not_waited_for_is_no_wrong_answer_and_is_told() -> None:
    results = summarise(
        record_of(t=0), [run_of("p", [RIGHT, RIGHT, WRONG, CUT]), run_of("q", [RIGHT, RIGHT, CUT, CUT])]
    )
    assert results.mean.value == pytest.approx((2 / 3 + 1) / 2)
    assert results.statuses == {"scored": 5, "cut": 3}
    assert results.warnings == (
        "3 of 8 candidates of the final rounds have no value (3 cut) and are left out",
        "3 of 8 final candidates were not waited for: means over candidates are those of the quick ones, "
        "and only a vote or the answer speaks for the method",
    )


def test_a_vote_for_what_nobody_can_score_has_no_value() -> None:
    results = summarise(
        record_of(t=0, method="vote"), [run_of("p", [HARD, HARD, HARD, RIGHT]), run_of("q", [FAILED] * 4)]
    )
    assert (results.headline, results.mean.value) == ("vote", None)
    assert [(p.value, p.final_vote, p.final_mean) for p in results.problems] == [(None, None, 1.0), (None, None, None)]


def test_nobody_answering_is_a_vote_worth_nothing() -> None:
    results = summarise(record_of(t=0, method="vote", selected=1), [run_of("p", [SILENT] * 4)])
    assert results.mean.value == 0.0


def test_runs_that_end_early_are_judged_by_their_last_round() -> None:
    runs = [run_of("p", [RIGHT] * 4), run_of("q", [WRONG] * 4, [RIGHT, WRONG, WRONG, WRONG])]
    results = summarise(record_of(), runs)
    assert [problem.value for problem in results.problems] == [1.0, 0.25]
    assert [problem.final_vote for problem in results.problems] == [1.0, 0.0]
    first, second = results.rounds
    assert (second.present, second.asked, second.mean.value, second.mean.problems) == (4, 8, 0.25, 1)
    assert (first.tokens, second.tokens) == (40.0, (40 + 80) / 2)
    assert second.reasoning_tokens == 12.0
    assert (second.became_right, second.became_wrong) == (0, 0)


def test_a_run_that_failed_has_no_value_and_its_reason_is_told() -> None:
    runs = [
        run_of("p", [RIGHT] * 4, [FAILED] * 4, error="all 4 candidates of round 1 failed", answer=None),
        run_of("q", error="the problem is empty", answer=None, budgets=None),
        run_of("r", [RIGHT] * 4, [RIGHT] * 4),
    ]
    results = summarise(record_of(selected=3), runs)
    assert [(p.value, p.answer, p.tokens) for p in results.problems] == [
        (None, None, 80.0),
        (None, None, None),
        (1.0, 1.0, 80.0),
    ]
    assert results.rounds[0].mean.problems == 2
    assert results.rounds[1].best_of[4].value == 1.0, "problems without any score do not forbid a k"
    assert results.warnings[0] == (
        "problems that failed: 2; p: all 4 candidates of round 1 failed; q: the problem is empty"
    )
    assert results.warnings[1] == "the final rounds have 8 of the 12 candidates asked for"


def test_tokens_are_of_runs_that_began() -> None:
    whole = run_of("p", [RIGHT] * 4, [RIGHT] * 4)
    nothing = run_of("p", error="the problem is empty", answer=None, budgets=None, epoch=1)
    (problem,) = summarise(record_of(epochs=2), [whole, nothing]).problems
    assert problem.tokens == 80.0
    assert "80 tokens a problem, 80 in all" in result_lines(summarise(record_of(epochs=2), [whole, nothing]))


def test_epochs_pool_candidates_and_average_votes() -> None:
    runs = [
        run_of("p", [RIGHT, RIGHT, WRONG, WRONG]),
        run_of("p", [RIGHT, FAILED, FAILED, FAILED], epoch=1, answer=Score(value=0.0)),
    ]
    results = summarise(record_of(t=0, epochs=2, selected=1), runs)
    (problem,) = results.problems
    assert problem.value == pytest.approx(3 / 5)
    assert problem.votes == (0.75,)
    assert (problem.answer, problem.tokens) == (0.5, 40.0)
    assert set(results.rounds[0].best_of) == {1}
    assert results.rounds[0].best_of[1].value == pytest.approx((0.5 + 1.0) / 2)
    assert (results.rounds[0].asked, results.rounds[0].present) == (8, 8)


def test_problems_of_a_cluster_count_as_one() -> None:
    runs = [run_of(f"p{i}", [mark] * 4, cluster=f"c{i // 2}") for i, mark in enumerate([RIGHT, RIGHT, WRONG, WRONG])]
    results = summarise(record_of(t=0, selected=4), runs)
    assert (results.mean.problems, results.mean.clusters) == (4, 2)
    assert results.mean.se == pytest.approx(0.5)
    assert results.rounds[0].vote.clusters == results.rounds[0].best_of[4].clusters == results.answer.clusters == 2


def test_what_a_reader_should_know() -> None:
    runs = [
        run_of("p", [RIGHT] * 4, budgets=lowered(beta=40), warnings=("odd", "even")),
        run_of("q", [RIGHT] * 4, budgets=lowered(beta=50, tau=12), warnings=("odd",)),
        run_of("r", [RIGHT] * 4),
    ]
    record = record_of(t=0, selected=3).model_copy(update={"data_warnings": ("the data come from elsewhere",)})
    assert summarise(record, runs).warnings == (
        "the data come from elsewhere",
        "budgets were lowered to fit in 2 of 3 runs: beta 64 -> 40 to 50, tau 16 -> 12",
        "odd (2 of 3 runs); even (1 of 3 runs)",
    )
    many = [run_of(f"p{i}", error="no", answer=None) for i in range(5)]
    assert (
        summarise(record_of(selected=5), many).warnings[0]
        == "problems that failed: 5; p0: no; p1: no; p2: no and 2 more"
    )


def test_the_protocol_says_what_was_asked_and_what_counts() -> None:
    words = protocol(record_of(epochs=2))
    assert words.startswith(
        "2 problems of made-up, 2 times with seeds of their own; method rsa: 4 candidates a round, 1 aggregation round "
        "over 1 tail of up to 16 tokens"
    )
    assert words.endswith("mean over problems, by exactly.")
    assert "no aggregation" in protocol(record_of(t=0, method="vote"))
    assert "agree on" in protocol(record_of(t=0, method="vote"))


# ---- against a second way

MARKS = st.sampled_from([RIGHT, WRONG, OTHER, SILENT, FAILED, HARD, ("scored", 0.3, "e")])
N, T = 3, 2


@st.composite
def evaluations(draw: st.DrawFn) -> tuple[EvalRecord, list[RunScores]]:
    epochs = draw(st.integers(1, 2))
    problems = draw(st.integers(1, 4))
    rounds = st.lists(st.lists(MARKS, min_size=N, max_size=N), min_size=0, max_size=T + 1)
    method = draw(st.sampled_from(["rsa", "vote"]))
    clusters = [draw(st.sampled_from([None, "x", "y"])) for _ in range(problems)]
    runs = [
        run_of(f"p{problem}", *draw(rounds), epoch=epoch, cluster=clusters[problem])
        for problem in range(problems)
        for epoch in range(epochs)
    ]
    return record_of(N, T, method=method, epochs=epochs, selected=problems), runs


def values(run: RunScores, number: int) -> list[float]:
    marks = [record.score.value for record in run.candidates if record.round == number]
    return [value for value in marks if value is not None]


def average(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None


@pytest.mark.thorough
@settings(max_examples=150, deadline=None)
@given(evaluations())
def test_means_pass_at_k_and_counts_are_those_of_a_plain_computation(made: tuple[EvalRecord, list[RunScores]]) -> None:
    record, runs = made
    results = summarise(record, iter(runs))
    by_problem: dict[str, list[RunScores]] = {}
    for run in runs:
        by_problem.setdefault(run.problem_id, []).append(run)
    clusters = {problem: each[0].cluster for problem, each in by_problem.items()}
    for played in results.rounds:
        number = played.round
        there = {p: [r for r in each if any(c.round == number for c in r.candidates)] for p, each in by_problem.items()}
        means = {p: average([v for r in each for v in values(r, number)]) for p, each in there.items()}
        expected = estimate(means, clusters)
        assert (played.mean.problems, played.mean.clusters) == (expected.problems, expected.clusters)
        assert (played.mean.value, played.mean.se) == pytest.approx((expected.value, expected.se))
        scored = [len(values(r, number)) for each in there.values() for r in each if values(r, number)]
        assert set(played.best_of) == {k for k in (1, 2, 3) if scored and k <= min(scored)}
        for k, best in played.best_of.items():
            bests = {p: average([best_of(values(r, number), k) for r in each]) for p, each in there.items()}
            assert best.value == pytest.approx(estimate(bests, clusters).value)
        assert played.present == sum(1 for run in runs for c in run.candidates if c.round == number)
        assert played.asked == N * len(runs)
        assert sum(played.statuses.values()) == played.present
    _check_problems(results, by_problem)
    finals = [run.rounds()[-1] for run in runs if run.candidates]
    assert results.statuses == _counts([row for rows in finals for row in rows])
    unscored = sum(count for status, count in results.statuses.items() if status in UNSCORED)
    assert any("have no value" in warning for warning in results.warnings) == (unscored > 0)
    assert results.usage.completion_tokens == sum(run.usage.completion_tokens for run in runs)


def _check_problems(results: EvalResults, by_problem: dict[str, list[RunScores]]) -> None:
    assert [problem.id for problem in results.problems] == list(by_problem)
    for problem in results.problems:
        runs = by_problem[problem.id]
        last = [run.rounds()[-1] for run in runs if run.candidates]
        assert problem.final_mean == pytest.approx(average([row.score.value for rows in last for row in rows]))
        assert problem.value == (problem.final_vote if results.method == "vote" else problem.final_mean)
        assert len(problem.means) == len(problem.votes) == max(len(run.rounds()) for run in runs)
        for value in (*problem.means, *problem.votes):
            assert value is None or 0.0 <= value <= 1.0


def _counts(rows: Sequence[CandidateRecord]) -> dict[str, int]:
    statuses = [row.score.status for row in rows]
    return {status: statuses.count(status) for status in statuses}


@settings(max_examples=50, deadline=None)
@given(evaluations())
def test_running_figures_end_where_the_results_are(made: tuple[EvalRecord, list[RunScores]]) -> None:
    record, runs = made
    if record.epochs == 1:
        running = {run.problem_id: headline_value(record, run) for run in runs}
        assert running == {problem.id: problem.value for problem in summarise(record, runs).problems}
