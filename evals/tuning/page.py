"""The page of a tuning: accuracy against tokens for everything that was tried, and what was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.errors import ResultsError
from evals.report import plots
from evals.report.text import environment
from evals.tuning.records import PAGE, PROFILE, Tuned
from evals.tuning.table import unbeaten
from rsa.folders import write_atomically


def write_page(folder: Path, tuned: Tuned) -> Path:
    """Write `tune.html` into the folder of a tuning, one page that needs nothing else; returns its path.

    The same tuning gives the same bytes. Raises ResultsError.
    """
    path = folder / PAGE
    try:
        profile = (folder / PROFILE).read_text()
        page = environment().get_template("tuning.html.j2").render(**_context(tuned), profile=profile)
        write_atomically(path, page.encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _context(tuned: Tuned) -> dict[str, Any]:
    expected = tuned.expected
    ends = {"low": expected.low, "value": expected.value, "high": expected.high}
    trials = sorted(tuned.trials, key=lambda trial: (not trial.stands, trial.tokens, trial.name))
    return {
        "tuned": tuned,
        "expected": expected,
        "scale": {name: 400 * (value or 0.0) for name, value in ends.items()},
        "plot": plots.accuracy_by_cost(_points(tuned), front=[(each.tokens, each.answer) for each in unbeaten(trials)]),
        "trials": trials,
        "signs": {tuned.start: "start", tuned.best: "best", tuned.chosen: "chosen"},
    }


def _points(tuned: Tuned) -> list[plots.Point]:
    points = []
    for trial in tuned.trials:
        kind: plots.PointKind = "given up"
        if trial.name == tuned.chosen:
            kind = "chosen"
        elif trial.stands:
            kind = "rounds" if trial.settings["t"] else "no rounds"
        points.append(plots.Point(trial.tokens, trial.answer, kind))
    return points
