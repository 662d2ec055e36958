"""What a candidate is worth before a metric is asked, and what of a run is kept."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.api import Completion, FinishReason, ModelInfo, SamplingParams, Usage
from evals.data.question import Question
from evals.run_scores import failed_scores, score_candidate, score_run
from evals.scorers.protocol import Score
from rsa import RSAConfig
from rsa.results import Budgets, Candidate, Round, RunResult, Status, Timings

Exactly = runpy.run_path(str(Path(__file__).with_name("eval_child.py")))["Exactly"]
RIGHT, NOTHING = r"so \boxed{7}", "so it is"
QUESTION = Question(id="p", problem="why?", gold="7", cluster="c")


def completion(reason: FinishReason, text: str, *, closed: bool = True, cached: int = 0) -> Completion:
    usage = Usage(prompt_tokens=9, cached_tokens=cached, completion_tokens=5, reasoning_tokens=3)
    return Completion(
        request_id="r", token_ids=(1,) * 5, reasoning="hm", text=text, finish_reason=reason, closed=closed, usage=usage
    )


def candidate(status: Status, done: Completion | None, *, answer: str | None = None, **more: Any) -> Candidate:
    return Candidate(
        **{"round": 0, "index": 0, "seed": 1, "status": status, "completion": done, "answer": answer, **more}
    )


async def ask(text: str) -> Score:
    score: Score = await Exactly().score(text, "7", {})
    return score


# (status, finish reason or None without a completion, text, closed, the run's answer) -> (status, value)
CASES = {
    "right": (("ok", "stop", RIGHT, True, "7"), ("scored", 1.0)),
    "wrong": (("ok", "stop", r"\boxed{8}", True, "8"), ("scored", 0.0)),
    "no box": (("ok", "stop", NOTHING, True, None), ("no_answer", 0.0)),
    "ended inside its reasoning": (("ok", "stop", "", False, None), ("no_answer", 0.0)),
    "right, then its answer was cut off": (("ok", "length", RIGHT, True, "7"), ("scored", 1.0)),
    "cut off in its answer": (("ok", "length", NOTHING, True, None), ("truncated", 0.0)),
    "cut off by length in its reasoning": (("ok", "length", "", False, None), ("truncated", 0.0)),
    "cut off at beta": (("ok", "budget", "", False, None), ("truncated", 0.0)),
    "a box in reasoning that never closed": (("ok", "budget", RIGHT, False, None), ("truncated", 0.0)),
    "cancelled before it answered": (("cancelled", "cancelled", NOTHING, True, None), ("truncated", 0.0)),
    "cancelled after it answered": (("cancelled", "cancelled", RIGHT, True, "7"), ("scored", 1.0)),
    "cancelled, and not ended in time": (("cancelled", None, "", False, None), ("truncated", 0.0)),
    "cancelled in a free text": (("cancelled", "cancelled", RIGHT, True, None), ("truncated", 0.0)),
    "degenerate": (("degenerate", "cancelled", RIGHT, True, None), ("degenerate", 0.0)),
    "failed": (("failed", None, "", False, None), ("failed", None)),
    "cut by a policy": (("cut", "cancelled", "", False, None), ("cut", None)),
    "cut by a policy before it began": (("cut", None, "", False, None), ("cut", None)),
}


@pytest.mark.parametrize(("given", "expected"), CASES.values(), ids=CASES)
def test_what_decides(given: Any, expected: Any) -> None:
    status, reason, text, closed, answer = given
    done = None if reason is None else completion(reason, text, closed=closed)
    score = anyio.run(lambda: score_candidate(candidate(status, done, answer=answer), ask, thinks=True))
    assert (score.status, score.value) == expected
    assert score.status in ("scored", "no_answer", "failed") or score.reason


def test_a_model_without_think_tags_answers_with_all_it_writes() -> None:
    reasons: tuple[FinishReason, ...] = ("stop", "budget")
    for reason in reasons:
        done = completion(reason, RIGHT, closed=False)
        score = anyio.run(partial(score_candidate, candidate("ok", done, answer="7"), ask, thinks=False))
        assert score.status == "scored"
    cut = completion("budget", NOTHING, closed=False)
    assert anyio.run(lambda: score_candidate(candidate("ok", cut), ask, thinks=False)).status == "truncated"


def test_an_error_of_the_engine_is_told() -> None:
    failed = candidate("failed", None, error="OutOfMemoryError: lower n")
    score = anyio.run(lambda: score_candidate(failed, ask, thinks=True))
    assert score.reason == "OutOfMemoryError: lower n"


# ---- a whole run


CONFIG = RSAConfig(n=3, c=1, t=0, beta=64, tau=16, answer_budget=32)
BUDGETS = Budgets(
    beta=64,
    tau=16,
    answer_budget=32,
    asked={"beta": 64, "tau": 16, "answer_budget": 32},
    initial_prompt=9,
    prompt_bound=9,
)


def run_of(*candidates: Candidate, **more: Any) -> RunResult:
    fields: dict[str, Any] = {
        "answer": "7",
        "text": RIGHT,
        "stopped_because": "finished",
        "answered_from_round": 0,
        "votes": (),
        "limits_hit": (),
        "warnings": (),
        "usage": Usage(completion_tokens=15, cached_tokens=4),
        "budgets": BUDGETS,
        "config": CONFIG,
        "problem_id": "p",
        "model": ModelInfo(name="m"),
        "timings": Timings(started_at="", wall_s=3.5),
        "rounds": (Round(round=0, candidates=candidates),),
    }
    return RunResult(**{**fields, **more})


def three() -> list[Candidate]:
    texts = (r"\boxed{8}", RIGHT, NOTHING)
    times: dict[str, Any] = {"started_s": 1.0, "finished_s": 2.5}
    return [
        candidate(
            "ok",
            completion("stop", text, cached=4),
            index=index,
            sampling=SamplingParams(seed=9, stop=("x",), reasoning_budget=64),
            prompt_sha256="ab",
            **times,
        )
        for index, text in enumerate(texts)
    ]


def scored(result: RunResult, **more: Any) -> Any:
    return anyio.run(lambda: score_run(result, QUESTION, Exactly(), metric="exactly", **more))


def test_what_is_kept_of_a_run() -> None:
    scores = scored(run_of(*three(), warnings=("an odd thing",)), epoch=2)
    assert (scores.problem_id, scores.epoch, scores.cluster, scores.metric, scores.gold) == (
        "p",
        2,
        "c",
        "exactly",
        "7",
    )
    assert [record.score.value for record in scores.candidates] == [0.0, 1.0, 0.0]
    assert scores.groups == (((0,), (1,)),)
    assert scores.answer is not None
    assert scores.answer.value == 1.0
    assert (scores.usage.completion_tokens, scores.usage.cached_tokens) == (15, 0)
    assert (scores.budgets, scores.warnings, scores.error) == (BUDGETS, ("an odd thing",), None)
    assert (scores.wall_s, scores.generating_s) == (3.5, 4.5)
    record = scores.candidates[1]
    assert (record.prompt_sha256, record.sampling["reasoning_budget"]) == ("ab", 64)
    assert {"seed", "stop"}.isdisjoint(record.sampling)
    assert (record.prompt_tokens, record.reasoning_tokens, record.completion_tokens) == (9, 3, 5)
    assert [[row.index for row in rows] for rows in scores.rounds()] == [[0, 1, 2]]


def test_that_budgets_were_lowered_is_in_the_budgets_not_in_the_warnings() -> None:
    lowered = BUDGETS.model_copy(update={"beta": 32, "lowered": "lowered to fit"})
    scores = scored(run_of(*three(), warnings=("an odd thing", "lowered to fit"), budgets=lowered))
    assert (scores.budgets, scores.warnings) == (lowered, ("an odd thing",))


def test_a_run_without_an_answer_is_worth_nothing() -> None:
    scores = scored(run_of(*three(), answer=None, text=""))
    assert (scores.answer.value, scores.answer.status) == (0.0, "no_answer")


def test_a_run_that_failed_has_no_answer_and_keeps_its_candidates() -> None:
    scores = scored(run_of(*three()), error="all failed")
    assert (scores.answer, scores.error, len(scores.candidates)) == (None, "all failed", 3)
    nothing = failed_scores(QUESTION, metric="exactly", epoch=1, error="too long")
    assert (nothing.candidates, nothing.answer, nothing.error, nothing.rounds()) == ((), None, "too long", [])


def test_the_tokens_and_seconds_of_a_selecting_aggregation_count_and_it_is_no_round() -> None:
    extra = Round(round=1, kind="selection", candidates=(three()[1],))
    scores = scored(run_of(*three(), selection=extra, usage=Usage(completion_tokens=20)))
    assert (len(scores.candidates), scores.usage.completion_tokens, scores.generating_s) == (3, 20, 6.0)


def test_the_metric_is_asked_once_for_equal_texts() -> None:
    asked: list[str] = []

    class Counting(Exactly):  # type: ignore[valid-type, misc]
        async def score(self, answer: str, gold: Any, fields: Any) -> Any:
            asked.append(answer)
            return await super().score(answer, gold, fields)

    same = [each.model_copy(update={"completion": completion("stop", RIGHT)}) for each in three()]
    anyio.run(lambda: score_run(run_of(*same), QUESTION, Counting(), metric="exactly"))
    assert asked == [RIGHT]


@pytest.mark.parametrize(
    "change", [{"problem": "how?"}, {"gold": "8"}, {"cluster": None}, {"fields": {"precision": 2}}, {"id": "q"}]
)
def test_the_digest_of_a_question(change: dict[str, Any]) -> None:
    other = QUESTION.model_copy(update=change)
    assert (other.sha256 == QUESTION.sha256) == ("id" in change)
