"""What the server keeps of a run beside the run's own log: what was ordered, and how it stands.

order.json   written before anything else, never changed: enough to run it again from nothing
state.json   how it stands, small enough that a list of runs reads thousands of them; replaced as it changes
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.api import Tool, Usage
from rsa.errors import RunFolderError
from rsa.folders import make_folder, read_record, read_versioned, write_record
from rsa.problem import Problem
from rsa.results import Check, Record, RunResult, StopReason, Vote
from rsa.run_record import IMAGES, LoggedTurn, keep_images, logged_problem
from rsa.settings.config import RSAConfig
from rsa.words import shortened

FORMAT = 2
ORDER, STATE = "order.json", "state.json"
RunState = Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]
"""How a run stands.

queued       waits for its turn, or for its model
running      at work
finished     has a result
failed       ended by an error
cancelled    ended because somebody asked for it, or because who waited for it went away
interrupted  the server ended under it; a state read from a folder is this too where the server was killed
"""
ENDED: frozenset[RunState] = frozenset({"finished", "failed", "cancelled", "interrupted"})
_TITLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run.

    name        the public name that was asked for; `model` is the model of it.
    background  it goes on when nobody reads along.
    metadata    of whoever asked, kept with the run.
    """

    problem: Problem
    config: RSAConfig
    model: str
    name: str
    background: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class OrderRecord(Record):
    """The content of order.json."""

    format: int = FORMAT
    id: str
    name: str
    model: str
    created_at: float
    background: bool
    metadata: dict[str, str]
    problem_id: str
    conversation: tuple[LoggedTurn, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    config: RSAConfig


class RunSummary(Record):
    """How a run stands, for lists: the content of state.json, and what `/v1/runs` shows.

    title        the beginning of its problem.
    created_at, finished_at   seconds since 1970.
    """

    format: int = FORMAT
    id: str
    name: str
    model: str
    title: str
    state: RunState = "queued"
    background: bool = False
    created_at: float
    finished_at: float | None = None
    n: int
    t: int
    seed: int
    answer: str | None = None
    check: Check | None = None
    votes: tuple[Vote, ...] = ()
    stopped_because: StopReason | None = None
    usage: Usage = Usage()
    error: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, run_id: str, order: Order, created_at: float) -> RunSummary:
        """Of a run that was just ordered."""
        return cls(
            id=run_id,
            name=order.name,
            model=order.model,
            title=shortened(" ".join(order.problem.text.split()), _TITLE_CHARACTERS),
            background=order.background,
            created_at=created_at,
            n=order.config.n,
            t=order.config.t,
            seed=order.config.seed,
            metadata=dict(order.metadata),
        )

    def ended(self, result: RunResult, at: float) -> RunSummary:
        """Of a run with its result."""
        return self.model_copy(
            update={
                "state": "finished",
                "finished_at": at,
                "answer": result.answer,
                "check": result.check,
                "votes": result.votes,
                "stopped_because": result.stopped_because,
                "usage": result.usage,
                "error": None,
            }
        )


def write_order(folder: Path, order: Order, summary: RunSummary) -> None:
    """Make the folder of a run, with its order and state. Raises RunFolderError."""
    record = OrderRecord(
        id=summary.id,
        name=order.name,
        model=order.model,
        created_at=summary.created_at,
        background=order.background,
        metadata=dict(order.metadata),
        problem_id=order.problem.id,
        conversation=tuple(LoggedTurn.of(message) for message in order.problem.messages),
        tools=order.problem.tools,
        config=order.config,
    )
    try:
        make_folder(folder)
        keep_images(folder, order.problem)
        write_record(folder / ORDER, record, indent=1)
    except OSError as error:
        raise RunFolderError(f"cannot make the run folder {folder}: {error.strerror}") from None
    write_summary(folder, summary)


def forget_order(folder: Path) -> None:
    """Remove the folder of a run that never began, as far as it holds nothing else."""
    with suppress(OSError):
        for image in (folder / IMAGES).glob("*"):
            image.unlink()
        for path in (folder / ORDER, folder / STATE):
            path.unlink(missing_ok=True)
        for each in (folder / IMAGES, folder):
            if each.is_dir():
                each.rmdir()


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Raises RunFolderError."""
    try:
        write_record(folder / STATE, summary)
    except OSError as error:
        raise RunFolderError(f"cannot write into the run folder {folder}: {error.strerror}") from None


def read_summary(folder: Path) -> RunSummary:
    """Raises RunFolderError."""
    return read_record(folder / STATE, RunSummary, RunFolderError)


def read_order(folder: Path) -> Order:
    """What was ordered, to run it again. Raises RunFolderError."""
    record = read_versioned(folder / ORDER, OrderRecord, RunFolderError, FORMAT, instead="start a new run")
    return Order(
        problem=logged_problem(folder / ORDER, record.conversation, record.tools, record.problem_id),
        config=record.config,
        model=record.model,
        name=record.name,
        background=record.background,
        metadata=record.metadata,
    )
