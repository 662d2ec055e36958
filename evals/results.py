"""What an evaluation writes: one record a candidate (`candidates.jsonl`) and the summary (`results.json`).

Both depend on the questions, the settings and the engine's tokens alone, not on clocks or on the order in which
things happened: a run that was killed and resumed writes the same bytes. Seconds are in `timings.json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, FiniteFloat

from engine.api import FinishReason, ModelInfo, Usage
from evals.budget import BudgetSpent
from evals.headline import Headline
from evals.scorers.protocol import Score, ScoreStatus
from evals.stats import Estimate
from rsa.results import Record, Status
from rsa.settings.config import RSAConfig
from rsa.settings.methods import Method

FORMAT = 3
"""The number of the format of results folders: raised when an older reader could not understand one."""


class DataInfo(Record):
    """Where the problems came from.

    kind      `hub`, `file`, `generated` (from a seed), or `given` by a program.
    name      hub id, file name, or generator.
    revision  commit of the hub's data set, or SHA-256 of the file: what was really read.
    rows      of the whole source, as far as known.
    selected  problems that are evaluated.
    options   of the selection or generation: limit, ids, seed, sizes.
    columns   that were said to be elsewhere than the benchmark says: `evals.data.benchmarks.Benchmark.with_columns`.
    """

    kind: Literal["hub", "file", "generated", "given"]
    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    rows: int | None = None
    selected: int
    options: dict[str, str | int | float | bool | list[str] | list[int] | None] = Field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class CandidateRecord(Record):
    """One candidate of one round: a line of candidates.jsonl, in order of problem, epoch, round and index.

    prompt_sha256  of its whole prompt (messages and images).
    sampling       what the engine was given for it, budgets included.
    status         how it ended as a candidate; `score.status` says what it was worth and why.
    """

    problem_id: str
    epoch: int
    round: int
    index: int
    parents: tuple[int, ...]
    seed: int
    prompt_sha256: str
    sampling: dict[str, int | float | bool | None]
    status: Status
    finish_reason: FinishReason | None
    forced: bool
    prompt_tokens: int
    reasoning_tokens: int
    completion_tokens: int
    error: str | None = None
    score: Score


class RoundStats(Record):
    """One round, over all problems.

    mean        of the candidates' values.
    vote        maj@N: value of the largest group of equivalent answers; ties are shared.
    best_of     k -> expected best of k candidates (pass@k); only k that every problem has enough scored candidates
                for.
    statuses    candidates by status of their score.
    asked, present   candidates that the settings ask for, and those that there are (a run may end early).
    reasoning_tokens, answer_tokens   generated in this round, mean over problems and epochs.
    tokens      generated until the end of this round, mean over problems and epochs.
    longest_prompt   of this round, tokens.
    became_right, became_wrong   problems (times epochs) whose vote was not worth 1 the round before and is now, and the
                other way round.
    """

    round: int
    mean: Estimate
    vote: Estimate
    best_of: dict[int, Estimate]
    statuses: dict[ScoreStatus, int]
    asked: int
    present: int
    reasoning_tokens: float
    answer_tokens: float
    tokens: float
    longest_prompt: int
    became_right: int = 0
    became_wrong: int = 0


class ProblemStats(Record):
    """One problem over all epochs: per round the mean of its candidates and its vote; None where nothing is scored.

    value       what enters the headline: `final_mean` or `final_vote`.
    final_mean, final_vote   of the last round of each run, whichever that was.
    answer      value of the one answer that the run gave.
    tokens      generated, mean over the epochs in which anything ran; None if nothing did.
    """

    id: str
    cluster: str | None = None
    value: float | None
    final_mean: float | None = None
    final_vote: float | None = None
    answer: float | None
    means: tuple[float | None, ...]
    votes: tuple[float | None, ...]
    tokens: float | None


class EvalResults(Record):
    """results.json.

    mean      the headline, of what `headline` names.
    answer    the one answer that each run gave, as `select` chooses it.
    rounds    round 0 first.
    statuses  of the final round's candidates.
    usage     all tokens of all problems and epochs.
    protocol  in words: what was asked, how often, and what counts.
    budget    of all problems together, and what became of it; None: there was none.
    warnings  what a reader of the numbers should know (fewer questions than asked, budgets lowered, unscored ones).
    candidates_digest   of the last line of candidates.jsonl: see `rsa.digests`.
    """

    format: int = FORMAT
    benchmark: str
    method: Method
    metric: str
    headline: Headline
    mean: Estimate
    answer: Estimate
    rounds: tuple[RoundStats, ...]
    statuses: dict[ScoreStatus, int]
    usage: Usage
    problems: tuple[ProblemStats, ...]
    epochs: int
    seed: int
    data: DataInfo
    config: RSAConfig
    model: ModelInfo
    protocol: str
    prompt_sha256: str
    budget: BudgetSpent | None = None
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    candidates_digest: str = ""

    def warned(self, more: Iterable[str]) -> Self:
        """With more warnings, before those that there are; none twice."""
        return self.model_copy(update={"warnings": tuple(dict.fromkeys((*more, *self.warnings)))})


class ProblemTiming(Record):
    """Wall-clock seconds of one problem and epoch; `generating_s` sums the candidates' own times."""

    problem_id: str
    epoch: int
    wall_s: FiniteFloat
    generating_s: FiniteFloat


class EvalTimings(Record):
    """timings.json: what differs from run to run. `tokens_per_s`: all generated tokens over `wall_s`."""

    started_at: str
    wall_s: FiniteFloat
    tokens_per_s: FiniteFloat
    problems: tuple[ProblemTiming, ...]
    machine: dict[str, str | int | None]
