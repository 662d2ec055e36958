"""`MarkovianRSA`: the object that people hold. The algorithm itself is `rsa.run.Run.solve`.

    async with MarkovianRSA("nano", n=4, t=1) as rsa:
        result = await rsa.solve("Start at 4, add 19, multiply by 4, subtract 20, all modulo 97.")
        async with rsa.stream("Add up these numbers: 48, 93, 120.") as events:
            async for event in events: ...

Where nothing is asynchronous, in as many threads as one likes:

    MarkovianRSA("nano", n=4, t=1).solve_sync("Make 24 from the numbers 3, 7, 5, 2.").answer
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, get_args

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortalProvider
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from engine.api import Engine
from engine.paths import path_named
from rsa.answers.checking import Checker
from rsa.answers.math_pool import MathWorkers
from rsa.budgets import plan
from rsa.errors import ConfigError, RSAError, RunFolderError, check_argument, is_options
from rsa.events import Event
from rsa.limits import FREE, Leave
from rsa.one_loop import OneLoop
from rsa.problem import Problem
from rsa.prompts import PromptSet, load_prompts
from rsa.results import RunResult
from rsa.run import Run
from rsa.run_record import RunRecord
from rsa.runlog import RunLog, Sync
from rsa.settings.config import RSAConfig
from rsa.settings.methods import load_method, with_method
from rsa.settings.suitability import suited
from rsa.telling import Send

EVENT_BUFFER = 64
"""Events a slow reader of a stream may lag behind before the run waits for it."""
LONG_CHARACTERS = 50_000
"""The length of a conversation from which on its tokens are counted in a thread, while the event loop goes on."""
_OF_THE_PROBLEM = ("images", "system", "earlier", "later", "tools", "problem_id")
"""Keywords that look like settings of a run, and belong to its `Problem`."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What one call asks for, checked."""

    problem: Problem
    config: RSAConfig
    out: Path | None
    resume: bool
    trust: bool
    leave: Leave


class MarkovianRSA:
    """Solves problems with Markovian RSA on one engine.

    engine            an engine, which stays the caller's to close; or the name of a model (see
                      `rsa.compose.open_engine`), opened on first use and closed by `aclose`.
    config            settings; or `profile` (a name or TOML file) and single settings as keywords:
                      `MarkovianRSA("nano", profile="light", t=1)`. Keywords also change a given config.
    method            the settings that go by a name: `vote`, `rsa`, ...; see `rsa.settings.methods`. Without one, and
                      unless `config`, `profile`, `t`, `stop` or `select` is given, it is `auto`: rounds of aggregation
                      help models that were trained to aggregate (`rsa.settings.suitability`), and with others they are
                      played only while nobody answers.
    engine_options    what opens an engine given by its model's name takes besides: `{"base_url": "http://..."}` for a
                      model behind a server; see `engine.openai.opening.open_openai`.
    progress_every_s  how often a candidate reports progress in `stream`, at most.
    math_workers      processes that compare answers, shared by all runs that are given them; they stay the caller's
                      to close. Without them each run has one of its own.
    sync              how much of a run's log a power cut may take; see `rsa.runlog.Sync`.

    Several runs may go on at once; they share the engine's batches. They are all of one event loop: while it has runs,
    another loop is refused. `solve_sync` may be called from any number of threads. Raises ConfigError.
    """

    def __init__(
        self,
        engine: Engine | str,
        *,
        config: RSAConfig | None = None,
        profile: str | Path | None = None,
        method: str | None = None,
        engine_options: Mapping[str, Any] | None = None,
        progress_every_s: float = 0.25,
        math_workers: MathWorkers | None = None,
        sync: Sync = "candidate",
        **settings: Any,
    ) -> None:
        check_argument(engine, isinstance(engine, str | Engine), "engine", "an engine or the name of a model")
        check_argument(config, config is None or isinstance(config, RSAConfig), "config", "an RSAConfig")
        check_argument(sync, sync in get_args(Sync), "sync", f"one of {', '.join(get_args(Sync))}")
        check_argument(engine_options, is_options(engine_options), "engine_options", "a mapping of options by name")
        check_argument(
            progress_every_s, _is_seconds(progress_every_s), "progress_every_s", "a number of seconds, 0 or more"
        )
        check_argument(
            math_workers, math_workers is None or isinstance(math_workers, MathWorkers), "math_workers", "MathWorkers"
        )
        if config is not None and profile is not None:
            raise ConfigError("give either a config or a profile, not both")
        if engine_options and not isinstance(engine, str):
            raise ConfigError("engine_options are for an engine given by the name of its model")
        self._model_name = engine if isinstance(engine, str) else None
        self._engine_options = dict(engine_options or {})
        self._engine = None if isinstance(engine, str) else engine
        self._loop = OneLoop()
        self._portals = BlockingPortalProvider()
        self._progress_every_s = progress_every_s
        self._math_workers = math_workers
        self._sync: Sync = sync
        self._prompts: dict[str, PromptSet] = {}
        self.config = _config(config, method, profile, settings, self._model_name)

    async def solve(
        self,
        problem: str | Problem,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        trust: bool = False,
        leave: Leave | None = None,
        **settings: Any,
    ) -> RunResult:
        """Solve one problem.

        problem   its text, or a `Problem`: a conversation, images, an id of its own.
        out       folder for the run log; it must not hold a run unless `resume` is true.
        resume    go on with the run in `out`, if there is one: what is in its log is not generated again.
        trust     with `resume`: what was changed in `out` since it was written is taken as it is, not refused; the
                  warnings of the result say so.
        leave     with `out`, how far it may go for now, where runs share a budget; see `rsa.limits.Leave`.
        settings  of this run alone, as `RSAConfig` has them: `seed=1`.

        Raises ProblemError, ConfigError, PromptError, RunFolderError (and its kinds), NoCandidatesError, PausedError
        where its leave ends, engine.errors.EngineError; RSAError while another event loop has runs.
        """
        return await self._run(self._order(problem, out, resume, trust, settings, leave))

    def stream(
        self,
        problem: str | Problem,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        trust: bool = False,
        leave: Leave | None = None,
        **settings: Any,
    ) -> EventStream:
        """The events of a run as they happen: `async with` it, then `async for`. Arguments as of `solve`.

        The last event is `RunFinished`. What `solve` would raise, reading raises; faults of the arguments are raised at
        once. Leaving the `async with` early cancels the run and its rows in the engine.
        """
        return EventStream(partial(self._run, self._order(problem, out, resume, trust, settings, leave)))

    def solve_sync(
        self,
        problem: str | Problem,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        trust: bool = False,
        **settings: Any,
    ) -> RunResult:
        """`solve` for code that is not asynchronous. Calls from several threads share the engine's batches. An engine
        opened by name is closed again when the last of them ends.

        Raises RSAError inside a running event loop: there, await `solve`.
        """
        if _in_event_loop():
            raise RSAError("an event loop is running here (a notebook?): use `await rsa.solve(...)`")
        order = self._order(problem, out, resume, trust, settings)

        async def main() -> RunResult:
            with self._loop.entered():  # until it is closed, no other loop may take the engine up
                try:
                    return await self._run(order)
                finally:
                    if self._loop.inside == 1:
                        await self.aclose()

        # One event loop for all threads that are here at the same time: an engine belongs to one.
        with self._portals as portal:
            running = portal.start_task_soon(main)
            try:
                return running.result()
            except BaseException:
                running.cancel()  # the wait may have been interrupted, by ^C; otherwise it has ended
                raise

    async def aclose(self) -> None:
        """Close the engine if it was opened by name. It opens again on the next use. Idempotent."""
        engine = self._engine
        if self._model_name is not None and engine is not None:
            self._engine = None
            await engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.aclose()

    def _order(
        self,
        problem: str | Problem,
        out: str | Path | None,
        resume: bool,
        trust: bool,
        settings: Mapping[str, Any],
        leave: Leave | None = None,
    ) -> _Order:
        if not isinstance(problem, Problem):
            problem = Problem(problem)
        if resume and out is None:
            raise ConfigError("resume needs the run's folder: give it as out")
        if trust and not resume:
            raise ConfigError("`trust` is for what a folder holds already: it goes with resume")
        check_argument(leave, leave is None or isinstance(leave, Leave), "leave", "a Leave")
        if leave is not None and out is None:
            raise ConfigError("leave needs the run's folder, where it goes on: give it as out")
        misplaced = [name for name in settings if name in _OF_THE_PROBLEM]
        if misplaced:
            raise ConfigError(f"{misplaced[0]} is no setting but part of the problem: give Problem(text, ...)")
        config = with_method(self.config, None, settings) if settings else self.config
        return _Order(
            problem,
            config.for_problem(images=bool(problem.images), tools=problem.takes_tools),
            None if out is None else path_named(out, RunFolderError),
            resume,
            trust,
            leave or FREE,
        )

    async def _run(self, order: _Order, send: Send | None = None) -> RunResult:
        with self._loop.entered():
            return await self._run_inside(order, send)

    async def _run_inside(self, order: _Order, send: Send | None) -> RunResult:
        problem, config = order.problem, order.config
        if config.task not in self._prompts:
            self._prompts[config.task] = load_prompts(config.task)
        prompts = self._prompts[config.task]
        engine = await self._open()
        config = suited(config, engine.model)
        if problem.images or problem.characters > LONG_CHARACTERS:  # decoding and encoding take a while
            budgets = await anyio.to_thread.run_sync(plan, engine, config, problem, prompts)
        else:
            budgets = plan(engine, config, problem, prompts)  # what cannot be run leaves no folder behind
        with ExitStack() as stack:
            log = None
            if order.out is not None:
                record = RunRecord.of(problem, config, engine.model, prompts)
                opening = partial(
                    RunLog.open,
                    order.out,
                    record,
                    problem,
                    resume=order.resume,
                    sync=self._sync,
                    trust=order.trust,
                )
                log = stack.enter_context(await anyio.to_thread.run_sync(opening))
            run = Run(
                engine,
                config,
                problem,
                prompts,
                budgets,
                log=log,
                send=send,
                progress_every_s=self._progress_every_s,
                math_workers=self._math_workers,
                checker=self._checker,
                leave=order.leave,
            )
            return await run.solve()

    @cached_property
    def _checker(self) -> Checker | None:
        """Of the model that the open engine runs."""
        from rsa.compose import checker_of

        assert self._engine is not None
        return checker_of(self._engine.model)

    async def _open(self) -> Engine:
        async with self._loop.lock:
            if self._engine is None:
                from rsa.compose import open_in_thread

                assert self._model_name is not None
                self._engine = await open_in_thread(self._model_name, **self._engine_options)
            return self._engine


class EventStream:
    """Events of one run: enter it, then iterate it once. Leaving it cancels what still runs."""

    def __init__(self, run: Callable[[Send], Coroutine[Any, Any, object]]) -> None:
        self._run = run
        self._group: TaskGroup | None = None
        self._events: MemoryObjectReceiveStream[Event] | None = None
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        send, self._events = anyio.create_memory_object_stream[Event](EVENT_BUFFER)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._produce, send)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        assert self._group is not None
        assert self._events is not None
        self._events.close()
        self._group.cancel_scope.cancel()
        # Only a cancellation is the group's business: any other error of the reader would come out wrapped.
        cancelled = isinstance(exc[1], anyio.get_cancelled_exc_class())
        # What it returns is not passed on: trio's would swallow the reader's error.
        await self._group.__aexit__(*(exc if cancelled else (None, None, None)))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._events is None:
            raise RSAError("enter the stream first: `async with rsa.stream(...) as events:`")
        try:
            return await self._events.receive()
        except anyio.EndOfStream:
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None

    async def _produce(self, send: MemoryObjectSendStream[Event]) -> None:
        async with send:
            try:
                await self._run(send.send)
            except Exception as error:
                # Raised to the reader, as itself: out of a task group it would come in an ExceptionGroup.
                self._error = error


def _is_seconds(given: object) -> bool:
    return isinstance(given, int | float) and 0 <= given < math.inf


def _config(
    config: RSAConfig | None,
    method: str | None,
    profile: str | Path | None,
    settings: Mapping[str, Any],
    model: str | None,
) -> RSAConfig:
    if config is not None:
        return with_method(config, method, settings)
    defaults: Mapping[str, Any] = {}
    if model is not None:
        from rsa.compose import model_settings

        defaults = model_settings(model)
    return load_method(method, profile, settings, defaults=defaults)


def _in_event_loop() -> bool:
    try:
        anyio.get_current_task()
    except Exception:
        return False
    return True
