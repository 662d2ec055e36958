"""A world without threads and real time: waiting costs nothing, and a run that stands still is found at once."""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar
from unittest import mock

import anyio
import anyio.to_thread
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

T = TypeVar("T")
Backend = Literal["asyncio", "trio"]


class StandsStillError(AssertionError):
    """Every task waits for something that nothing will bring about."""


class _Leaping(selectors.BaseSelector):
    """Nobody speaks to the loop from outside: instead of waiting, its clock leaps to the next timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._keys.setdefault(fileobj, selectors.SelectorKey(fileobj, fd, events, data))

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StandsStillError("every task waits, and no timer is set")
        self.now += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio on a clock of its own, which starts at 0."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


async def _in_place(function: Callable[..., T], *args: object, **options: object) -> T:
    """`anyio.to_thread.run_sync` without a thread: others have their turn before and after; it is never cut short."""
    await checkpoint()
    result = function(*args)
    await cancel_shielded_checkpoint()
    return result


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Threads and disks are waited for no longer: what a power cut takes is up to the story."""
    in_thread, sync = anyio.to_thread.run_sync, os.fsync
    anyio.to_thread.run_sync = _in_place  # type: ignore[assignment]
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        anyio.to_thread.run_sync, os.fsync = in_thread, sync


def run_leaping(main: Callable[[], Awaitable[T]], backend: Backend = "asyncio") -> T:
    """Run `main` on a clock that starts at 0 and leaps over all waiting; the same every time.

    Raises StandsStillError if nothing could ever happen again (on asyncio; trio would wait for ever).
    """
    with _without_waiting():
        if backend == "asyncio":
            return anyio.run(main, backend_options={"loop_factory": LeapingLoop})
        return _run_trio(main)


def _run_trio(main: Callable[[], Awaitable[T]]) -> T:
    from trio._core import _run
    from trio.testing import MockClock

    # Trio shuffles who is next, on purpose; this is how its own friends make it tell the same story twice.
    with mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        _run._r.seed(0)
        return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
