"""Memory for caches: what rows, prompts that wait and beginnings take together is never more than there is."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import Driver, tiny, tokens

from engine.mlx.memory import CacheCost
from engine.mlx.scheduler import Scheduler

COST = CacheCost.of(tiny())


def taken(scheduler: Scheduler) -> int:
    """Bytes of all that decodes, waits and may come again."""
    waiting = sum(group.prefill.nbytes for group in scheduler._queue)
    rows = COST.of_rows(map(scheduler._likely_tokens, scheduler._batch.rows))
    return rows + waiting + scheduler._prefiller.prefixes.nbytes


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=4),
    candidates=st.integers(1, 3),
    rows=st.integers(1, 5),
    extra=st.floats(0, 1),
)
def test_prompts_that_wait_are_counted(lengths: Sequence[int], candidates: int, rows: int, extra: float) -> None:
    """Prompts that share a pass, with several candidates each, where there is room for a few rows."""
    prompts = [[i, *range(3, 1 + length), i] for i, length in enumerate(lengths, 1)]
    budget = {"max_tokens": 5}
    whole = Driver(tiny())
    whole.submit(prompts * candidates, **budget)
    longest = max(lengths) + budget["max_tokens"]
    kv_bytes = int(COST.of_rows([longest] * rows) + extra * COST.of_rows([longest]))
    tight = Driver(tiny(), kv_bytes=kv_bytes)
    tight.submit(prompts * candidates, **budget)
    most: list[int] = []
    assert tokens(tight.run(lambda scheduler: most.append(taken(scheduler)))) == tokens(whole.run())
    assert max(most) <= kv_bytes
