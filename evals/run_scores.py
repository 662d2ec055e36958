"""From a run to scores: what each candidate is worth and why, with all that the summary needs to know of it.

What decides before a metric is asked:

failed       the engine failed on the candidate                       -> failed, no value
cut          a policy of `stop` did not wait for it                   -> cut, no value
degenerate   it was cut off because it kept repeating itself          -> degenerate, 0
cut off      by a budget, a limit or its length, before it answered   -> truncated, 0
open         it ended by itself inside its reasoning                  -> no_answer, 0

A candidate that was cut off after a complete answer keeps it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import groupby
from typing import Self

from pydantic import FiniteFloat, JsonValue, model_validator

from engine.api import FinishReason, Usage
from evals.budget import Ended
from evals.data.question import Question
from evals.results import CandidateRecord
from evals.scorers.protocol import Score, Scorer
from rsa.results import Budgets, Candidate, Record, Round, RunResult

Ask = Callable[[str], Awaitable[Score]]
"""What the text of an answer section is worth by the metric: a function that says so."""
Group = tuple[int, ...]
CUT_OFF: Mapping[FinishReason, str] = {
    "budget": "its reasoning used up the budget",
    "length": "its answer used up the budget",
    "cancelled": "a limit of the run cut it off",
}
"""The finish reasons of a candidate that did not end by itself, and what each means."""


class RunScores(Record):
    """What is kept of one run: a problem in one epoch.

    metric      that the scores are of; `gold`: the question's, for people who read them.
    question_sha256   of all that the scores depend on beside the run.
    candidates  of all rounds, by round and index.
    groups      by round: candidates whose answers are equivalent, larger groups first.
    answer      the one answer that the run gave; None if the run failed.
    usage       of the whole run, a last selecting aggregation included. `cached_tokens` is 0: what is computed once
                for several prompts depends on what else ran at the time.
    budgets     of the run; None if nothing ran.
    warnings    of the run, that about its budgets apart.
    ended       why the run ended.
    error       why the run failed as a whole; None if it did not.
    wall_s      seconds of the run; `generating_s` sums those of its candidates.
    """

    problem_id: str
    epoch: int
    cluster: str | None = None
    metric: str
    gold: JsonValue = None
    question_sha256: str
    candidates: tuple[CandidateRecord, ...] = ()
    groups: tuple[tuple[Group, ...], ...] = ()
    answer: Score | None = None
    usage: Usage = Usage()
    budgets: Budgets | None = None
    warnings: tuple[str, ...] = ()
    ended: Ended
    error: str | None = None
    wall_s: FiniteFloat = 0.0
    generating_s: FiniteFloat = 0.0

    @model_validator(mode="after")
    def _groups_fit_rounds(self) -> Self:
        sizes = [len(rows) for rows in self.rounds()]
        if len(self.groups) != len(sizes):
            raise ValueError(f"groups of {len(self.groups)} rounds for {len(sizes)} rounds")
        for size, groups in zip(sizes, self.groups, strict=True):
            if any(not 0 <= index < size for group in groups for index in group):
                raise ValueError(f"a group has a candidate that is not among the {size} of its round")
        return self

    @property
    def failed(self) -> bool:
        """Whether something went wrong; a budget that did not reach the run is no failure of its own."""
        return self.error is not None and self.ended != "unbegun"

    def rounds(self) -> list[list[CandidateRecord]]:
        """Candidates by round; `groups[i]` indexes the i-th list."""
        return [list(rows) for _, rows in groupby(self.candidates, lambda candidate: candidate.round)]


async def score_run(
    result: RunResult, question: Question, scorer: Scorer, *, metric: str, epoch: int = 0, error: str | None = None
) -> RunScores:
    """Score every candidate of every round, and the answer that the run gave.

    error  why the run failed, if it did: `result` is what there is of it then.

    Raises GoldError if the question's gold is not what the metric needs.
    """
    asked: dict[str, Score] = {}

    async def ask(text: str) -> Score:
        # Candidates that agree often agree to the letter.
        if text not in asked:
            asked[text] = await scorer.score(text, question.gold, question.fields)
        return asked[text]

    records: list[CandidateRecord] = []
    groups: list[tuple[Group, ...]] = []
    for played in result.rounds:
        scores = [await score_candidate(c, ask, thinks=result.model.thinks) for c in played.candidates]
        groups.append(tuple(await scorer.group([score.extracted for score in scores])))
        records += [_record(question, epoch, c, score) for c, score in zip(played.candidates, scores, strict=True)]
    return RunScores(
        problem_id=question.id,
        epoch=epoch,
        cluster=question.cluster,
        metric=metric,
        gold=question.gold,
        question_sha256=question.sha256,
        candidates=tuple(records),
        groups=tuple(groups),
        answer=None if error is not None else await _answer_score(result, ask),
        usage=result.usage.model_copy(update={"cached_tokens": 0}),
        budgets=result.budgets,
        warnings=tuple(each for each in result.warnings if each != result.budgets.lowered),
        ended=result.stopped_because,
        error=error,
        wall_s=result.timings.wall_s,
        generating_s=sum(_seconds(played) for played in result.played),
    )


def failed_scores(question: Question, *, metric: str, epoch: int, error: str, ended: Ended = "failed") -> RunScores:
    """The scores of a run that failed before it had any candidates: none."""
    return RunScores(
        problem_id=question.id,
        epoch=epoch,
        cluster=question.cluster,
        metric=metric,
        gold=question.gold,
        question_sha256=question.sha256,
        ended=ended,
        error=error,
    )


async def score_candidate(candidate: Candidate, ask: Ask, *, thinks: bool) -> Score:
    """What a candidate is worth: `ask` decides if it ran its course. See this module's docstring.

    thinks  the model writes its reasoning between tags.
    """
    completion = candidate.completion
    if candidate.status == "failed":
        return Score(value=None, status="failed", reason=candidate.error or "")
    if candidate.status == "cut":
        return Score(value=None, status="cut", reason="its round ended before it answered")
    if candidate.status == "degenerate":
        return Score(value=0.0, status="degenerate", reason="it kept repeating itself")
    cut_off = CUT_OFF["cancelled"] if completion is None else CUT_OFF.get(completion.finish_reason)
    # Of a candidate that a limit cut off, only what the run itself took for a complete answer counts.
    if completion is None or (candidate.status == "cancelled" and candidate.answer is None):
        return Score(value=0.0, status="truncated", reason=cut_off or CUT_OFF["cancelled"])
    if thinks and not completion.closed:
        reason = cut_off or "it ended inside its reasoning"
        return Score(value=0.0, status="truncated" if cut_off else "no_answer", reason=reason)
    score = await ask(completion.text)
    if cut_off and score.status == "no_answer":
        return Score(value=0.0, status="truncated", reason=cut_off)
    return score


async def _answer_score(result: RunResult, ask: Ask) -> Score:
    if result.answer is None:
        return Score(value=0.0, status="no_answer", reason="no candidate gave an answer")
    return await ask(result.text)


def _record(question: Question, epoch: int, candidate: Candidate, score: Score) -> CandidateRecord:
    completion = candidate.completion
    usage = completion.usage if completion else Usage()
    sampling = candidate.sampling.model_dump(exclude={"seed", "stop", "cue"}) if candidate.sampling else {}
    return CandidateRecord(
        problem_id=question.id,
        epoch=epoch,
        round=candidate.round,
        index=candidate.index,
        parents=candidate.parents,
        seed=candidate.seed,
        prompt_sha256=candidate.prompt_sha256,
        sampling=sampling,
        status=candidate.status,
        finish_reason=completion.finish_reason if completion else None,
        forced=completion.forced if completion else False,
        prompt_tokens=usage.prompt_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        completion_tokens=usage.completion_tokens,
        error=candidate.error,
        score=score,
    )


def _seconds(played: Round) -> float:
    return sum(candidate.finished_s - candidate.started_s for candidate in played.candidates)
