"""The runs of a server: each has an id, a folder, a task of its own, and any number of followers.

What others rely on:

* `async with Runs(...) as runs`: the runs' tasks live inside. `runs.start(order, slot)` gives a `RunHandle` at once
  and never waits; what hinders a run ends that run alone.
* `handle.follow(after)` is an async iterator of `Numbered` events from the first one on (or after the number `after`),
  for any number of followers, of a run that is live or has ended, in this process or an earlier one. The numbers are
  those of the lines of events.jsonl; the last event, `RunFinished`, has the number after them. Events of progress have
  no number: a follower gets the newest of each candidate, so whoever is slow loses nothing else. It ends with the run.
* `await handle.result()` is the result, or raises what ended the run.
* `await handle.begun()` waits until its budgets are settled and it generates, or raises what hindered it.
* `handle.cancel()` ends it now, without waiting: rows are free at the engine's next step.
* `await runs.get(id)`, `await runs.list()`, `await runs.resume(id)` know all runs of the folder, also of earlier
  processes.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from engine.api import Engine
from engine.errors import EngineClosedError
from rsa.answers.math_pool import MathWorkers
from rsa.controller import MarkovianRSA
from rsa.errors import RSAError, RunFolderError
from rsa.events import CandidateFinished, Event, RunFinished
from rsa.folders import lock_folder
from rsa.results import RunResult
from rsa.runlog import RUN, read_events
from rsa.serve.answering import RunEndedError
from rsa.serve.conversation import check_length
from rsa.serve.errors import ApiError
from rsa.serve.following import Numbered, Story
from rsa.serve.models import Served
from rsa.serve.orders import (
    ENDED,
    ORDER,
    STATE,
    Order,
    RunState,
    RunSummary,
    forget_order,
    read_order,
    read_summary,
    write_order,
    write_summary,
)

MakeSlot = Callable[[], "Slot"]
# Begins with the time, so that names sort by age.
_ID = re.compile(r"run_[0-9]{20}[0-9a-f]{8}")
_DIED = EngineClosedError.__name__
_logger = logging.getLogger("rsa.serve")


class Slot(Protocol):
    """What a run works within: entering it waits for the run's turn. `close` gives it up, entered or not."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...


class Observer(Protocol):
    """Who is told of all runs: each event once, progress among them, and every end."""

    def told(self, handle: RunHandle, event: Event) -> None: ...

    def ended(self, handle: RunHandle) -> None: ...


class RunHandle:
    """One run; see the module. `summary` is how it stands, kept up to date."""

    def __init__(self, folder: Path, summary: RunSummary, story: Story) -> None:
        self.folder, self.summary = folder, summary
        self._story = story
        self._scope = anyio.CancelScope()
        self._ended_as: RunState = "cancelled"
        self._error: Exception | None = None

    @property
    def id(self) -> str:
        return self.summary.id

    @property
    def ended(self) -> bool:
        return self.summary.state in ENDED

    def follow(self, after: int = 0) -> AsyncIterator[Numbered]:
        return self._story.follow(after)

    async def begun(self) -> None:
        await self._story.begun()
        if self.ended and self.summary.state != "finished":
            raise self._why()

    async def result(self) -> RunResult:
        """Raises what ended the run; RunEndedError if it was cancelled or interrupted, or is of an earlier process."""
        async for numbered in self.follow(self._story.last - 1):
            if isinstance(numbered.event, RunFinished):
                return numbered.event.result
        raise self._why()

    async def over(self) -> None:
        """Wait until the run has ended and that is written."""
        await self._story.over()

    def cancel(self, ended_as: RunState = "cancelled") -> None:
        """End it now, if it has not ended; who was the first to say so is why."""
        if not self.ended and not self._scope.cancel_called:
            self._ended_as = ended_as
            self._scope.cancel()

    def _why(self) -> Exception:
        if self._error is not None:
            return self._error
        said = f": {self.summary.error}" if self.summary.error else ""
        state = self.summary.state
        return RunEndedError(f"the run {self.id} was {state}{said}", interrupted=state == "interrupted")


class Runs:
    """All runs of a folder; see the module. Belongs to one event loop.

    slot      of a run that is gone on with; those of others come with their order.
    observer  is told of all of them.
    """

    def __init__(
        self,
        folder: Path,
        served: Served,
        *,
        slot: MakeSlot,
        observer: Observer,
        progress_every_s: float = 0.25,
    ) -> None:
        self.folder = folder
        self._served, self._slot, self._progress_every_s = served, slot, progress_every_s
        self._observer = observer
        self._live: dict[str, RunHandle] = {}
        self._group: TaskGroup
        self._math: MathWorkers

    async def __aenter__(self) -> Self:
        self._math = await MathWorkers().__aenter__()
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Interrupt what still runs, and wait until that is written."""
        self.interrupt()
        await self._group.__aexit__(kind, error, traceback)
        await self._math.__aexit__(kind, error, traceback)

    @property
    def live(self) -> list[RunHandle]:
        """Runs that have not ended, the oldest first."""
        return list(self._live.values())

    def interrupt(self) -> None:
        """End all runs so that the next server can go on with them."""
        for handle in self.live:
            handle.cancel("interrupted")

    def start(self, order: Order, slot: Slot) -> RunHandle:
        """Begin a run; its id and its handle are there at once. It works within `slot`, which is given up with it."""
        now = time.time()
        run_id = f"run_{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S%f}{secrets.token_hex(4)}"
        summary = RunSummary.of(run_id, order, now)
        handle = RunHandle(self.folder / run_id, summary, Story())
        self._spawn(handle, order, slot, new=True)
        return handle

    async def get(self, run_id: str) -> RunHandle:
        """A run by its id, live or ended. Raises ApiError (404), RunFolderError."""
        if run_id in self._live:
            return self._live[run_id]
        folder = self.folder / run_id
        found = await anyio.to_thread.run_sync(_found, folder) if _ID.fullmatch(run_id) else None
        if run_id in self._live:  # it was resumed meanwhile
            return self._live[run_id]
        if found is None:
            raise ApiError(404, f"there is no run {run_id!r}", param="id", code="run_not_found")
        return RunHandle(folder, found, Story.told(folder))

    async def list(self, limit: int = 100) -> Sequence[RunSummary]:
        """The newest runs, the newest first."""
        return await anyio.to_thread.run_sync(self._list, limit, dict(self._live))

    def _list(self, limit: int, live: dict[str, RunHandle]) -> Sequence[RunSummary]:
        if not self.folder.is_dir():
            return []
        names = sorted((path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name)), reverse=True)
        all_names = dict.fromkeys([*reversed(live), *names])
        found = (live[name].summary if name in live else _listed(self.folder / name) for name in all_names)
        return [*itertools.islice((summary for summary in found if summary is not None), limit)]

    async def resume(self, run_id: str) -> RunHandle:
        """Go on with a run that was interrupted, cancelled or failed; one that is live or finished stays as it is.

        Raises ApiError (404, and 409 where its model is not served), RunFolderError; RunLockedError where another
        process, which leaves the folder to all, works on it.
        """
        found = await self.get(run_id)
        if run_id in self._live or found.summary.state == "finished":
            return found
        self._served.check_served(found.summary.model)
        await anyio.to_thread.run_sync(_check_free, found.folder)
        order = await anyio.to_thread.run_sync(read_order, found.folder)
        story = Story(await anyio.to_thread.run_sync(read_events, found.folder))
        if run_id in self._live:  # somebody was faster
            return self._live[run_id]
        summary = found.summary.model_copy(update={"state": "queued", "error": None, "finished_at": None})
        handle = RunHandle(found.folder, summary, story)
        self._spawn(handle, order, self._slot(), new=False)
        return handle

    async def resume_unfinished(self, *, foreground: bool) -> Sequence[RunHandle]:
        """Go on with what was running when an earlier server ended: runs in the background, and with `foreground` those
        that somebody waited for."""
        summaries = await self.list(2**31)
        wanted = [each for each in summaries if each.state == "interrupted" and (each.background or foreground)]
        resumed = []
        for summary in reversed(wanted):
            try:
                resumed.append(await self.resume(summary.id))
            except RSAError as error:
                _logger.error("cannot go on with %s: %s", summary.id, error)
        return resumed

    def _spawn(self, handle: RunHandle, order: Order, slot: Slot, *, new: bool) -> None:
        self._live[handle.id] = handle
        self._group.start_soon(self._work, handle, order, slot, new, name=handle.id)

    async def _work(self, handle: RunHandle, order: Order, slot: Slot, new: bool) -> None:
        """The task of a run: never raises."""
        state: RunState = "finished"
        try:
            with handle._scope:
                await self._run(handle, order, slot, new)
            if handle._scope.cancelled_caught:
                state = handle._ended_as
        except Exception as error:
            state, handle._error = "failed", error
            _logger.log(_level(error), "run %s failed: %s", handle.id, error, exc_info=_bug(error))
        slot.close()
        with anyio.CancelScope(shield=True):
            try:
                await self._end(handle, state)
            except Exception:  # out of its task, it would end all others
                _logger.exception("the end of run %s could not be put in order", handle.id)

    async def _run(self, handle: RunHandle, order: Order, slot: Slot, new: bool) -> None:
        if new:
            await anyio.to_thread.run_sync(write_order, handle.folder, order, handle.summary)
        async with slot:
            engine = await self._served.engine(order.model)
            check_length(order.problem.messages, engine.model)
            await self._becomes(handle, "running")
            try:
                await self._play(handle, order, engine)
            except EngineClosedError as error:
                await self._served.lost(order.model, engine, str(error))
                raise

    async def _play(self, handle: RunHandle, order: Order, engine: Engine) -> None:
        rsa = MarkovianRSA(
            engine,
            config=order.config,
            math_workers=self._math,
            sync="round",
            progress_every_s=self._progress_every_s,
        )
        async with rsa.stream(order.problem, out=handle.folder, resume=True) as events:
            async for event in events:
                if isinstance(event, RunFinished):
                    handle.summary = handle.summary.ended(event.result, time.time())
                elif isinstance(event, CandidateFinished) and (event.candidate.error or "").startswith(_DIED):
                    await self._served.lost(order.model, engine, event.candidate.error or "")
                if handle._story.tell(event):
                    self._observer.told(handle, event)

    async def _becomes(self, handle: RunHandle, state: RunState) -> None:
        handle.summary = handle.summary.model_copy(update={"state": state})
        await anyio.to_thread.run_sync(write_summary, handle.folder, handle.summary)

    async def _end(self, handle: RunHandle, state: RunState) -> None:
        if handle.summary.state != "finished":
            said = None if handle._error is None else str(handle._error)
            changes = {"state": state, "finished_at": time.time(), "error": said}
            handle.summary = handle.summary.model_copy(update=changes)
        try:
            await anyio.to_thread.run_sync(_write_end, handle.folder, handle.summary)
        except RunFolderError as error:
            _logger.error("run %s: %s", handle.id, error)
        finally:
            del self._live[handle.id]
            handle._story.end(handle.folder)
            self._observer.ended(handle)


def _found(folder: Path) -> RunSummary | None:
    """How a run of an earlier process stands: what it did not end was interrupted. None where there is no run."""
    if not (folder / STATE).is_file():
        return None
    summary = read_summary(folder)
    return summary if summary.state in ENDED else summary.model_copy(update={"state": "interrupted"})


def _listed(folder: Path) -> RunSummary | None:
    """How a run stands; None where that cannot be read: one broken folder costs no list."""
    try:
        return _found(folder)
    except RunFolderError as error:
        _logger.warning("a run is left out: %s", error)
        return None


def _check_free(folder: Path) -> None:
    """Raises RunLockedError: what is written here would be of a run that goes on elsewhere."""
    with suppress(OSError):  # what is wrong with the folder is told when it is read
        lock_folder(folder).close()


def _write_end(folder: Path, summary: RunSummary) -> None:
    """A run that somebody waited for, and that could not even begin, is told to them and leaves no folder behind."""
    if summary.state == "failed" and not summary.background and not (folder / RUN).exists():
        forget_order(folder)
    elif (folder / ORDER).exists():  # else it ended before it was written down
        write_summary(folder, summary)


def _bug(error: Exception) -> Exception | None:
    """The error, if it is none that people are told of in a line."""
    from engine.errors import EngineError

    return None if isinstance(error, RSAError | EngineError) else error


def _level(error: Exception) -> int:
    return logging.WARNING if _bug(error) is None else logging.ERROR
