"""What passes between the driver of an evaluation and its workers, which are the same version of this package."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

from engine.api import ModelInfo
from evals.data.benchmarks import Benchmark
from evals.stints import Outcome, Stint
from rsa.events import Event
from rsa.run_record import RunRecord
from rsa.settings.config import RSAConfig


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is for: the first message to it.

    model, options   opened there, as `rsa.compose.open_engine` takes them.
    benchmark  without its problems: a worker needs its metric alone.
    config     before it is suited to the model.
    trust      what was changed in a run folder since it was written is taken as it is.
    """

    model: str
    options: dict[str, Any]
    benchmark: Benchmark
    config: RSAConfig
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A stint to play; `number` names it in the worker's messages.

    files  of its run folder, by their paths in it, as far as the run has got; none for a new one.
    """

    number: int
    stint: Stint
    files: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """The worker's engine runs: its first message. `versions`: of what is installed there."""

    model: ModelInfo
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker's last message: its engine could not be opened, or broke down, or the job is wrong."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Began:
    """A task's run has a run.json, whose content this is; comes before its first event."""

    number: int
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of a task's run. A run that goes on repeats those that it had."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Solved:
    """The last message of a task: what became of its stint."""

    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the worker's engine is: tokens generated since it was opened, and requests that run."""

    tokens: int
    running: int


OfTask = Began | Happened | Solved
Message = Opened | Broken | OfTask | Load


def portable(error: Exception) -> Exception:
    """An error of the same kind and message that can be sent: of the nearest base that needs nothing but a message."""
    for kind in type(error).__mro__:
        try:
            copy = pickle.loads(pickle.dumps(kind(str(error))))
        except Exception:  # a constructor may want anything, a class may not be known to pickle
            continue
        for note in getattr(error, "__notes__", ()):
            copy.add_note(note)
        assert isinstance(copy, Exception)
        return copy
    raise AssertionError("Exception needs nothing but a message")
