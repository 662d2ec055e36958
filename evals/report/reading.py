"""Reading a results folder for a report: the figures whole, the candidates one problem at a time."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from evals.errors import ResultsError
from evals.folder import CANDIDATES, RESULTS, RUNS, SCORES, TIMINGS, read_json, read_results, run_name
from evals.replay.keeping import kept
from evals.results import CandidateRecord, EvalTimings
from evals.run_scores import RunScores
from rsa.digests import Trust, unseal, unseal_lines

Ending = Literal["itself", "forced", "cut"]
"""How a candidate's reasoning ended: by itself, closed for it at beta, or cut off (a budget, a limit, repetition)."""


@dataclass(slots=True)
class Lengths:
    """Reasoning tokens of one round's candidates, by how they ended; failed candidates have none."""

    itself: array[int] = field(default_factory=lambda: array("q"))
    forced: array[int] = field(default_factory=lambda: array("q"))
    cut: array[int] = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class Survey:
    """What one reading of candidates.jsonl leaves in memory.

    places   by problem: where its lines are in the file, (offset, bytes).
    lengths  by round.
    betas    the reasoning budgets that the engine was really given.
    """

    candidates: int = 0
    places: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    lengths: dict[int, Lengths] = field(default_factory=lambda: defaultdict(Lengths))
    betas: set[int] = field(default_factory=set)

    def take(self, record: CandidateRecord, offset: int, size: int) -> None:
        """Count a line of the file."""
        self.candidates += 1
        places = self.places[record.problem_id]
        if places and sum(places[-1]) == offset:
            places[-1] = (places[-1][0], places[-1][1] + size)
        else:
            places.append((offset, size))
        if record.status != "failed":
            getattr(self.lengths[record.round], ending(record)).append(record.reasoning_tokens)
        beta = record.sampling.get("reasoning_budget")
        if isinstance(beta, int):
            self.betas.add(beta)


def ending(record: CandidateRecord) -> Ending:
    """How the candidate's reasoning ended."""
    if record.forced:
        return "forced"
    return "itself" if record.status == "ok" and record.finish_reason == "stop" else "cut"


class EvalReader:
    """An evaluation's results; `timings` is None without its file, `replay` unless one is kept of these results.
    `trust` notes what was taken on trust.

    Raises ResultsError if they cannot be read, or were changed and are not taken on `trust`.
    """

    def __init__(self, folder: Path, *, trust: bool = False) -> None:
        self.folder = folder
        self.trust = Trust(folder, given=trust)
        self.results = read_results(folder, trust=trust)
        self.timings = read_json(folder / TIMINGS, EvalTimings, self.trust) if (folder / TIMINGS).exists() else None
        self.replay = kept(folder, self.results, self.trust)
        self.survey = self._survey()

    def _survey(self) -> Survey:
        survey = Survey()
        path, offset, digest = self.folder / CANDIDATES, 0, ""
        with self._lines() as file:
            for number, (size, found) in enumerate(unseal_lines(file), 1):
                survey.take(self._record(found.content, f"line {number}"), offset, size)
                if found.fault:
                    self.trust.doubt(path, found.fault, ResultsError, line=number)
                offset, digest = offset + size, found.digest
        if digest != self.results.candidates_digest:
            fault = f"does not end as {RESULTS} says (rsa eval --rescore {self.folder} writes both anew)"
            self.trust.doubt(path, fault, ResultsError)
        return survey

    def records(self, problem_id: str) -> list[CandidateRecord]:
        """The candidates of one problem, in order of epoch, round and index."""
        with self._lines() as file:
            lines: list[bytes] = []
            for offset, size in self.survey.places.get(problem_id, []):
                file.seek(offset)
                lines += file.read(size).splitlines()
        return [self._record(unseal(line).content, f"problem {problem_id}") for line in lines]

    def seconds(self) -> dict[str, float]:
        """Wall-clock seconds by problem, mean over epochs."""
        walls: dict[str, list[float]] = defaultdict(list)
        for timing in self.timings.problems if self.timings else ():
            walls[timing.problem_id].append(timing.wall_s)
        return {problem_id: sum(values) / len(values) for problem_id, values in walls.items()}

    def run_folder(self, problem_id: str, epoch: int) -> Path:
        """Where the run of a problem is; it may not be there any more."""
        return self.folder / RUNS / run_name(problem_id, epoch)

    def scores(self, problem_id: str, epoch: int) -> RunScores | None:
        """What is known of the run besides its candidates; None if its folder is gone. Raises ResultsError."""
        path = self.run_folder(problem_id, epoch) / SCORES
        return read_json(path, RunScores, self.trust) if path.exists() else None

    def _lines(self) -> IO[bytes]:
        try:
            return (self.folder / CANDIDATES).open("rb")
        except OSError as error:
            raise ResultsError(f"cannot read {self.folder / CANDIDATES}: {error.strerror}") from None

    def _record(self, line: bytes, where: str) -> CandidateRecord:
        try:
            return CandidateRecord.model_validate_json(line)
        except ValidationError:
            raise ResultsError(f"{self.folder / CANDIDATES}, {where}, is no candidate's record: score again") from None
