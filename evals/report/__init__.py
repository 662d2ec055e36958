"""Reports: a results folder as one HTML page that needs nothing else, today or in ten years.

`write_report` looks at a folder, finds an evaluation or the run of one problem there, and writes `report.html` into
it. Nothing in the page is fetched, and nothing runs: no script, no font, no picture from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.paths import path_named
from evals.errors import ResultsError
from rsa.folders import written_aside

REPORT = "report.html"
MAX_BYTES = 20_000_000
"""The largest report. Browsers and mail programs still open that; texts are shortened and left out to keep it."""


def write_report(folder: str | Path, *, trust: bool = False, max_bytes: int = MAX_BYTES) -> Path:
    """Write `report.html` into the folder of an evaluation or of a solved problem; returns its path.

    The same folder gives the same bytes. The page is there whole or not at all. Details that would make it larger
    than `max_bytes` are left out, and the page says which. What was changed in the folder since it was written is
    refused; with `trust` it is taken as it is, and the page says so.

    Raises ResultsError if the folder holds neither, or what it holds cannot be read; RunFolderError if it is a
    broken run folder.
    """
    folder = path_named(folder, ResultsError)
    path = folder / REPORT
    pieces = _pieces(folder, max_bytes, trust=trust)
    try:
        with written_aside(path) as file:
            file.writelines(piece.encode() for piece in pieces)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _pieces(folder: Path, max_bytes: int, *, trust: bool) -> Iterable[str]:
    """The page in pieces, made as they are read: a report of 5,000 problems is never in memory whole."""
    from evals.folder import EVAL, RESULTS
    from rsa.runlog import RUN

    if (folder / RESULTS).is_file():
        from evals.report.evaluation import evaluation_page

        return evaluation_page(folder, max_bytes, trust=trust)
    if (folder / RUN).is_file():
        from evals.report.solved import solved_page

        return solved_page(folder, max_bytes, trust=trust)
    if (folder / EVAL).is_file():
        raise ResultsError(
            f"the evaluation in {folder} has not ended: there is {EVAL}, but no {RESULTS}; "
            f"go on with: rsa eval --resume {folder}"
        )
    if not folder.is_dir():
        raise ResultsError(f"there is no folder {folder}")
    raise ResultsError(
        f"nothing to report in {folder}: neither {RESULTS} (of an evaluation) nor {RUN} (of a solved problem) is there"
    )
