"""What happens again and again, for any number of tasks that wait for it."""

from __future__ import annotations

import anyio


class News:
    """Something that happens again and again. Belongs to one event loop."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    @property
    def next(self) -> anyio.Event:
        """Set when it happens next. Who takes it before looking at what there is misses nothing meanwhile."""
        return self._next

    async def wait(self) -> None:
        """Until it happens next."""
        await self._next.wait()

    def tell(self) -> None:
        """It happens."""
        self._next.set()
        self._next = anyio.Event()
