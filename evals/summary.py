"""From the scores of all runs to the figures of an evaluation.

Candidates of a problem are pooled over its epochs, votes and pass@k are taken in each epoch and then averaged; a mean
over problems comes last. What does not exist is divided by nowhere, and a reader is told how much is missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import get_args

from engine.api import Usage
from evals.budget import ENDS, BudgetSpent, Ended
from evals.eval_record import EvalRecord
from evals.folder import RUNS, run_name
from evals.headline import headline_of
from evals.results import CandidateRecord, EvalResults, ProblemStats, RoundStats
from evals.run_scores import RunScores
from evals.scorers.protocol import UNSCORED, ScoreStatus
from evals.stats import best_of, estimate, majority, mean_of, powers_of_two
from rsa.digests import TAKEN
from rsa.settings.suitability import sampling_of
from rsa.words import listed, plural

MAX_LISTED = 3
"""Problems, or different messages, that a warning names; the others are counted."""
Rows = Sequence[CandidateRecord]


@dataclass(slots=True)
class _RoundTally:
    """One round over the problems seen so far; `means`, `votes` and `best` by problem."""

    fewest: int  # scored candidates of a run that has any
    means: dict[str, float | None] = field(default_factory=dict)
    votes: dict[str, float | None] = field(default_factory=dict)
    best: dict[int, dict[str, float]] = field(default_factory=dict)
    statuses: Counter[ScoreStatus] = field(default_factory=Counter)
    runs: int = 0
    present: int = 0
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    longest_prompt: int = 0
    became_right: int = 0
    became_wrong: int = 0


class Summary:
    """Figures that grow problem by problem: feed it all epochs of one problem at a time, then ask for the results."""

    def __init__(self, record: EvalRecord) -> None:
        self._record = record
        self._n = record.config.n
        self._rounds: dict[int, _RoundTally] = defaultdict(lambda: _RoundTally(fewest=self._n))
        self._problems: list[ProblemStats] = []
        self._final: Counter[ScoreStatus] = Counter()
        self._tokens_until: Counter[int] = Counter()  # by round, of all runs that began
        self._begun = self._final_present = 0
        self._usage = Usage()
        self._ended: Counter[Ended] = Counter()
        self._notes = _Notes(record)

    def add(self, runs: Sequence[RunScores]) -> None:
        """Take in all epochs of one problem."""
        problem_id = runs[0].problem_id
        played = [run.rounds() for run in runs]
        votes = [_votes(run, rounds) for run, rounds in zip(runs, played, strict=True)]
        for number in range(max(map(len, played))):
            rows = [rounds[number] for rounds in played if number < len(rounds)]
            self._add_round(problem_id, number, rows, [each[number] for each in votes if number < len(each)])
        for run, rounds, each in zip(runs, played, votes, strict=True):
            self._add_run(run, rounds, each)
        means = tuple(self._rounds[number].means[problem_id] for number in range(max(map(len, played))))
        final_mean = mean_of([row.score.value for rounds in played if rounds for row in rounds[-1]])
        final_vote = mean_of([each[-1] if each else None for each in votes])
        answer = mean_of([run.answer.value if run.answer else None for run in runs])
        values = {"candidates": final_mean, "vote": final_vote, "answer": answer}
        self._problems.append(
            ProblemStats(
                id=problem_id,
                cluster=runs[0].cluster,
                value=values[headline_of(self._record.method)],
                final_mean=final_mean,
                final_vote=final_vote,
                answer=answer,
                means=means,
                votes=tuple(self._rounds[number].votes[problem_id] for number in range(len(means))),
                tokens=mean_of([run.usage.completion_tokens if run.candidates else None for run in runs]),
            )
        )

    def _add_round(self, problem_id: str, number: int, epochs: Sequence[Rows], votes: list[float | None]) -> None:
        tally = self._rounds[number]
        tally.means[problem_id] = mean_of([row.score.value for rows in epochs for row in rows])
        tally.votes[problem_id] = mean_of(votes)
        scored = [values for rows in epochs if (values := _values(rows))]
        tally.fewest = min([tally.fewest, *map(len, scored)])
        for k in powers_of_two(self._n):
            best = mean_of([best_of(values, k) for values in scored])
            if best is not None:
                tally.best.setdefault(k, {})[problem_id] = best
        for rows in epochs:
            tally.runs += 1
            tally.present += len(rows)
            tally.statuses.update(row.score.status for row in rows)
            tally.reasoning_tokens += sum(row.reasoning_tokens for row in rows)
            tally.answer_tokens += sum(row.completion_tokens - row.reasoning_tokens for row in rows)
            tally.longest_prompt = max(tally.longest_prompt, *(row.prompt_tokens for row in rows))

    def _add_run(self, run: RunScores, rounds: list[list[CandidateRecord]], votes: list[float | None]) -> None:
        for number, (before, now) in enumerate(pairwise(votes), 1):
            if before is not None and now is not None:
                self._rounds[number].became_right += before < 1.0 <= now
                self._rounds[number].became_wrong += now < 1.0 <= before
        self._usage += run.usage
        self._ended[run.ended] += 1
        self._notes.add(run)
        if not rounds:
            return
        self._begun += 1
        self._final.update(row.score.status for row in rounds[-1])
        self._final_present += len(rounds[-1])
        until = 0
        for number in range(self._record.config.t + 1):
            if number < len(rounds):
                until += sum(row.completion_tokens for row in rounds[number])
            self._tokens_until[number] += until

    def results(self) -> EvalResults:
        """The figures of everything that was fed."""
        record = self._record
        clusters = {problem.id: problem.cluster for problem in self._problems}
        runs = len(self._problems) * record.epochs
        rounds = tuple(self._round_stats(number, clusters, runs) for number in sorted(self._rounds))
        return EvalResults(
            benchmark=record.benchmark,
            method=record.method,
            metric=record.metric,
            headline=headline_of(record.method),
            mean=estimate({problem.id: problem.value for problem in self._problems}, clusters),
            answer=estimate({problem.id: problem.answer for problem in self._problems}, clusters),
            rounds=rounds,
            statuses=_in_order(self._final),
            usage=self._usage,
            problems=tuple(self._problems),
            epochs=record.epochs,
            seed=record.config.seed,
            data=record.data,
            config=record.config,
            model=record.model,
            protocol=protocol(record),
            prompt_sha256=record.prompt_sha256,
            budget=self._spent(),
            warnings=tuple(self._notes.warnings(self._final, asked=self._n * runs, present=self._final_present)),
            versions=record.versions,
        )

    def _spent(self) -> BudgetSpent | None:
        budget = self._record.budget
        if budget is None:
            return None
        ended = {why: self._ended[why] for why in ENDS if self._ended[why]}
        return BudgetSpent(**budget.model_dump(), tokens=self._usage.completion_tokens, ended=ended)

    def _round_stats(self, number: int, clusters: dict[str, str | None], runs: int) -> RoundStats:
        tally = self._rounds[number]
        return RoundStats(
            round=number,
            mean=estimate(tally.means, clusters),
            vote=estimate(tally.votes, clusters),
            best_of={k: estimate(best, clusters) for k, best in tally.best.items() if k <= tally.fewest},
            statuses=_in_order(tally.statuses),
            asked=self._n * runs,
            present=tally.present,
            reasoning_tokens=tally.reasoning_tokens / tally.runs,
            answer_tokens=tally.answer_tokens / tally.runs,
            tokens=self._tokens_until[number] / self._begun,
            longest_prompt=tally.longest_prompt,
            became_right=tally.became_right,
            became_wrong=tally.became_wrong,
        )


def summarise(record: EvalRecord, runs: Iterable[RunScores]) -> EvalResults:
    """The results of an evaluation.

    runs  in order of the data, all epochs of a problem together; read once, and none is kept.
    """
    summary = Summary(record)
    for _, epochs in groupby(runs, lambda run: run.problem_id):
        summary.add(list(epochs))
    return summary.results()


def headline_value(record: EvalRecord, run: RunScores) -> float | None:
    """What a single run adds to the headline: for a running figure while others still go on."""
    rounds = run.rounds()
    if not rounds:
        return None
    match headline_of(record.method):
        case "vote":
            return _votes(run, rounds)[-1]
        case "answer":
            return run.answer.value if run.answer else None
        case "candidates":
            return mean_of([row.score.value for row in rounds[-1]])


def protocol(record: EvalRecord) -> str:
    """What was asked, how often, and what counts, in words."""
    c = record.config
    rounds = plural(c.t, "aggregation round") if c.t else "no aggregation"
    tails = f" over {plural(c.c, 'tail')} of up to {c.tail_tokens:,} tokens" if c.t else ""
    counts = {
        "candidates": "the share of the final round's scored candidates that are right, mean over problems",
        "vote": "the answer that most of the final round's candidates agree on, ties shared, mean over problems",
        "answer": "the one answer that each run gave, mean over problems",
    }[headline_of(record.method)]
    times = f", {record.epochs} times with seeds of their own" if record.epochs > 1 else ""
    sampling = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in sampling_of(c).items())
    size = f"{plural(record.data.selected, 'problem')} of {record.benchmark}{times}"
    together = "" if record.budget is None else f" {record.budget.sentence}"
    return (
        f"{size}; method {record.method}: {plural(c.n, 'candidate')} a "
        f"round, {rounds}{tails}; reasoning up to {c.beta:,} tokens, answers up to {c.answer_budget:,}; {sampling}, "
        f"seed {c.seed}. "
        f"What counts: {counts}, by {record.metric}.{together}"
    )


class _Notes:
    """What a reader of the numbers should know."""

    def __init__(self, record: EvalRecord) -> None:
        self._of_data = record.data_warnings
        self._lowered: dict[str, set[int]] = defaultdict(set)
        self._runs_lowered = self._runs = 0
        self._failed: dict[str, str] = {}
        self._unbegun = 0
        self._said: Counter[str] = Counter()

    def add(self, run: RunScores) -> None:
        self._runs += 1
        where = f", in {RUNS}/{run_name(run.problem_id, run.epoch)}"
        self._said.update(f"{each}{where}" if each.startswith(TAKEN) else each for each in run.warnings)
        self._unbegun += run.ended == "unbegun"
        if run.failed and run.error is not None:
            self._failed.setdefault(run.problem_id, run.error)
        changes = run.budgets.changes if run.budgets is not None else {}
        self._runs_lowered += bool(changes)
        for name, (was, used) in changes.items():
            self._lowered[f"{name} {was}"].add(used)

    def warnings(self, final: Counter[ScoreStatus], *, asked: int, present: int) -> Iterable[str]:
        """One sentence each."""
        yield from self._of_data
        if self._failed:
            reasons = [f"{problem_id}: {why}" for problem_id, why in self._failed.items()]
            yield f"problems that failed: {len(reasons)}; {listed(reasons, MAX_LISTED, '; ')}"
        if self._unbegun:
            yield f"the budget did not reach {self._unbegun} of {plural(self._runs, 'run')}, which no figure counts"
        if present < asked:
            yield f"the final rounds have {present} of the {asked} candidates asked for"
        unscored = sum(final[status] for status in UNSCORED)
        if unscored:
            counts = ", ".join(f"{final[status]} {status}" for status in sorted(UNSCORED) if final[status])
            yield f"{unscored} of {present} candidates of the final rounds have no value ({counts}) and are left out"
        if final["cut"]:
            yield (
                f"{final['cut']} of {present} final candidates were not waited for: means over candidates "
                "are those of the quick ones, and only a vote or the answer speaks for the method"
            )
        if self._runs_lowered:
            lowered = ", ".join(f"{name} -> {_span(used)}" for name, used in self._lowered.items())
            yield f"budgets were lowered to fit in {self._runs_lowered} of {self._runs} runs: {lowered}"
        if self._said:
            counted = sorted(self._said.most_common(), key=lambda each: not each[0].startswith(TAKEN))
            said = [f"{message} ({count} of {self._runs} runs)" for message, count in counted]
            yield listed(said, MAX_LISTED, "; ")


def _votes(run: RunScores, rounds: Sequence[Rows]) -> list[float | None]:
    """Value of the majority of each round."""
    return [
        majority(groups, [row.score.value for row in rows]) if _values(rows) else None
        for groups, rows in zip(run.groups, rounds, strict=True)
    ]


def _values(rows: Rows) -> list[float]:
    return [row.score.value for row in rows if row.score.value is not None]


def _in_order(counts: Counter[ScoreStatus]) -> dict[ScoreStatus, int]:
    return {status: counts[status] for status in get_args(ScoreStatus) if counts[status]}


def _span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
