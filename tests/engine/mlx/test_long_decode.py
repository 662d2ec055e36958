"""15,000 steps of a small ZAYA1 model: memory grows by the KV cache alone, and no graph grows behind it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from scheduling import Driver, tiny, tokens

from engine.mlx.scheduler import Scheduler

STEPS = 15_000
LEAK_BYTES = 24_000_000
"""Of the process beyond the KV cache: attention's temporaries grow with the text (8 to 11 MB seen), as they do in a
run without end tokens of any engine. What MLX itself holds is checked to 0.2 MB."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc for the memory of the process")
def test_memory_stays_flat_over_15000_steps() -> None:
    driver = Driver(tiny(layers=1), max_rows=2)  # one layer: a leak would show, and time is short
    driver.submit([[5, 6, 7], [5, 6, 8]], max_tokens=STEPS)
    third = resident = step = 0

    def watch(scheduler: Scheduler) -> None:
        nonlocal third, resident, step
        if step == STEPS // 3:
            third, resident = active_beyond_kv(scheduler), resident_bytes() - kv_bytes(scheduler)
        if step == STEPS - 10:
            assert active_beyond_kv(scheduler) - third < 200_000
            assert resident_bytes() - kv_bytes(scheduler) - resident < LEAK_BYTES
        step += 1

    done = tokens(driver.run(watch))
    assert step > STEPS
    assert [len(each) for each in done] == [STEPS, STEPS]
    assert all(0 <= token < tiny(layers=1).args.vocab_size for token in done[0])


def kv_bytes(scheduler: Scheduler) -> int:
    return sum(cache.nbytes for cache in scheduler._batch._caches)


def active_beyond_kv(scheduler: Scheduler) -> int:
    mx.synchronize()
    return int(mx.get_active_memory()) - kv_bytes(scheduler)
