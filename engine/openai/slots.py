"""How many requests go on at once: the others wait in the order in which they came."""

from __future__ import annotations

from collections import deque
from typing import Self

import anyio


class Slots:
    """So many slots. A place in the line is taken by `Slots.turn`, whenever its owner comes to wait for it: an event
    loop may start tasks in any order."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[Turn] = deque()

    def turn(self) -> Turn:
        """A place behind all others; its owner must enter it."""
        turn = Turn(self)
        self._line.append(turn)
        self._call()
        return turn

    def _call(self) -> None:
        while self._free > 0 and self._line:
            self._free -= 1
            self._line.popleft().called.set()

    def _leave(self, turn: Turn) -> None:
        if turn.called.is_set():
            self._free += 1
            self._call()
        else:
            self._line.remove(turn)


class Turn:
    """`async with` it: what is inside waits for a slot and holds it. Who is cancelled as it waits leaves the line."""

    def __init__(self, slots: Slots) -> None:
        self.called = anyio.Event()
        self._slots = slots

    async def __aenter__(self) -> Self:
        try:
            await self.called.wait()
        except BaseException:
            self._slots._leave(self)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._slots._leave(self)
