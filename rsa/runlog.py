"""Run folders: everything about a run on disk, complete at any moment, so that it can be resumed.

run.json      what is run: problem, configuration, model, prompts, machine; written first, never changed
images/       the problem's images, named by their SHA-256
events.jsonl  one event a line, appended as it happens (see `Sync`); progress events are not logged
result.json   the result, written last
lock          held while a process works in the folder

The first three records are one chain of digests (`rsa.digests`), from run.json over the events to result.json: what was
changed afterwards is refused when it is read, or taken on trust where somebody says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Literal, Self

from pydantic import ValidationError

from engine.paths import path_named
from rsa.digests import STRICT, Trust, seal, unseal, unseal_lines
from rsa.errors import ConfigError, ResumeMismatchError, RunFolderError, RunWriteError
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    Event,
    EventKey,
    LimitHit,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunFinished,
    event_from_json,
    event_to_json,
)
from rsa.folders import (
    append_whole,
    check_other_kinds,
    lock_folder,
    make_folder,
    read_record,
    read_versioned,
    what_differs,
    write_record,
)
from rsa.problem import Problem
from rsa.results import Candidate, Decision, RoundKind, RunResult
from rsa.run_record import FORMAT, RunRecord, keep_images, logged_problem

RUN, EVENTS, RESULT = "run.json", "events.jsonl", "result.json"
CandidateKey = tuple[RoundKind, int, int]
Sync = Literal["candidate", "round", "end"]
"""How much a power cut may take: at most the candidates that run (`candidate`), the round (`round`) or the whole run
(`end`), for so often the log is synced to the disk. A process that is killed loses nothing that it has logged."""
_ROUND_ENDS = (RoundFinished, LimitHit, PolicyDecided)
_SYNCED: dict[Sync, tuple[type, ...]] = {
    "candidate": (CandidateFinished, RoundStarted, *_ROUND_ENDS),
    "round": _ROUND_ENDS,
    "end": (),
}


def read_run(folder: str | Path, *, trust: bool = False) -> tuple[RunRecord, Problem]:
    """What a run folder is about, to resume it. Raises RunFolderError if it is no run folder, or was changed and is not
    taken on `trust`."""
    folder = path_named(folder, RunFolderError)
    if not (folder / RUN).exists():
        raise RunFolderError(f"{folder} is no run folder: it has no {RUN}")
    record = read_run_record(folder, Trust(folder, given=trust))
    return record, logged_problem(folder / RUN, record.conversation, record.tools, record.problem_id)


def read_run_record(folder: Path, trust: Trust = STRICT) -> RunRecord:
    """The content of run.json. Raises RunFolderError, also for a folder that another version wrote."""
    return read_versioned(folder / RUN, RunRecord, RunFolderError, FORMAT, instead="start a new run", trust=trust)


def check_free(folder: Path) -> None:
    """Raises RunFolderError if no new run can begin in a folder: it holds one, or something else of ours."""
    if (folder / RUN).exists():
        raise RunFolderError(f"{folder} already holds a run: resume it, or choose another folder")
    if (folder / EVENTS).exists():
        raise RunFolderError(f"{folder} holds {EVENTS} but no {RUN}: choose another folder")
    check_other_kinds(folder, RUN, RunFolderError)


class RunLog:
    """A run folder that this process works in. Use within `with`; leaving it lets go of the lock.

    finished   candidates found in the log of a resumed run; failed ones of a round that failed as a whole are
               left out, so that they get another try.
    logged     events found there, by key; of one that is there twice, the last.
    hits       limits it ran into.
    result     of a run that had finished.
    elapsed_s  when the log stopped, in seconds since the run's start.
    trust      notes what was taken on trust.
    """

    def __init__(self, folder: Path, lock: IO[bytes], sync: Sync = "candidate", *, trust: bool = False) -> None:
        self.folder = folder
        self.trust = Trust(folder, given=trust)
        self.finished: dict[CandidateKey, Candidate] = {}
        self.hits: list[LimitHit] = []
        self.result: RunResult | None = None
        self.elapsed_s = 0.0
        self.resumed = False
        self.created_at = ""
        self._lock = lock
        self._synced = _SYNCED[sync]
        self._events: IO[bytes] | None = None
        self.logged: dict[EventKey, Event] = {}
        self._lines: dict[EventKey, int] = {}
        self._seen: set[EventKey] = set()
        self._digest = ""  # of what was logged last

    @classmethod
    def open(
        cls,
        folder: str | Path,
        record: RunRecord,
        problem: Problem,
        *,
        resume: bool,
        sync: Sync = "candidate",
        trust: bool = False,
    ) -> Self:
        """Start a run in a new folder, or go on with the one it holds. Blocks until that is on the disk.

        resume  True: continue if it holds a run (otherwise start one); False: it must not hold a run.
        trust   True: what was changed since it was written is taken as it is, and noted.

        Raises RunLockedError, ResumeMismatchError (naming what differs), RunFolderError.
        """
        folder = path_named(folder, RunFolderError)
        try:
            make_folder(folder)
            lock = lock_folder(folder)
            log = cls(folder, lock, sync, trust=trust)
            try:
                log._begin(record, problem, resume=resume)
            except BaseException:
                log.close()
                raise
        except OSError as error:
            raise RunFolderError(f"cannot use run folder {folder}: {error.strerror or error}") from None
        return log

    def _begin(self, record: RunRecord, problem: Problem, *, resume: bool) -> None:
        if resume and (self.folder / RUN).exists():
            self._continue(record)
        else:
            check_free(self.folder)
            keep_images(self.folder, problem)
            self._digest = write_record(self.folder / RUN, record, indent=1)
            self.created_at = record.created_at
        self._events = (self.folder / EVENTS).open("ab", buffering=0)

    def _continue(self, record: RunRecord) -> None:
        found = read_run_record(self.folder, self.trust)
        keys, details = what_differs(found.identity(), record.identity())
        if keys:
            raise ResumeMismatchError(f"{self.folder} holds another run. Different: {details}", keys)
        self.resumed = True
        self.created_at = found.created_at
        events, self._digest = _read_events(self.folder, self.trust, repair=True)
        for line, event in enumerate(events, 1):
            misfit = event.candidate.misfit(found.config.n) if isinstance(event, CandidateFinished) else None
            if misfit is not None:
                raise RunFolderError(
                    f"{self.folder / EVENTS}, line {line}, cannot be: {misfit}; cut the file off before that line, and "
                    "what follows is generated again"
                )
            self._note(event, line)
        if (self.folder / RESULT).exists():
            self.result = _read_result(self.folder, self._digest, self.trust)
        if self.result is None:
            self._forget_failed_round(found.config.n)

    def _note(self, event: Event, line: int) -> None:
        if isinstance(event, CandidateFinished) and event.key in self.logged:  # the round failed, and was tried again
            self._forget_round(event.candidate.round)
        self._seen.add(event.key)
        self.logged[event.key], self._lines[event.key] = event, line
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
            self._forget_round(last)

    def _forget_round(self, number: int) -> None:
        """Take the candidates of a round as not finished, and itself."""
        ends = ("candidate_finished", "round_finished")
        forgotten = {key for key in self._seen if key[0] in ends and key[1:3] == ("population", number)}
        self._seen -= forgotten
        self.logged = {key: event for key, event in self.logged.items() if key not in forgotten}
        self.finished = {key: each for key, each in self.finished.items() if key[:2] != ("population", number)}

    def doubt(self, key: EventKey | None, fault: str) -> None:
        """The event of this key, or the result for None, does not fit what it follows from: `fault` says how.

        Raises RunFolderError, or notes it where it is taken on trust.
        """
        path = self.folder / (RESULT if key is None else EVENTS)
        self.trust.doubt(path, fault, RunFolderError, line=None if key is None else self._lines.get(key))

    def decided(self, number: int) -> Decision | None:
        """What a policy decided inside a round, as it is logged."""
        found = (self.logged.get(("policy_decided", number, action)) for action in ("cut", "conclude"))
        return next((event.decision for event in found if isinstance(event, PolicyDecided)), None)

    def has_ended(self, number: int) -> bool:
        """Whether a round had finished."""
        return ("round_finished", "population", number) in self.logged

    def has_begun(self, number: int) -> bool:
        """Whether it holds candidates of a round: they are not thrown away, however late it is by now."""
        return any(key[:2] == ("population", number) for key in self.finished)

    def waits_for_disk(self, event: Event) -> bool:
        """Whether `append` blocks until this event is on the disk."""
        return isinstance(event, self._synced)

    def append(self, event: Event) -> None:
        """Log an event, unless a resumed run already holds it, or has a result: nothing comes after that.

        Raises RunWriteError; from then on nothing more is taken.
        """
        key = event.key
        if isinstance(event, CandidateProgress | RunFinished) or key in self._seen or self.result is not None:
            return
        if self._events is None:
            raise RunWriteError(f"the log of {self.folder} is closed")
        self._seen.add(key)
        line, self._digest = seal(event_to_json(event).encode(), self._digest)
        try:
            append_whole(self._events, line + b"\n")
            if self.waits_for_disk(event):
                os.fsync(self._events.fileno())
        except OSError as error:
            self._end_events()  # there may be half a line, which nothing must follow
            raise RunWriteError(f"cannot write the log in {self.folder}: {error.strerror}") from None

    def finish(self, result: RunResult) -> None:
        """Write result.json, when all events are on the disk. Raises RunWriteError."""
        try:
            if self._events is not None:
                os.fsync(self._events.fileno())
            write_record(self.folder / RESULT, result, before=self._digest)
        except OSError as error:
            raise RunWriteError(f"cannot write the result in {self.folder}: {error.strerror}") from None

    def noted(self, result: RunResult) -> RunResult:
        """The result of a run that had ended, with what was taken on trust among its warnings, on the disk as well.

        Raises RunWriteError.
        """
        warnings = tuple(dict.fromkeys((*result.warnings, *self.trust.notes)))
        if warnings != result.warnings:
            result = result.model_copy(update={"warnings": warnings})
            self.finish(result)
        return result

    def close(self) -> None:
        """Close the log and let go of the lock. Idempotent."""
        self._end_events()
        self._lock.close()

    def _end_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_events(folder: str | Path, *, repair: bool = False, trust: bool = False) -> list[Event]:
    """The events of a run folder. A last line that was cut off is left out, and with `repair` cut away.

    Raises RunFolderError, naming it, for a broken line before the last, and for one that was changed and is not taken
    on `trust`.
    """
    folder = path_named(folder, RunFolderError)
    return _read_events(folder, Trust(folder, given=trust), repair=repair)[0]


def read_result(folder: str | Path, *, trust: bool = False) -> RunResult:
    """The result of a run that has ended; what was taken on trust is among its warnings.

    Raises RunFolderError if there is none, or the folder was changed and is not taken on `trust`.
    """
    folder = path_named(folder, RunFolderError)
    doubts = Trust(folder, given=trust)
    read_run_record(folder, doubts)
    before = _recorded(folder)
    for number, (_, found) in enumerate(unseal_lines(_logged(folder).split(b"\n")[:-1], before), 1):
        if found.fault:
            doubts.doubt(folder / EVENTS, found.fault, RunFolderError, line=number)
        before = found.digest
    result = _read_result(folder, before, doubts)
    return result.model_copy(update={"warnings": (*dict.fromkeys((*result.warnings, *doubts.notes)),)})


def _read_events(folder: Path, trust: Trust, *, repair: bool = False) -> tuple[list[Event], str]:
    """The events, and the digest of what was logged last."""
    path = folder / EVENTS
    data, digest = _logged(folder), _recorded(folder)
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    for number, (_, found) in enumerate(unseal_lines(whole.split(b"\n")[:-1], digest), 1):
        try:
            events.append(event_from_json(found.content))
        except (ValidationError, ConfigError):
            raise RunFolderError(f"{path}, line {number}, is no event: the log is damaged") from None
        if found.fault:
            trust.doubt(path, found.fault, RunFolderError, line=number)
        digest = found.digest
    if repair and len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())
    return events, digest


def _logged(folder: Path) -> bytes:
    return _bytes_of(folder / EVENTS)


def _recorded(folder: Path) -> str:
    """The digest of run.json, at which the chain of events starts; "" without one."""
    data = _bytes_of(folder / RUN)
    return unseal(data).digest if data else ""


def _bytes_of(path: Path) -> bytes:
    """What is in a file; nothing, if it is not there. Raises RunFolderError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from None


def _read_result(folder: Path, before: str, trust: Trust) -> RunResult:
    result = read_record(folder / RESULT, RunResult, RunFolderError, trust=trust, before=before)
    if result.misfit is not None:
        raise RunFolderError(
            f"{folder / RESULT} cannot be: {result.misfit}; move the file away, and it is made again from {EVENTS}"
        )
    return result
