"""What tests of an engine do again and again: gather completions, and look on from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from engine.api import Completion, Engine, Failure, GenerationRequest
from engine.mlx.scheduler import Scheduler

T = TypeVar("T")


async def complete(engine: Engine, requests: Sequence[GenerationRequest]) -> list[Completion]:
    """The completions in the order of their requests; none may fail."""
    done: dict[str, Completion] = {}
    async with engine.generate(requests) as stream:
        async for event in stream:
            assert not isinstance(event, Failure), event
            if isinstance(event, Completion):
                done[event.request_id] = event
    return [done[r.id] for r in requests]


def same_likelihoods(one: Completion, other: Completion) -> bool:
    """Whether two completions of the same tokens say alike how likely those were, within rounding."""
    first, second = one.likelihoods, other.likelihoods
    if first is None or second is None:
        return first is second
    return first.log_probabilities == pytest.approx(second.log_probabilities, abs=1e-3) and first.entropies == (
        second.entropies and pytest.approx(second.entropies, abs=1e-3)
    )


def after_each_step(patch: pytest.MonkeyPatch, look: Callable[[Scheduler], T]) -> list[T]:
    """A list that grows by what `look` finds after every step of any scheduler, until the patch is undone."""
    found: list[T] = []
    step = Scheduler.step

    def watching(self: Scheduler) -> None:
        step(self)
        found.append(look(self))

    patch.setattr(Scheduler, "step", watching)
    return found


def rows(scheduler: Scheduler) -> int:
    """How many decode together."""
    return len(scheduler._batch.rows)
