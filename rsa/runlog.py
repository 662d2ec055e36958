"""Run folders: everything about a run on disk, complete at any moment, so that it can be resumed.

run.json      what is run: problem, configuration, model, prompts, machine; written first, never changed
images/       the problem's images, named by their SHA-256
events.jsonl  one event a line, appended as it happens (see `Sync`); progress events are not logged
result.json   the result, written last
lock          held while a process works in the folder
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal, Self

from pydantic import Field, ValidationError

from engine.api import ImagePart, Message, ModelInfo, Role, Tool, ToolCall
from engine.paths import path_named
from rsa.errors import ConfigError, ProblemError, ResumeMismatchError, RunFolderError
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    Consensus,
    Event,
    EventKey,
    LimitHit,
    RoundFinished,
    RoundStarted,
    RunFinished,
    event_from_json,
    event_to_json,
)
from rsa.folders import (
    lock_folder,
    make_folder,
    read_record,
    read_versioned,
    this_machine,
    versions_of,
    what_differs,
    write_atomically,
)
from rsa.problem import Problem, Turn
from rsa.prompts import PromptSet
from rsa.results import Candidate, Record, RoundKind, RunResult
from rsa.settings.config import RSAConfig

FORMAT = 6
"""The number of the format of run folders: raised when an older reader could not understand one."""
RUN, EVENTS, RESULT, IMAGES = "run.json", "events.jsonl", "result.json", "images"
CandidateKey = tuple[RoundKind, int, int]
Sync = Literal["candidate", "round", "end"]
"""How much a power cut may take: at most the candidates that run (`candidate`), the round (`round`) or the whole run
(`end`), for so often the log is synced to the disk. A process that is killed loses nothing that it has logged."""
_ROUND_ENDS = (RoundFinished, LimitHit, Consensus)
_SYNCED: dict[Sync, tuple[type, ...]] = {
    "candidate": (CandidateFinished, RoundStarted, *_ROUND_ENDS),
    "round": _ROUND_ENDS,
    "end": (),
}


class LoggedTurn(Record):
    """A turn of the conversation. `images` are the names of files in images/: their SHA-256; `calls` and `answers` as
    of `rsa.Turn`."""

    role: Role
    text: str
    images: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None

    @classmethod
    def of(cls, message: Message) -> LoggedTurn:
        images = tuple(image.sha256 for image in message.images)
        return cls(role=message.role, text=message.text, images=images, calls=message.calls, answers=message.answers)

    def as_turn(self, folder: Path) -> Turn:
        """The turn, its images read from a folder. Raises OSError."""
        images = [ImagePart(data=(folder / name).read_bytes()) for name in self.images]
        return Turn(self.role, self.text, images, self.calls, self.answers)


class RunRecord(Record):
    """The content of run.json. The last turn of a user in `conversation` is the problem itself; `tools` are those that
    it offers."""

    format: int = FORMAT
    created_at: str
    problem_id: str
    conversation: tuple[LoggedTurn, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    config: RSAConfig
    model: ModelInfo
    task: str
    prompt_sha256: str
    versions: dict[str, str]
    machine: dict[str, str | int | None]

    @classmethod
    def of(cls, problem: Problem, config: RSAConfig, model: ModelInfo, prompts: PromptSet) -> RunRecord:
        """The record of a run that starts now, on this machine."""
        return cls(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            problem_id=problem.id,
            conversation=tuple(LoggedTurn.of(message) for message in problem.messages),
            tools=problem.tools,
            config=config,
            model=model,
            task=prompts.name,
            prompt_sha256=prompts.sha256,
            versions=versions_of("markovian-rsa", "anyio", "pydantic", "jinja2"),
            machine=this_machine(),
        )

    @property
    def problem(self) -> str:
        """The text of the problem itself."""
        return self.conversation[self.at].text

    @property
    def earlier(self) -> tuple[LoggedTurn, ...]:
        """What stands before it."""
        return self.conversation[: self.at]

    @property
    def later(self) -> tuple[LoggedTurn, ...]:
        """What stands after it: calls of tools and their results."""
        return self.conversation[self.at + 1 :]

    @property
    def at(self) -> int:
        """The place of the problem itself in the conversation."""
        places = [at for at, turn in enumerate(self.conversation) if turn.role == "user"]
        return places[-1] if places else len(self.conversation) - 1

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images of all turns, in order."""
        return tuple(name for turn in self.conversation for name in turn.images)

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to be resumed."""
        config = {f"config.{key}": value for key, value in self.config.values().items()}
        model = {"model fingerprint": self.model.fingerprint or self.model.name}
        return {
            "problem": self.problem,
            "earlier turns": [_said(turn) for turn in self.earlier],
            "later turns": [_said(turn) for turn in self.later],
            "tools": [tool.model_dump() for tool in self.tools],
            "images": [turn.images for turn in self.conversation],
            "problem_id": self.problem_id,
            "prompts": self.prompt_sha256,
            **config,
            **model,
        }


def _said(turn: LoggedTurn) -> tuple[object, ...]:
    return turn.role, turn.text, [(call.name, call.arguments) for call in turn.calls], turn.answers


def read_run(folder: str | Path) -> tuple[RunRecord, Problem]:
    """What a run folder is about, to resume it. Raises RunFolderError if it is no run folder."""
    folder = path_named(folder, RunFolderError)
    if not (folder / RUN).exists():
        raise RunFolderError(f"{folder} is no run folder: it has no {RUN}")
    record = read_run_record(folder)
    return record, logged_problem(folder / RUN, record.conversation, record.tools, record.problem_id)


def keep_images(folder: Path, problem: Problem) -> None:
    """Write the images of a problem into a run folder, each once. Raises OSError."""
    for image in problem.images:
        (folder / IMAGES).mkdir(exist_ok=True)
        write_atomically(folder / IMAGES / image.sha256, image.data)


def logged_problem(path: Path, conversation: Sequence[LoggedTurn], tools: Sequence[Tool], problem_id: str) -> Problem:
    """The problem that the record at `path` tells of; its images are in the same run folder. Raises RunFolderError."""
    try:
        turns = [turn.as_turn(path.parent / IMAGES) for turn in conversation]
    except OSError as error:
        raise RunFolderError(f"cannot read an image of the run: {error.filename}: {error.strerror}") from None
    try:
        return Problem.conversation(turns, tools=tools, problem_id=problem_id)
    except ProblemError as error:
        raise RunFolderError(f"{path} cannot be understood: {error}") from None


def read_run_record(folder: Path) -> RunRecord:
    """The content of run.json. Raises RunFolderError, also for a folder that another version wrote."""
    return read_versioned(folder / RUN, RunRecord, RunFolderError, FORMAT, instead="start a new run")


class RunLog:
    """A run folder that this process works in. Use within `with`; leaving it lets go of the lock.

    finished   candidates found in the log of a resumed run; failed ones of a round that failed as a whole are
               left out, so that they get another try.
    hits       limits it ran into.
    result     of a run that had finished.
    elapsed_s  when the log stopped, in seconds since the run's start.
    """

    def __init__(self, folder: Path, lock: IO[bytes], sync: Sync = "candidate") -> None:
        self.folder = folder
        self.finished: dict[CandidateKey, Candidate] = {}
        self.hits: list[LimitHit] = []
        self.result: RunResult | None = None
        self.elapsed_s = 0.0
        self.resumed = False
        self.created_at = ""
        self._lock = lock
        self._synced = _SYNCED[sync]
        self._events: IO[bytes] | None = None
        self._seen: set[EventKey] = set()

    @classmethod
    def open(
        cls, folder: str | Path, record: RunRecord, problem: Problem, *, resume: bool, sync: Sync = "candidate"
    ) -> Self:
        """Start a run in a new folder, or go on with the one it holds. Blocks until that is on the disk.

        resume  True: continue if it holds a run (otherwise start one); False: it must not hold a run.

        Raises RunLockedError, ResumeMismatchError (naming what differs), RunFolderError.
        """
        folder = path_named(folder, RunFolderError)
        try:
            make_folder(folder)
            lock = lock_folder(folder)
            log = cls(folder, lock, sync)
            try:
                log._begin(record, problem, resume=resume)
            except BaseException:
                log.close()
                raise
        except OSError as error:
            raise RunFolderError(f"cannot use run folder {folder}: {error.strerror or error}") from None
        return log

    def _begin(self, record: RunRecord, problem: Problem, *, resume: bool) -> None:
        if (self.folder / RUN).exists():
            if not resume:
                raise RunFolderError(f"{self.folder} already holds a run: resume it, or choose another folder")
            self._continue(record)
        elif (self.folder / EVENTS).exists():
            raise RunFolderError(f"{self.folder} holds {EVENTS} but no {RUN}: choose another folder")
        else:
            keep_images(self.folder, problem)
            write_atomically(self.folder / RUN, record.model_dump_json(indent=1).encode())
            self.created_at = record.created_at
        self._events = (self.folder / EVENTS).open("ab")

    def _continue(self, record: RunRecord) -> None:
        found, _ = read_run(self.folder)
        keys, details = what_differs(found.identity(), record.identity())
        if keys:
            raise ResumeMismatchError(f"{self.folder} holds another run. Different: {details}", keys)
        self.resumed = True
        self.created_at = found.created_at
        if (self.folder / RESULT).exists():
            self.result = read_record(self.folder / RESULT, RunResult, RunFolderError)
        for event in read_events(self.folder, repair=True):
            self._note(event)
        if self.result is None:
            self._forget_failed_round(found.config.n)

    def _note(self, event: Event) -> None:
        self._seen.add(event.key)
        self.elapsed_s = max(self.elapsed_s, event.at_s)
        if isinstance(event, CandidateFinished):
            candidate = event.candidate
            self.finished[event.kind, candidate.round, candidate.index] = candidate
        elif isinstance(event, LimitHit):
            self.hits.append(event)

    def _forget_failed_round(self, n: int) -> None:
        """If the last round failed as a whole, take its candidates as not finished."""
        last = max((number for kind, number, _ in self.finished if kind == "population"), default=0)
        played = [key for key in self.finished if key[:2] == ("population", last)]
        if len(played) == n and all(self.finished[key].status == "failed" for key in played):
            for key in played:
                del self.finished[key]
            ends = ("candidate_finished", "round_finished")
            self._seen = {key for key in self._seen if not (key[0] in ends and key[1:3] == ("population", last))}

    def waits_for_disk(self, event: Event) -> bool:
        """Whether `append` blocks until this event is on the disk."""
        return isinstance(event, self._synced)

    def append(self, event: Event) -> None:
        """Log an event, unless a resumed run already holds it."""
        key = event.key
        if isinstance(event, CandidateProgress | RunFinished) or key in self._seen:
            return
        if self._events is None:
            raise RunFolderError(f"the log of {self.folder} is closed")
        self._seen.add(key)
        try:
            self._events.write(event_to_json(event).encode() + b"\n")
            self._events.flush()
            if self.waits_for_disk(event):
                os.fsync(self._events.fileno())
        except OSError as error:
            raise RunFolderError(f"cannot write the log in {self.folder}: {error.strerror}") from None

    def finish(self, result: RunResult) -> None:
        """Write result.json, when all events are on the disk."""
        if self._events is not None:
            os.fsync(self._events.fileno())
        write_atomically(self.folder / RESULT, result.model_dump_json().encode())

    def close(self) -> None:
        """Close the log and let go of the lock. Idempotent."""
        if self._events is not None:
            self._events.close()
            self._events = None
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_events(folder: str | Path, *, repair: bool = False) -> list[Event]:
    """The events of a run folder. A last line that was cut off is left out, and with `repair` cut away.

    Raises RunFolderError for a broken line before the last, naming it.
    """
    path = Path(folder) / EVENTS
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            events.append(event_from_json(line))
        except (ValidationError, ConfigError):
            raise RunFolderError(f"{path}, line {number}, is no event: the log is damaged") from None
    if repair and len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())
    return events
