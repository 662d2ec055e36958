"""Carries events from a worker thread to one event loop, asyncio's or trio's."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

_RUN = 64
"""Items that a task takes before it lets others run: a turn of the event loop costs ten times as much as an item."""


def _loop_caller() -> Callable[[Callable[[], object]], object]:
    """A function that, from any thread, has the running event loop call something soon."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:  # no asyncio here, so it is trio
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon


class Mailbox(Generic[T]):
    """A queue that one thread puts into and one task takes from, without blocking either.

    Make it inside the event loop that will read it. It is unbounded: what fills it is bounded by token budgets.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()  # its append and popleft are atomic
        self._call_soon = _loop_caller()
        self._wake = anyio.Event()
        self._wake_is_due = False
        self._taken = 0  # since others ran

    def put(self, item: T) -> None:
        """Add an item; callable from any thread. Items for a loop that is gone are dropped."""
        self.add(item)
        self.notify()

    def add(self, item: T) -> None:
        """Add an item without waking the reader: `notify` must follow."""
        self._items.append(item)

    def notify(self) -> None:
        """Wake the reader, who takes what was added. Once for many items: it wakes at once, and then has Python's lock
        while the thread that puts would go on."""
        if not self._wake_is_due:
            self._wake_is_due = True
            with contextlib.suppress(Exception):  # RuntimeError (asyncio), trio.RunFinishedError: the loop has ended
                self._call_soon(self._wake_up)

    async def get(self) -> T:
        """Take the next item, waiting for it if need be."""
        while not self._items:
            self._taken = 0
            self._wake = anyio.Event()
            await self._wake.wait()
        if self._taken == 0:
            await anyio.lowlevel.checkpoint()
        self._taken = (self._taken + 1) % _RUN
        return self._items.popleft()

    def _wake_up(self) -> None:
        self._wake_is_due = False
        self._wake.set()
