"""Thousands of steps of a small ZAYA1 model: memory grows by the KV cache alone, and no graph grows behind it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from scheduling import Driver, tiny, tokens

from engine.mlx.scheduler import Scheduler

LEAK_BYTES = 6_000_000
LEAK_BYTES_PER_STEP = 1_200
"""Of the process beyond the KV cache and what MLX has freed and keeps: attention's temporaries grow with the text, as
they do in a run without end tokens of any engine. Who kept the graph of a step would keep tens of kilobytes a step."""


def resident_bytes() -> int:
    mx.synchronize()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") - int(mx.get_cache_memory())


@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc for the memory of the process")
@pytest.mark.parametrize("steps", [2_000, pytest.param(15_000, marks=pytest.mark.slow)])
def test_memory_stays_flat(steps: int) -> None:
    driver = Driver(tiny(layers=1), max_rows=2)  # one layer: a leak would show, and time is short
    driver.submit([[5, 6, 7], [5, 6, 8]], max_tokens=steps)
    third = resident = step = 0

    def watch(scheduler: Scheduler) -> None:
        nonlocal third, resident, step
        if step == steps // 3:
            third, resident = active_beyond_kv(scheduler), resident_bytes() - kv_bytes(scheduler)
        if step == steps - 10:
            assert active_beyond_kv(scheduler) - third < 200_000
            assert resident_bytes() - kv_bytes(scheduler) - resident < LEAK_BYTES + LEAK_BYTES_PER_STEP * steps
        step += 1

    done = tokens(driver.run(watch))
    assert step > steps
    assert [len(each) for each in done] == [steps, steps]
    assert all(0 <= token < tiny(layers=1).args.vocab_size for token in done[0])


def kv_bytes(scheduler: Scheduler) -> int:
    return sum(cache.nbytes for cache in scheduler._batch._caches)


def active_beyond_kv(scheduler: Scheduler) -> int:
    mx.synchronize()
    return int(mx.get_active_memory()) - kv_bytes(scheduler)
