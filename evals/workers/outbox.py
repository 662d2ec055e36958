"""Messages of a worker on their way: put without waiting, sent in order, as many together as there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from evals.workers.messages import Message


class Outbox:
    """Use within `async with`; leaving it waits until everything is sent. Raises there what `post` raises.

    post  sends messages, in a thread; it may block.
    """

    def __init__(self, post: Callable[[list[Message]], None]) -> None:
        self._post = post
        self._waiting: list[Message] = []
        self._news = anyio.Event()
        self._closed = False
        self._trouble: Exception | None = None
        self._group: TaskGroup = anyio.create_task_group()

    def put(self, message: Message) -> None:
        """Send a message sooner or later."""
        self._waiting.append(message)
        self._news.set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._group.start_soon(self._send)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closed = True
        self._news.set()
        await self._group.__aexit__(None, None, None)
        if self._trouble is not None:
            raise self._trouble

    async def _send(self) -> None:
        while self._waiting or not self._closed:
            await self._news.wait()
            self._news = anyio.Event()
            messages, self._waiting = self._waiting, []
            try:
                if messages:
                    await anyio.to_thread.run_sync(self._post, messages)
            except Exception as error:
                self._trouble = error
                return
