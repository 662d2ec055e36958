"""15,000 steps of a small ZAYA1 model: memory grows by the KV cache alone, and no graph grows behind it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from engine.api import Completion, EngineEvent, GenerationRequest, Message, SamplingParams
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.model import Model
from engine.mlx.row import Row
from engine.mlx.scheduler import Scheduler
from engine.mlx.tokenizer import ChatTokenizer

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
STEPS = 15_000
LEAK_BYTES = 24_000_000
"""Of the process beyond the KV cache: attention's temporaries grow with the text (8 to 11 MB seen), as they do in a
run without end tokens of any engine. What MLX itself holds is checked to 0.2 MB."""


class Untokenized(ChatTokenizer):
    """Nothing ends a completion but its budget."""

    def __init__(self) -> None:
        self.end_ids = frozenset()
        self.think_open = self.think_close = ()

    def decode_exactly(self, token_ids: object) -> str:
        return ""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc for the memory of the process")
def test_memory_stays_flat_over_15000_steps() -> None:
    config = json.loads((GOLDEN / "tiny_hf" / "config.json").read_text())
    args = ModelArgs.from_dict({**config, "num_hidden_layers": 1})  # one layer: a leak would show, and time is short
    model = Model(args)
    scheduler = Scheduler(model, max_rows=2, kv_bytes=1 << 30, prefill_chunk=64, context_tokens=None)
    events: list[EngineEvent] = []
    for i in range(2):
        request = GenerationRequest(
            id=str(i),
            messages=(Message(role="user", text="?"),),
            sampling=SamplingParams(seed=i, max_tokens=STEPS),
        )
        scheduler.submit([Row(request, [5, 6, 7 + i], Untokenized(), emit=events.append)])
    third = resident = 0
    for step in range(STEPS + 1):
        scheduler.step()
        if step == STEPS // 3:
            third, resident = active_beyond_kv(scheduler), resident_bytes() - kv_bytes(scheduler)
        if step == STEPS - 10:
            assert active_beyond_kv(scheduler) - third < 200_000
            assert resident_bytes() - kv_bytes(scheduler) - resident < LEAK_BYTES
    while not scheduler.idle:
        scheduler.step()
    done = [event for event in events if isinstance(event, Completion)]
    assert [completion.usage.completion_tokens for completion in done] == [STEPS, STEPS]
    assert all(0 <= token < args.vocab_size for token in done[0].token_ids)


def kv_bytes(scheduler: Scheduler) -> int:
    return sum(cache.nbytes for cache in scheduler._batch._caches)


def active_beyond_kv(scheduler: Scheduler) -> int:
    mx.synchronize()
    return int(mx.get_active_memory()) - kv_bytes(scheduler)
