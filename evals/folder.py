"""Results folders: an evaluation on disk, complete at any moment, so that it can go on and be scored again.

eval.json       what is evaluated; written first
runs/NAME/      a run folder of `rsa` for each problem and epoch; beside its files:
  scores.json     what the run was worth, written when it ended: a run with scores is done
  failed.json     what there is of a run that failed as a whole
progress.json   seconds spent so far
candidates.jsonl   one `CandidateRecord` a line, in order of the data  ┐
timings.json    seconds                                             │ written when all runs are done
results.json    the summary, written last                           ┘
lock            held while a process works in the folder

Each file ends with a digest, the lines of candidates.jsonl are a chain of them (`rsa.digests`) whose end results.json
knows: what was changed afterwards is refused when it is read, or taken on trust where somebody says so.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self, TypeVar

from pydantic import BaseModel, FiniteFloat, JsonValue

from engine.paths import path_named
from evals.errors import OtherEvalError, ResultsError
from evals.eval_record import EvalRecord
from evals.results import FORMAT, EvalResults, EvalTimings
from evals.run_scores import RunScores
from rsa.digests import STRICT, Trust, seal
from rsa.folders import (
    check_other_kinds,
    lock_folder,
    make_folder,
    read_record,
    read_versioned,
    what_differs,
    write_record,
    written_aside,
)
from rsa.results import Record, RunResult
from rsa.runlog import EVENTS as RUN_EVENTS
from rsa.runlog import RESULT as RUN_RESULT
from rsa.runlog import read_result as read_run_result

EVAL, RUNS, CANDIDATES, RESULTS, TIMINGS = "eval.json", "runs", "candidates.jsonl", "results.json", "timings.json"
SCORES, FAILED, PROGRESS = "scores.json", "failed.json", "progress.json"
PACKAGES = ("markovian-rsa", "math-verify", "mlx", "mlx-lm", "pydantic")
"""The packages whose versions are recorded."""
MAX_NAME = 40
"""Characters of a problem's id in the name of its run folder; the digest behind them tells problems apart."""
ModelT = TypeVar("ModelT", bound=BaseModel)


class _TimeSpent(Record):
    spent_s: FiniteFloat


class ResultsFolder:
    """A results folder that this process works in. Use within `with`; leaving it lets go of the lock.

    record     of the evaluation, as it is on the disk.
    spent_s    seconds that processes have worked on it, when that was last noted.
    trust      notes what was taken on trust.
    """

    def __init__(self, folder: Path, record: EvalRecord, lock: IO[bytes], trust: Trust) -> None:
        self.folder = folder
        self.record = record
        self.trust = trust
        self.spent_s = _spent(folder / PROGRESS, trust)
        self._noted_s = self.spent_s
        self._began = time.monotonic() - self.spent_s
        self._lock = lock
        self._candidates_digest = ""

    @classmethod
    def open(cls, folder: str | Path, record: EvalRecord, *, resume: bool, trust: bool = False) -> Self:
        """Start an evaluation in a folder, or go on with the one it holds.

        resume  True: continue if it holds one (otherwise start it); False: it must not hold one.
        trust   True: what was changed since it was written is taken as it is, and noted.

        Raises OtherEvalError if it holds another one, ResultsError if it cannot be used, RunLockedError if another
        process works in it.
        """
        folder = path_named(folder, ResultsError)
        lock = _locked(folder)
        doubts = Trust(folder, given=trust)
        try:
            return cls(folder, _begin(folder, record, doubts, resume=resume), lock, doubts)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def of(cls, folder: str | Path, *, trust: bool = False) -> Self:
        """The evaluation that a folder holds. Raises as `open`."""
        folder = path_named(folder, ResultsError)
        doubts = Trust(folder, given=trust)
        record = _read_eval(folder, doubts)
        lock = _locked(folder)
        try:
            return cls(folder, record, lock, doubts)
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.spent_s != self._noted_s:
            self._write_progress()
        self._lock.close()

    # ---- one run

    def run_folder(self, problem_id: str, epoch: int) -> Path:
        """Where a problem's run of an epoch lives."""
        return self.folder / RUNS / run_name(problem_id, epoch)

    def read_scores(self, problem_id: str, epoch: int) -> RunScores | None:
        """The scores of a run that is done, by the evaluation's metric; None if there are none.

        Raises ResultsError for what cannot be read, and what was changed and is not taken on trust.
        """
        scores = self._scores(problem_id, epoch)
        return scores if scores is not None and scores.metric == self.record.metric else None

    def _scores(self, problem_id: str, epoch: int) -> RunScores | None:
        """By whatever metric. What the run generated is kept beside them, so they can be made again."""
        path = self.run_folder(problem_id, epoch) / SCORES
        if not path.exists():
            return None
        try:
            scores = read_json(path, RunScores, self.trust)
            if (scores.problem_id, scores.epoch) != (problem_id, epoch):
                self.trust.doubt(path, f"is of problem {scores.problem_id!r}, epoch {scores.epoch}", ResultsError)
        except ResultsError as error:
            again = f"or remove it: rsa eval --resume {self.folder} scores the run again"
            raise ResultsError(f"{error}; {again}") from None
        return scores

    def write_scores(self, scores: RunScores, failed: RunResult | None = None) -> None:
        """Mark a run as done. `failed`: what there is of it if it failed as a whole."""
        folder = self.run_folder(scores.problem_id, scores.epoch)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if failed is not None:
                write_record(folder / FAILED, failed)
            write_record(folder / SCORES, scores)
            if scores.error is None:
                (folder / FAILED).unlink(missing_ok=True)

    def read_result(self, problem_id: str, epoch: int) -> RunResult | None:
        """What a run generated; None if it did not get so far. Raises ResultsError, RunFolderError."""
        folder = self.run_folder(problem_id, epoch)
        if (folder / RUN_RESULT).exists():
            return read_run_result(folder, trust=self.trust.given)
        return read_json(folder / FAILED, RunResult, self.trust) if (folder / FAILED).exists() else None

    def read_failure(self, problem_id: str, epoch: int) -> RunScores | None:
        """The scores of a run that failed as a whole, by whatever metric; None if it did not, or is not done. Raises as
        `read_scores`."""
        scores = self._scores(problem_id, epoch)
        return scores if scores is not None and scores.error is not None else None

    def has_begun(self, problem_id: str, epoch: int) -> bool:
        """Whether anything of a run was ever generated, or asked for."""
        return (self.run_folder(problem_id, epoch) / RUN_EVENTS).exists()

    def elapsed_s(self) -> float:
        """Seconds that processes have worked on it until now."""
        return time.monotonic() - self._began

    def note_progress(self) -> None:
        """Keep `spent_s` for the process that goes on after this one, to about a second."""
        self.spent_s = self.elapsed_s()
        if self.spent_s - self._noted_s >= 1.0:
            self._write_progress()

    def _write_progress(self) -> None:
        self._noted_s = self.spent_s
        path = self.folder / PROGRESS
        temporary = path.with_name(f".{PROGRESS}.{os.getpid()}.tmp")
        with _writing(self.folder):
            spent = _TimeSpent(spent_s=self.spent_s).model_dump_json().encode()
            temporary.write_bytes(seal(spent).data)  # not worth waiting for the disk
            temporary.replace(path)

    # ---- the whole

    def write_metric(self, metric: str, settings: Mapping[str, JsonValue]) -> None:
        """Change the metric. Scores by another one count as missing from now on."""
        warnings = tuple(dict.fromkeys((*self.record.data_warnings, *self.trust.notes)))
        news = {"metric": metric, "metric_settings": dict(settings), "data_warnings": warnings}
        self.record = self.record.model_copy(update=news)
        with _writing(self.folder):
            write_record(self.folder / EVAL, self.record, indent=1)

    def scores(self, runs: Iterable[tuple[str, int]]) -> Iterator[RunScores]:
        """The scores of these runs (problem_id, epoch), read one at a time. Raises ResultsError if one has none."""
        for problem_id, epoch in runs:
            scores = self.read_scores(problem_id, epoch)
            if scores is None:
                raise ResultsError(f"{self.run_folder(problem_id, epoch)} has no scores: it was changed or deleted")
            yield scores

    def write_candidates(self, runs: Iterable[RunScores]) -> Iterator[RunScores]:
        """Pass scores on, writing the lines of candidates.jsonl; the file is in place when the last was passed on."""
        digest = ""
        with _writing(self.folder), written_aside(self.folder / CANDIDATES) as file:
            for scores in runs:
                for candidate in scores.candidates:
                    line, digest = seal(candidate.model_dump_json().encode(), digest)
                    file.write(line + b"\n")
                yield scores
        self._candidates_digest = digest

    def write_results(self, results: EvalResults, timings: EvalTimings) -> EvalResults:
        """Write timings.json and results.json, which knows the end of candidates.jsonl: the evaluation is finished."""
        results = results.model_copy(update={"candidates_digest": self._candidates_digest})
        with _writing(self.folder):
            write_record(self.folder / TIMINGS, timings, indent=1)
            write_record(self.folder / RESULTS, results, indent=1)
        return results


def run_name(problem_id: str, epoch: int) -> str:
    """A folder's name for a problem's run: readable, safe on every file system, different for different ids."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", problem_id).strip("-.")[:MAX_NAME]
    digest = hashlib.sha256(problem_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{readable or 'problem'}-{digest}-e{epoch}"


def read_json(path: Path, kind: type[ModelT], trust: Trust = STRICT) -> ModelT:
    """The record in a file. Raises ResultsError if it is missing, cannot be understood, or was changed and is not taken
    on trust."""
    return read_record(path, kind, ResultsError, trust=trust)


def read_eval(folder: str | Path, *, trust: bool = False) -> EvalRecord:
    """What a results folder is about. Raises ResultsError if it is none, or was changed and is not taken on `trust`."""
    path = path_named(folder, ResultsError)
    return _read_eval(path, Trust(path, given=trust))


def _read_eval(folder: str | Path, trust: Trust) -> EvalRecord:
    path = _existing(folder) / EVAL
    if not path.is_file():
        raise ResultsError(f"{path.parent} holds no evaluation: it has no {EVAL}")
    return _versioned(path, EvalRecord, trust)


def read_results(folder: str | Path, *, trust: bool = False) -> EvalResults:
    """The summary of a finished evaluation; what was taken on trust is among its warnings.

    Raises ResultsError if there is none, or it was changed and is not taken on `trust`.
    """
    path = _existing(folder) / RESULTS
    doubts = Trust(path.parent, given=trust)
    if not path.is_file():
        unfinished = (path.parent / EVAL).is_file()
        hint = f"; go on with: rsa eval --resume {path.parent}" if unfinished else ""
        raise ResultsError(f"{path.parent} holds no finished evaluation: it has no {RESULTS}{hint}")
    return _versioned(path, EvalResults, doubts).warned(doubts.notes)


def _versioned(path: Path, kind: type[ModelT], trust: Trust) -> ModelT:
    return read_versioned(path, kind, ResultsError, FORMAT, instead="start a new evaluation", trust=trust)


def _spent(path: Path, trust: Trust) -> float:
    """Seconds that were noted. Nobody waited for the disk then: a power cut may have left nothing."""
    return read_json(path, _TimeSpent, trust).spent_s if path.exists() and path.stat().st_size else 0.0


def _existing(folder: str | Path) -> Path:
    folder = path_named(folder, ResultsError)
    if not folder.is_dir():
        raise ResultsError(f"there is no folder {folder}")
    return folder


def _begin(folder: Path, record: EvalRecord, trust: Trust, *, resume: bool) -> EvalRecord:
    if (folder / EVAL).exists():
        found = _read_eval(folder, trust)
        _check_same(folder, found, record)
        if not resume:
            raise ResultsError(f"{folder} already holds this evaluation; go on with: rsa eval --resume {folder}")
        return found
    check_other_kinds(folder, EVAL, ResultsError)
    if (folder / RUNS).exists():
        raise ResultsError(f"{folder} holds {RUNS}/ but no {EVAL}: choose another folder")
    try:
        write_record(folder / EVAL, record, indent=1)
    except OSError as error:
        raise ResultsError(f"cannot use results folder {folder}: {error.strerror}") from None
    return record


def _check_same(folder: Path, found: EvalRecord, record: EvalRecord) -> None:
    keys, details = what_differs(found.identity(), record.identity())
    if keys:
        raise OtherEvalError(f"{folder} holds another evaluation. Different: {details}", keys)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A full disk, or a folder that is gone, as ResultsError."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"cannot write into {folder}: {error.strerror}") from None


def _locked(folder: Path) -> IO[bytes]:
    try:
        make_folder(folder)
        return lock_folder(folder)
    except OSError as error:
        raise ResultsError(f"cannot use results folder {folder}: {error.strerror or error}") from None
