"""Slots go to who came first, in whatever order they come to wait, and whoever gives up in between."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from engine.openai.slots import Slots, Turn


@given(count=st.integers(1, 3), order=st.permutations(range(8)), given_up=st.sets(st.integers(0, 7)))
def test_who_came_first_is_first(count: int, order: list[int], given_up: set[int]) -> None:
    served: list[int] = []
    inside = most = 0

    async def serve(number: int, turn: Turn) -> None:
        nonlocal inside, most
        with anyio.CancelScope() as scope:
            if number in given_up:
                scope.cancel()
            async with turn:
                served.append(number)
                inside += 1
                most = max(most, inside)
                await anyio.lowlevel.checkpoint()
                inside -= 1

    async def main() -> None:
        slots = Slots(count)
        turns = [slots.turn() for _ in range(8)]
        async with anyio.create_task_group() as group:
            for number in order:
                group.start_soon(serve, number, turns[number])
        async with slots.turn():
            served.append(8)

    anyio.run(main, backend="trio")
    patient = [number for number in range(8) if number not in given_up]
    assert served[-1] == 8, "every slot was given back"
    assert sorted(served[:-1]) == patient
    assert most <= count
    if count == 1:
        assert served[:-1] == patient
