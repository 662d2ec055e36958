"""How fast a stub server writes: a step for all streams together, as a decoding batch takes them."""

from __future__ import annotations

import asyncio


class Pace:
    """Ticks for so many tokens a second, over all streams that wait for one.

    A tick that comes late is made up for by the next ones: the pace holds on average, as long as the machine can.
    """

    def __init__(self, tokens_per_s: float) -> None:
        self._tokens_per_s = tokens_per_s
        self._next_s = 0.0
        self._tick: asyncio.Event | None = None

    async def tick(self, streams: int) -> None:
        """Wait for the next step; `streams` share it."""
        loop = asyncio.get_running_loop()
        if self._tick is None:
            self._tick = asyncio.Event()
            now = loop.time()
            behind = now - self._next_s > 1.0  # it was idle: nothing to make up for
            self._next_s = (now if behind else self._next_s) + streams / self._tokens_per_s
            loop.call_at(max(now, self._next_s), self._strike)
        await self._tick.wait()

    def _strike(self) -> None:
        assert self._tick is not None
        self._tick.set()
        self._tick = None
