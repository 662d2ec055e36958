"""What belongs to one event loop at a time: a second one is refused at once instead of waiting for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.lowlevel import RunVar

from rsa.errors import RSAError

_LOOP: RunVar[object] = RunVar("rsa.one_loop")
"""Holds an object of its own in each event loop, asyncio's or trio's: by it loops are told apart."""


class OneLoop:
    """A place that many tasks of one event loop may be inside together, and after them those of another loop.

    inside  how many tasks are.
    lock    for those inside to share; it is made for their loop.
    """

    def __init__(self) -> None:
        self.inside = 0
        self.lock: anyio.Lock
        self._loop: object = None
        self._guard = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside. Raises RSAError while another event loop is."""
        loop = _running_loop()
        with self._guard:
            if self.inside and loop is not self._loop:
                raise RSAError(
                    "this MarkovianRSA is at work in another event loop: give each loop one of its own, or call "
                    "solve_sync in threads, which may share one"
                )
            if not self.inside:
                self._loop, self.lock = loop, anyio.Lock()
            self.inside += 1
        try:
            yield
        finally:
            with self._guard:
                self.inside -= 1


def _running_loop() -> object:
    try:
        return _LOOP.get()
    except LookupError:
        mark = object()
        _LOOP.set(mark)
        return mark
