"""How sure an evaluation's runs were, and how right: read from their folders, since results.json does not say.

How sure a model was of a candidate may differ in its last digits between machines and batches, so that it is in no file
that must come out the same: this is made of the runs whenever a report is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from anyio.from_thread import start_blocking_portal
from pydantic import FiniteFloat

from evals.calibration import Bin, Claim, by_place, expected_error, in_parts, in_places, in_steps, ranked_right
from evals.replay.recording import RecordedRun, scored_run
from evals.replay.trying import Tried, Trying
from evals.report.reading import EvalReader
from evals.results import EvalResults, ProblemStats
from evals.run_scores import RunScores
from evals.stats import Estimate, estimate, mean_of
from rsa.answers.math_pool import MathWorkers
from rsa.errors import RSAError
from rsa.policies.ends import standing
from rsa.results import Candidate, Confidence, Record, Round

FEWEST_PROBLEMS: Final = 8
"""Problems below which nothing can be said of this."""
MOST_PROBLEMS: Final = 1000
"""Problems whose runs are read, spread evenly over all: of as many, the interval of a mean is six points wide at most,
and a report of thousands does not wait for the disk."""
MOST_CANDIDATES: Final = 50_000
"""Candidates that are read, about: a run of many takes long to decide again. Of `SOME_PROBLEMS` all are."""
SOME_PROBLEMS: Final = 100
STEPS, QUARTERS, TENTHS = 5, 4, 10
Which = Literal["first", "final"]
MEASURES: Final[Mapping[str, Callable[[Confidence], float | None]]] = {
    "tail": lambda told: told.tail,
    "mean": lambda told: told.mean,
    "lowest": lambda told: told.lowest,
    "entropy": lambda told: None if told.entropy is None else -told.entropy,
}
"""What can be known of how sure a model was (`rsa.results.Confidence`), more being surer; the first is what policies go
by (`rsa.policies.trust`)."""


class RoundCalibration(Record):
    """One round of every run.

    which     `first`, round 0; `final`, the last that a run played, where more than round 0 are planned.
    shares    of its candidates that agree on the leading answer, in steps of a fifth, and whether that is right; runs.
    error     of the share, taken for the probability that the leading answer is right: the expected calibration error
              over these steps. None where there are no answers.
    silent    runs in which nobody answered, or whose leading answer nobody could score; they are in no step.
    quarters  candidates by how sure the model was of them among those of their own run and round that gave an answer.
    tenths    by how sure it was, over all runs: nats a token at the end of the reasoning.
    ranks     by `MEASURES`: of two answers of a run of which one is right, how often the model was surer of that; mean
              over problems that have both.
    """

    which: Which
    shares: tuple[Bin, ...]
    error: FiniteFloat | None
    silent: int
    quarters: tuple[Bin, ...]
    tenths: tuple[Bin, ...]
    ranks: dict[str, Estimate]


class Calibration(Record):
    """How sure runs were, how right, and what rules of stop would have saved.

    problems  that were read, of so many (`of`); `runs` of them; `unread`: runs that are gone or cannot be read.
    limited   runs that met a limit of tokens or time.
    rounds    that wrote answers.
    rules     what ran, and what rules of stop would have made of it.
    """

    problems: int
    of: int
    runs: int
    unread: int
    limited: int
    rounds: tuple[RoundCalibration, ...]
    rules: tuple[Tried, ...]


def calibrated(reader: EvalReader) -> Calibration | None:
    """Of the runs of an evaluation; None for fewer than `FEWEST_PROBLEMS`, which are not read."""
    results = reader.results
    if len(results.problems) < FEWEST_PROBLEMS:
        return None
    with start_blocking_portal() as portal:  # a loop in a thread of its own: the caller may run in one
        return portal.call(_Calibrating(reader).all)


@dataclass(slots=True)
class _Seen:
    """One round of the runs read so far; `ranked` by measure and problem, a run each."""

    leaders: list[Claim] = field(default_factory=list)
    silent: int = 0
    placed: list[tuple[Claim, int]] = field(default_factory=list)
    sure: list[Claim] = field(default_factory=list)
    ranked: dict[str, dict[str, list[float | None]]] = field(
        default_factory=lambda: {name: defaultdict(list) for name in MEASURES}
    )

    def take(self, problem_id: str, group: str, played: Round, scores: RunScores) -> None:
        """Take in the round of a run."""
        scored = {each.index: each.score for each in scores.candidates if each.round == played.round}
        leader = standing(played.votes[0].candidates, played).index if played.votes else -1
        worth = scored[leader].value if leader in scored else None
        if worth is None:
            self.silent += 1
        else:
            self.leaders.append(Claim(played.votes[0].share, worth, group))
        answered = [
            each for each in played.candidates if each.index in scored and scored[each.index].status == "scored"
        ]
        for name, measure in MEASURES.items():
            claims = list(_claims(answered, measure, {index: each.value for index, each in scored.items()}, group))
            self.ranked[name][problem_id].append(ranked_right(claims))
            if name == next(iter(MEASURES)):
                self.sure += claims
                if len(claims) >= QUARTERS:
                    self.placed += zip(claims, by_place(claims, QUARTERS), strict=True)

    def told(self, which: Which, clusters: Mapping[str, str | None]) -> RoundCalibration:
        shares = in_steps(self.leaders, STEPS)
        means = {name: {key: mean_of(runs) for key, runs in found.items()} for name, found in self.ranked.items()}
        ranks = {name: estimate(values, clusters) for name, values in means.items()}
        return RoundCalibration(
            which=which,
            shares=shares,
            error=expected_error(shares),
            silent=self.silent,
            quarters=in_places(self.placed, QUARTERS),
            tenths=in_parts(self.sure, TENTHS),
            ranks={name: each for name, each in ranks.items() if each.value is not None},
        )


class _Calibrating:
    """The runs of an evaluation, read one after the other."""

    def __init__(self, reader: EvalReader) -> None:
        self._reader = reader
        self._results: EvalResults = reader.results
        self._seen: dict[Which, _Seen] = {"first": _Seen(), "final": _Seen()}
        self._runs = self._unread = 0

    async def all(self) -> Calibration:
        problems = sample(self._results.problems, self._reader.survey.candidates)
        clusters = {problem.id: problem.cluster for problem in problems}
        async with MathWorkers() as math:
            trying = Trying(math)
            for problem in problems:
                for run in self._read(problem):
                    self._take(problem, run)
                    await trying.take(problem.id, run)
        rounds = [seen.told(which, clusters) for which, seen in self._seen.items()]
        return Calibration(
            problems=len(problems),
            of=len(self._results.problems),
            runs=self._runs,
            unread=self._unread,
            limited=trying.limited,
            rounds=tuple(each for each in rounds if each.shares or each.silent),
            rules=trying.tried(clusters),
        )

    def _read(self, problem: ProblemStats) -> Iterator[RecordedRun]:
        """The runs of a problem that had candidates, an epoch each."""
        for epoch in range(self._results.epochs):
            folder = self._reader.run_folder(problem.id, epoch)
            try:
                run = scored_run(folder, self._results.metric, self._reader.trust)
            except RSAError:  # what is wrong is said where the problem is
                self._unread += 1
                continue
            if run is not None:
                self._runs += 1
                yield run

    def _take(self, problem: ProblemStats, run: RecordedRun) -> None:
        assert run.scores is not None, "it is of an evaluation"
        group = f"problem {problem.id}" if problem.cluster is None else f"cluster {problem.cluster}"
        asked = [played for played in run.result.rounds if any(each.asked for each in played.candidates)]
        if asked and asked[0].round == 0:
            self._seen["first"].take(problem.id, group, asked[0], run.scores)
        if asked and self._results.config.t:
            self._seen["final"].take(problem.id, group, asked[-1], run.scores)


def _claims(
    answered: Sequence[Candidate],
    measure: Callable[[Confidence], float | None],
    values: Mapping[int, float | None],
    group: str,
) -> Iterator[Claim]:
    """The candidates of which it is known how sure the model was."""
    for candidate in answered:
        sure = None if candidate.confidence is None else measure(candidate.confidence)
        worth = values[candidate.index]
        if sure is not None and worth is not None:
            yield Claim(sure, worth, group)


def sample(problems: Sequence[ProblemStats], candidates: int) -> Sequence[ProblemStats]:
    """The problems that are read of those that have so many candidates together: all, or evenly spread over them."""
    total = len(problems)
    most = min(MOST_PROBLEMS, max(SOME_PROBLEMS, MOST_CANDIDATES * total // max(1, candidates)))
    return problems if total <= most else [problems[place * total // most] for place in range(most)]
