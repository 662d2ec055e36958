"""The driver's side of workers: gives them problems, writes what they send into run folders, and notices their end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.api import ModelInfo
from engine.errors import EngineClosedError, EngineError, ModelError, RequestError
from evals.data.question import Question
from evals.folder import ResultsFolder
from evals.meter import EngineLoad
from evals.runner import PlaceLostError
from evals.solving import default_in_flight
from evals.stints import Outcome, Stint
from evals.workers.messages import Began, Broken, Happened, Job, Load, Message, OfTask, Opened, Solved, Task
from rsa.events import Event
from rsa.folders import what_differs
from rsa.news import News
from rsa.problem import Problem
from rsa.run_record import IMAGES
from rsa.runlog import EVENTS, RESULT, RUN, RunLog, read_events


class Channel(Protocol):
    """The way to one worker, which starts when it is opened.

    name  of the worker, for people: `worker 2 (GPU 1)`.

    What cannot be sent or received because the worker is gone raises EngineClosedError, which says what became of it.
    """

    @property
    def name(self) -> str: ...

    async def open(self, job: Job) -> None:
        """Start the worker; it need not be ready. Raises ConfigError for a job that cannot be sent."""

    async def send(self, task: Task) -> None: ...

    async def receive(self) -> Sequence[Message]:
        """Wait for messages; those that are there, in order."""

    async def aclose(self) -> None:
        """End the worker, whatever it does. Idempotent."""


class Crew:
    """The workers of an evaluation. Entering it starts them, and waits for the first whose engine runs; leaving it ends
    them all.

    meter      of all their engines together.
    in_flight  problems at once in each worker; None: so many that its engine stays full.

    Once entered, `model`, `versions` and `in_flight` are those of the first worker.

    Entering raises what is wrong with the job (ConfigError, RequestError, ...) as soon as one worker says so, and
    EngineError if no engine could be opened.
    """

    def __init__(self, channels: Sequence[Channel], job: Job, *, meter: EngineLoad, in_flight: int | None) -> None:
        self._job = job
        self._group: TaskGroup | None = None
        self._first: Opened
        self.in_flight: int
        self._news = News()
        self._workers = [Worker(channel, self._news, meter, job.config.n, in_flight) for channel in channels]

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            for worker in self._workers:
                self._group.start_soon(worker.listen, self._job)
            while all(worker.opened is None for worker in self._workers):
                ends = [worker.end for worker in self._workers if worker.end is not None]
                for end in ends:
                    if not isinstance(end, PlaceLostError):
                        raise end
                if len(ends) == len(self._workers):
                    assert isinstance(ends[0], PlaceLostError)
                    raise ends[0].error
                await self._news.wait()
            found = next(worker for worker in self._workers if worker.opened is not None)
            assert found.opened is not None
            self._first, self.in_flight = found.opened, found.in_flight
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(self, *exc: Any) -> None:
        assert self._group is not None
        self._group.cancel_scope.cancel()  # who no longer listens to a worker ends it
        # Only a cancellation is the group's business: any other error would come out of it wrapped.
        cancelled = isinstance(exc[1], anyio.get_cancelled_exc_class())
        await self._group.__aexit__(*(exc if cancelled else (None, None, None)))

    @property
    def model(self) -> ModelInfo:
        """What its engine runs: the others must run the same."""
        return self._first.model

    @property
    def versions(self) -> dict[str, str]:
        """What is installed where it runs, and where the others must run."""
        return self._first.versions

    def places(self, folder: ResultsFolder) -> list[Worker]:
        """All workers, also those that are not ready yet, as places for the problems of a results folder."""
        for worker in self._workers:
            worker.folder, worker.wanted = folder, self._first
        return self._workers


class Worker:
    """A worker as a place where problems are solved: see `evals.runner.Place`.

    opened   what it said when its engine ran; None before.
    end      why it takes no more problems; None: it does, or will.
    folder, wanted   the results folder, and what all workers must say of their engines; set before it is a place.
    """

    folder: ResultsFolder
    wanted: Opened

    def __init__(self, channel: Channel, news: News, meter: EngineLoad, n: int, in_flight: int | None) -> None:
        self.opened: Opened | None = None
        self.end: Exception | None = None
        self._channel = channel
        self._news = news
        self._meter = meter
        self._load = Load(0, 0)
        self._n = n
        self._in_flight = in_flight
        self._numbers = count()
        self._tasks: dict[int, MemoryObjectSendStream[OfTask]] = {}

    @property
    def name(self) -> str:
        return self._channel.name

    @property
    def in_flight(self) -> int:
        """Problems at once, of a worker whose engine runs."""
        return self._in_flight or default_in_flight(self._n, self._model)

    @property
    def _model(self) -> ModelInfo:
        assert self.opened is not None
        return self.opened.model

    async def listen(self, job: Job) -> None:
        """Start the worker and take its messages; at the end, or when cancelled, end it. `end` says why, nothing is
        raised."""
        try:
            await self._channel.open(job)
            while self.end is None:
                for message in await self._channel.receive():
                    self._take(message)
        except Exception as error:
            self._ended(error)
        finally:
            with anyio.CancelScope(shield=True):
                await self._channel.aclose()

    async def ready(self) -> int:
        while self.opened is None and self.end is None:
            await self._news.wait()
        self._check()
        self._check_same()
        return self.in_flight

    async def play(self, stint: Stint) -> Outcome:
        """Raises as `evals.runner.Place`: what is wrong with the job or the settings, RunFolderError, ResultsError."""
        out = self.folder.run_folder(stint.question.id, stint.epoch)
        files = await anyio.to_thread.run_sync(_files_of, out, self.folder.trust.given)
        self._check()
        number = next(self._numbers)
        send, messages = anyio.create_memory_object_stream[OfTask](math.inf)
        with messages, send:
            self._tasks[number] = send
            try:
                await self._send(Task(number, stint, files))
                solved = await self._recorded(messages, stint.question, out)
            finally:
                del self._tasks[number]
        outcome = solved.outcome
        if outcome.scores is not None:
            await anyio.to_thread.run_sync(self.folder.write_scores, outcome.scores, outcome.failed)
        self.folder.note_progress()
        return outcome

    async def _send(self, task: Task) -> None:
        try:
            await self._channel.send(task)
        except EngineClosedError as error:
            self._ended(error)
        self._check()

    async def _recorded(self, messages: MemoryObjectReceiveStream[OfTask], question: Question, out: Path) -> Solved:
        """Write what a task sends into its run folder, until it is solved."""
        problem = Problem(question.problem, images=question.images, problem_id=question.id)
        log: RunLog | None = None
        with ExitStack() as stack:
            async for message in messages:
                match message:
                    case Began(record=record):
                        opening = partial(
                            RunLog.open, out, record, problem, resume=True, sync="round", trust=self.folder.trust.given
                        )
                        log = stack.enter_context(await anyio.to_thread.run_sync(opening))
                    case Happened(event=event):
                        assert log is not None, "a run begins before anything happens in it"
                        await _log(log, event)
                    case Solved():
                        return message
        self._check()
        raise AssertionError("its messages end before it is solved only if the worker does")

    # ---- what it says

    def _take(self, message: Message) -> None:
        match message:
            case Opened():
                self.opened = message
                self._news.tell()
            case Broken(error=error):
                self._ended(error)
            case Load():
                self._meter.tokens += message.tokens - self._load.tokens
                self._meter.running += message.running - self._load.running
                self._load = message
            case _:
                if message.number in self._tasks:
                    self._tasks[message.number].send_nowait(message)

    def _ended(self, error: Exception) -> None:
        lost = isinstance(error, EngineError) and not isinstance(error, RequestError)
        self.end = self.end or (PlaceLostError(error) if lost and isinstance(error, EngineError) else error)
        self._take(Load(self._load.tokens, 0))
        for task in self._tasks.values():
            task.close()
        self._news.tell()

    def _check(self) -> None:
        """Raises why it takes no more problems, if it does not."""
        if isinstance(self.end, PlaceLostError):
            raise PlaceLostError(self.end.error)  # an error of one's own: each raising adds to a traceback
        if self.end is not None:
            raise self.end

    def _check_same(self) -> None:
        """Raises PlaceLostError if its results could not stand beside those of the first worker."""
        assert self.opened is not None
        first, mine = self.wanted, self.opened
        keys, details = what_differs(
            {"model": first.model.fingerprint or first.model.name, **first.versions},
            {"model": mine.model.fingerprint or mine.model.name, **mine.versions},
        )
        if keys:
            raise PlaceLostError(ModelError(f"it is not like the first worker. Different: {details}"))


def _files_of(run: Path, trust: bool) -> dict[str, bytes]:
    """What a run folder holds of a run that may go on elsewhere; nothing if there is none.

    Raises RunFolderError here, where the folder has its name, for one that was changed and is not taken on `trust`.
    """
    if not (run / RUN).is_file():
        return {}
    read_events(run, trust=trust)
    paths = [run / name for name in (RUN, EVENTS, RESULT)] + sorted((run / IMAGES).glob("*"))
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.is_file()}


async def _log(log: RunLog, event: Event) -> None:
    if event.type == "run_finished":
        if log.result is None:
            await anyio.to_thread.run_sync(log.finish, event.result)
    elif log.waits_for_disk(event):
        await anyio.to_thread.run_sync(log.append, event)
    else:
        log.append(event)
