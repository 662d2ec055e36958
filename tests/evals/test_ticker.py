"""What is done again and again beside whatever else goes on. No test waits for time to pass."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, current_thread, main_thread

import pytest

from evals.ticker import Ticker

HOUR_S = 3600.0


def test_it_goes_on_until_it_is_to_end() -> None:
    waited: list[float] = []
    threads = []

    def tick() -> float:
        threads.append(current_thread())
        return float(len(threads))

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) == 3

    with Ticker(tick, wait):
        pass
    assert waited == [1.0, 2.0, 3.0]
    assert main_thread() not in threads


@pytest.mark.timeout(30)
def test_leaving_it_ends_it_however_long_it_would_have_waited() -> None:
    ticked = Event()

    def tick() -> float:
        ticked.set()
        return HOUR_S

    with Ticker(tick) as ticker:
        assert ticked.wait(20)
    assert not ticker._thread.is_alive()


def closed() -> float:
    raise ValueError("I/O operation on closed file")


def full() -> float:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("tick", [closed, full])
def test_where_nobody_can_be_told_it_ends(tick: Callable[[], float]) -> None:
    waited: list[float] = []
    with Ticker(tick, lambda seconds: waited.append(seconds) is None):
        pass
    assert waited == []
