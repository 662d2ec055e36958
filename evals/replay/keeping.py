"""A replay that is kept in the results folder it is of, for its report."""

from __future__ import annotations

from pathlib import Path

from evals.errors import ReplayError, ResultsError
from evals.folder import read_json
from evals.replay.figures import Replayed
from evals.results import EvalResults
from rsa.digests import Trust
from rsa.folders import write_record

REPLAY = "replay.json"


def keep(replayed: Replayed) -> Path:
    """Keep the replay of an evaluation in its folder, which is returned, in place of the last one.

    Raises ReplayError for a replay of runs, ResultsError if the folder cannot be written.
    """
    if replayed.kind != "evaluation":
        raise ReplayError("runs have no report that a replay could be part of: that is for evaluations")
    folder = Path(replayed.folders[0])
    try:
        write_record(folder / REPLAY, replayed, indent=1)
    except OSError as error:
        raise ResultsError(f"cannot write into {folder}: {error.strerror}") from None
    return folder


def kept(folder: Path, results: EvalResults, trust: Trust) -> Replayed | None:
    """The replay that is kept there; None if there is none, or if it is of other results than those that are there now.

    Raises ResultsError if it cannot be read, or was changed and is not taken on trust.
    """
    path = folder / REPLAY
    if not path.is_file():
        return None
    found = read_json(path, Replayed, trust)
    return found if found.candidates_digest == results.candidates_digest else None
