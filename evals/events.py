"""What happens in an evaluation, for those who watch it: EvalStarted, RunEnded for every problem and epoch in the
order of their ends, LapStarted and PlaceLost where they happen, EvalFinished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evals.eval_record import EvalRecord
from evals.meter import EngineLoad
from evals.results import EvalResults
from evals.run_scores import RunScores


@dataclass(frozen=True, slots=True)
class EvalStarted:
    """`runs`: problems times epochs; `meter` goes on counting while the evaluation runs.

    places     where problems are solved: 1, or as many as there are workers.
    in_flight  problems at once in each place.
    """

    folder: Path
    record: EvalRecord
    runs: int
    in_flight: int
    meter: EngineLoad
    places: int = 1


@dataclass(frozen=True, slots=True)
class LapStarted:
    """Of an evaluation with a budget: so many runs play this round now.

    left  tokens for them, and for all that comes after; None: as many as they like.
    """

    round: int
    runs: int
    left: int | None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A problem's run of one epoch is scored.

    value  what it adds to the headline; None if nothing of it could be scored.
    found  it was done before this process began.
    """

    scores: RunScores
    value: float | None
    found: bool


@dataclass(frozen=True, slots=True)
class PlaceLost:
    """A place takes no more problems, and what it had begun goes to the others, of which so many are left."""

    name: str
    why: str
    left: int


@dataclass(frozen=True, slots=True)
class EvalFinished:
    """Everything is written."""

    results: EvalResults


EvalEvent = EvalStarted | LapStarted | RunEnded | PlaceLost | EvalFinished
OnEvent = Callable[[EvalEvent], None]
