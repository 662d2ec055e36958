"""Reading what was recorded, a problem at a time: a large evaluation is never in memory whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evals.errors import ReplayError, ResultsError
from evals.folder import EVAL, FAILED, RESULTS, RUNS, SCORES, read_eval, read_json, read_results, run_name
from evals.results import EvalResults
from evals.run_scores import RunScores
from rsa.digests import Trust
from rsa.policies.selecting import Chosen
from rsa.results import RunResult
from rsa.runlog import RESULT, RUN, read_result


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that has ended.

    folder   it is in.
    scores   what it was worth; None: nobody knows what is right.
    values   of its candidates, by round and index.
    """

    folder: Path
    result: RunResult
    scores: RunScores | None = None
    values: Mapping[tuple[int, int], float | None] = field(default_factory=dict)

    @classmethod
    def scored(cls, folder: Path, result: RunResult, scores: RunScores) -> RecordedRun:
        """A run of an evaluation."""
        values = {(each.round, each.index): each.score.value for each in scores.candidates}
        return cls(folder, result, scores, values)

    def worth(self, choice: Chosen | None) -> float | None:
        """What an answer of this run is worth: as much as the candidate that gave it. Raises ReplayError if nobody
        scored that."""
        if choice is None:
            return 0.0
        if choice.round.kind == "selection" and self.scores is not None:
            return self.scores.answer.value if self.scores.answer is not None else None
        place = choice.candidate.round, choice.candidate.index
        if place not in self.values:
            raise ReplayError(f"{self.folder / SCORES} has no score of candidate {place[1]} of round {place[0]}")
        return self.values[place]


class RecordedEval:
    """The runs of a finished evaluation; `trust` notes what was taken on trust.

    Raises ResultsError if there is none, or it was changed and is not taken on `trust`.
    """

    def __init__(self, folder: Path, *, trust: bool = False) -> None:
        self.folder = folder
        self.trust = Trust(folder, given=trust)
        self.record = read_eval(folder, trust=trust)
        self.results: EvalResults = read_results(folder, trust=trust)

    def problems(self) -> Iterator[list[RecordedRun]]:
        """The runs of each problem, an epoch each. One that failed before it had a candidate is left out.

        Raises ResultsError, RunFolderError for a run that is gone, cannot be read, or was changed.
        """
        for problem in self.results.problems:
            runs = [self._run(problem.id, epoch) for epoch in range(self.results.epochs)]
            yield [run for run in runs if run is not None]

    def _run(self, problem_id: str, epoch: int) -> RecordedRun | None:
        return scored_run(self.folder / RUNS / run_name(problem_id, epoch), self.results.metric, self.trust)


def scored_run(folder: Path, metric: str, trust: Trust) -> RecordedRun | None:
    """The run in a run folder of an evaluation, whose `trust` it is; None if it failed before it had a candidate.

    Raises ResultsError, RunFolderError for a run that is gone, cannot be read, or was changed.
    """
    if not (folder / SCORES).is_file():
        raise ReplayError(f"{folder} has no {SCORES}: what each run generated must still be there")
    scores = read_json(folder / SCORES, RunScores, trust)
    if scores.metric != metric:
        raise ReplayError(
            f"{folder} is scored by {scores.metric}, and the evaluation by {metric}: score it again with: "
            f"rsa eval --rescore {trust.folder}"
        )
    if (folder / RESULT).is_file():
        result = read_result(folder, trust=trust.given)
    elif (folder / FAILED).is_file():
        result = read_json(folder / FAILED, RunResult, trust)
    elif scores.error is not None:
        return None
    else:
        raise ReplayError(f"{folder} has no {RESULT}: what each run generated must still be there")
    if result.misfit is not None:
        raise ReplayError(f"what the run in {folder} generated cannot be: {result.misfit}")
    return RecordedRun.scored(folder, result, scores)


def recorded_run(folder: Path, *, trust: bool = False) -> RecordedRun:
    """The run in a run folder. Raises ReplayError if it has not ended, RunFolderError if it cannot be read."""
    if not (folder / RESULT).is_file():
        raise ReplayError(f"the run in {folder} has not ended; go on with: rsa solve --resume {folder}")
    return RecordedRun(folder, read_result(folder, trust=trust))


def holds_evaluation(folder: Path) -> bool:
    """Whether a folder holds an evaluation, not a run. Raises ResultsError if it holds neither."""
    if (folder / EVAL).is_file() or (folder / RESULTS).is_file():
        return True
    if (folder / RUN).is_file():
        return False
    if not folder.is_dir():
        raise ResultsError(f"there is no folder {folder}")
    raise ResultsError(
        f"nothing to replay in {folder}: neither {RESULTS} (of an evaluation) nor {RUN} (of a solved problem) is there"
    )
