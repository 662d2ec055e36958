"""A worker: opens an engine, solves the problems it is given, and sends what happens as it happens."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread

from engine.errors import EngineError
from evals.folder import PACKAGES
from evals.job import make_scorer, metric_name
from evals.meter import EngineLoad
from evals.solving import Solver
from evals.workers.messages import Began, Broken, Happened, Job, Load, Message, Opened, Solved, Task, portable
from rsa.answers.math_pool import MathWorkers
from rsa.compose import open_engine
from rsa.digests import Trust
from rsa.errors import ConfigError, RSAError
from rsa.events import CandidateProgress, Event
from rsa.folders import versions_of
from rsa.runlog import read_run_record
from rsa.settings.config import RSAConfig
from rsa.settings.suitability import suited

LOAD_EVERY_S = 0.5
"""Seconds between two messages about how busy the engine is."""

Receive = Callable[[], Awaitable[Task | None]]
"""A function that waits for the next task; None: there will be no more, and what still runs is not wanted."""
Send = Callable[[Message], None]
"""A function that sends a message sooner or later, in order, without waiting."""


async def serve(job: Job, receive: Receive, send: Send, scratch: Path | None = None) -> None:
    """Be a worker until there are no more tasks. Raises nothing: what goes wrong is the last message, `Broken`.

    scratch  where its run folders are while it works; None: among what is temporary on this machine. It is an argument
             because TMPDIR is MLX's as well, which keeps its compiled kernels there.
    """
    try:
        async with AsyncExitStack() as stack:
            worker = await _Worker.opened(job, send, stack, scratch)
            await worker.run(receive)
    except Exception as error:
        send(Broken(_explained(error)))


class _Worker:
    def __init__(self, solver: Solver, meter: EngineLoad, scratch: Path, send: Send, *, trust: bool) -> None:
        self._trust = trust
        self._solver = solver
        self._meter = meter
        self._scratch = scratch
        self._send = send
        self._told = Load(0, 0)
        self._trouble: Exception | None = None

    @classmethod
    async def opened(cls, job: Job, send: Send, stack: AsyncExitStack, scratch: Path | None) -> _Worker:
        """A worker whose engine runs; what it needs is closed with the stack. Raises ConfigError, EngineError, ..."""
        _check_policies(job.config)
        engine = await anyio.to_thread.run_sync(partial(open_engine, job.model, **job.options))
        stack.push_async_callback(engine.aclose)
        math = await stack.enter_async_context(MathWorkers())
        scorer = await stack.enter_async_context(make_scorer(job.benchmark, math))
        folder = stack.enter_context(TemporaryDirectory(prefix="rsa-worker-", dir=scratch))
        meter = EngineLoad()
        solver = Solver(
            engine,
            suited(job.config, engine.model),
            scorer,
            math,
            metric=metric_name(job.benchmark),
            meter=meter,
            sync="end",  # the driver keeps the log
            trust=job.trust,
        )
        send(Opened(engine.model, versions_of(*PACKAGES)))
        return cls(solver, meter, Path(folder), send, trust=job.trust)

    async def run(self, receive: Receive) -> None:
        """All tasks that come. Raises what the first one raises that does not fail alone."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._go_on_telling_load)
            while (task := await receive()) is not None and self._trouble is None:
                group.start_soon(self._solve, task, group.cancel_scope)
            group.cancel_scope.cancel()
        if self._trouble is not None:
            raise self._trouble

    async def _solve(self, task: Task, everyone: anyio.CancelScope) -> None:
        # Errors leave by hand: out of a task group they would come wrapped in an ExceptionGroup.
        folder = self._scratch / str(task.number)
        try:
            await anyio.to_thread.run_sync(_unpack, task.files, folder)
            watch = partial(self._watch, task.number, folder)
            outcome = await self._solver.solve(task.stint, folder, watch)
            self._tell_load()
            self._send(Solved(task.number, outcome))
            await anyio.to_thread.run_sync(shutil.rmtree, folder)
        except Exception as error:
            self._trouble = self._trouble or error
            everyone.cancel()

    def _watch(self, number: int, folder: Path, event: Event) -> None:
        if event.type == "run_started":
            self._send(Began(number, read_run_record(folder, Trust(folder, given=self._trust))))
        if not isinstance(event, CandidateProgress):
            self._send(Happened(number, event))

    async def _go_on_telling_load(self) -> None:
        while True:
            self._tell_load()
            await anyio.sleep(LOAD_EVERY_S)

    def _tell_load(self) -> None:
        now = Load(self._meter.tokens, self._meter.running)
        if now != self._told:
            self._send(now)
            self._told = now


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _check_policies(config: RSAConfig) -> None:
    """Raises ConfigError for a policy that the driver has and this worker has not: sent, settings are not checked."""
    try:
        config.replace()
    except ConfigError as error:
        raise ConfigError(f"{error}; it is here, but not where a worker runs: install its package there, too") from None


def _explained(error: Exception) -> Exception:
    """An error to be sent; of a bug, its traceback too, which nobody there can look up."""
    if isinstance(error, EngineError | RSAError):
        return portable(error)
    return RuntimeError("a worker broke down:\n" + "".join(traceback.format_exception(error)))
