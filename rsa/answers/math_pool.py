"""A bounded pool of processes that compare mathematical answers.

math-verify can hang, in ways that nothing but the end of its process stops.
Runs and scorers share one pool, so that a machine never runs more of them than it was given. What a comparison came
to is remembered, hangs included: the same two answers come again and again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from rsa.processes import python_environment

TIMEOUT_S = 5.0
"""Time limit of one comparison: sound ones take milliseconds, the slowest of 135 measured cases 1 s."""
START_TIMEOUT_S = 60.0
"""Time limit of a process to start: it imports math-verify, which takes seconds on a busy machine."""
MAX_FAILED_STARTS = 3
"""Failed starts in a row after which nothing is compared any more, instead of waiting for a process that never
comes."""
MAX_KNOWN = 4096
"""Comparisons remembered, of up to 2 x 2,048 characters each."""
Members = tuple[str, ...]
MAX_LINE_BYTES = 65_536
_BREAKDOWNS = (
    *(OSError, ValueError, KeyError, TypeError),
    *(anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.ClosedResourceError),
)
"""The errors that a process which dies or talks nonsense causes here."""


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What comparing two answers came to.

    undecided  nobody can tell within the limits; `why` says which limit. A vote takes it as different, a score says so.
    cause      of an undecided comparison: `looks` (refused unread), `hung`, `broke` (the process died) or `missing`
               (math-verify cannot be used).
    """

    outcome: Literal["same", "different", "undecided"]
    cause: Literal["looks", "hung", "broke", "missing"] | None = None
    why: str = ""

    @property
    def same(self) -> bool:
        return self.outcome == "same"


SAME, DIFFERENT = Equivalence("same"), Equivalence("different")


class _MissingError(Exception):
    """The process says that math-verify is not there."""


class _Worker:
    """One process, started by its first question. A question that does not end in a reply kills it."""

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._process: Process | None = None
        self._replies: BufferedByteReceiveStream | None = None

    async def start(self) -> None:
        """Raises _MissingError, TimeoutError, or one of _BREAKDOWNS. No effect if it runs."""
        if self._process is not None and self._process.returncode is None:
            return
        await self.kill()  # it may have died while nobody asked it
        try:
            self._process = await anyio.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=python_environment(),
            )
            assert self._process.stdout is not None
            self._replies = BufferedByteReceiveStream(self._process.stdout)
            with anyio.fail_after(START_TIMEOUT_S):
                hello = await self._read()
            if not hello["ready"]:
                raise _MissingError(str(hello["why"]))
        except BaseException:
            await self.kill()
            raise

    async def ask(self, left: Members, right: Members, ordered: bool) -> bool:
        """Whether they are the same. Raises TimeoutError when it takes too long, or one of _BREAKDOWNS."""
        assert self._process is not None
        assert self._process.stdin is not None
        question = json.dumps({"left": left, "right": right, "ordered": ordered}).encode() + b"\n"
        try:
            with anyio.fail_after(self._timeout_s):
                await self._process.stdin.send(question)
                return bool((await self._read())["same"])
        except BaseException:
            # Cancelled in the middle of a question, too: its reply must not be taken for the next one's.
            await self.kill()
            raise

    async def kill(self) -> None:
        process, self._process, self._replies = self._process, None, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()

    async def _read(self) -> dict[str, Any]:
        assert self._replies is not None
        reply: dict[str, Any] = json.loads(await self._replies.receive_until(b"\n", MAX_LINE_BYTES))
        return reply


class MathWorkers:
    """At most `processes` processes that compare answers; more questions wait their turn. Use within `async with`.

    A process starts with the first question that finds none idle, and is killed when a question takes longer than
    `timeout_s`; the next question starts another. Leaving the `async with` ends them all. Belongs to one event loop.
    """

    def __init__(
        self, processes: int = 2, *, timeout_s: float = TIMEOUT_S, command: Sequence[str] | None = None
    ) -> None:
        if processes < 1:
            raise ValueError(f"processes is {processes}; it must be at least 1")
        self.processes = processes
        self.timeout_s = timeout_s
        self._command = list(command or [sys.executable, "-P", "-m", "rsa.answers.math_worker"])
        self._turns = anyio.Semaphore(processes)
        self._workers = [_Worker(self._command, timeout_s) for _ in range(processes)]
        self._idle = list(reversed(self._workers))  # a stack: those that run are taken before those that do not
        self._known: OrderedDict[tuple[Members, Members, bool], Equivalence] = OrderedDict()
        self._failed_starts = 0
        self._unusable: Equivalence | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the processes; a question that comes later starts one again. Idempotent."""
        for worker in self._workers:
            await worker.kill()

    async def compare(self, left: Members, right: Members, *, ordered: bool = True) -> Equivalence:
        """Whether math-verify takes the members of two tuples for the same, or, not `ordered`, those of two sets.

        A single answer is a tuple of one. One limit of time holds for all members. Never raises for a text, however
        hostile.
        """
        key = (left, right, ordered)
        known = self._recall(key)
        if known is not None:
            return known
        async with self._turns:
            if self._unusable is not None:
                return self._unusable
            worker = self._idle.pop()
            try:
                found = await self._ask(worker, *key)
            finally:
                self._idle.append(worker)
        if found.cause not in ("broke", "missing"):
            self._remember(key, found)
        return found

    async def _ask(self, worker: _Worker, left: Members, right: Members, ordered: bool) -> Equivalence:
        try:
            await worker.start()
        except _MissingError as error:
            self._unusable = Equivalence("undecided", "missing", f"math-verify cannot be used ({error})")
            return self._unusable
        except (TimeoutError, *_BREAKDOWNS) as error:
            return self._failed_to_start(error)
        self._failed_starts = 0
        try:
            return SAME if await worker.ask(left, right, ordered) else DIFFERENT
        except TimeoutError:
            return Equivalence("undecided", "hung", f"it took too long to compare (over {self.timeout_s:g} s)")
        except _BREAKDOWNS as error:
            return Equivalence("undecided", "broke", f"the process that compares broke down ({type(error).__name__})")

    def _failed_to_start(self, error: Exception) -> Equivalence:
        self._failed_starts += 1
        why = f"the process that compares does not start: {error or type(error).__name__}"
        failed = Equivalence("undecided", "missing", why)
        if self._failed_starts >= MAX_FAILED_STARTS:
            self._unusable = failed
        return failed

    def _recall(self, key: tuple[Members, Members, bool]) -> Equivalence | None:
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, key: tuple[Members, Members, bool], found: Equivalence) -> None:
        self._known[key] = found
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
