"""What happens again and again wakes all who wait for it, once each time."""

from __future__ import annotations

import anyio
import pytest

from rsa.news import News


@pytest.mark.anyio
async def test_all_who_wait_are_woken_each_time() -> None:
    news, woken = News(), 0

    async def wait() -> None:
        nonlocal woken
        for _ in range(2):
            await news.wait()
            woken += 1

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        for told in range(2):
            await anyio.wait_all_tasks_blocked()
            assert woken == 3 * told
            news.tell()
    assert woken == 6


@pytest.mark.anyio
async def test_who_takes_the_next_before_looking_misses_nothing() -> None:
    news = News()
    coming = news.next
    news.tell()
    assert coming.is_set()
    assert not news.next.is_set()
