"""Two servers of one model, each a process: one is killed in the midst of its work, and comes back."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from stub_server.running import started

from engine.openai.opening import open_openai
from rsa import MarkovianRSA, read_events
from rsa.events import CandidateFinished, CandidateProgress

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]

SIZES: dict[str, Any] = {"n": 12, "c": 2, "t": 2, "beta": 400, "tau": 16, "answer_budget": 100, "seed": 4}
PACE = ("--tokens-per-s", 400)
PROBLEM = "What is 6 x 7?"


def port_of(url: str) -> str:
    return url.removesuffix("/v1").rpartition(":")[2]


def asked(url: str) -> int:
    """How many completions the server was asked for since it was started."""
    return int(httpx2.get(url.removesuffix("v1") + "stub", verify=False).json()["asked"])


async def test_a_run_on_two_servers_of_which_one_dies_and_comes_back(tmp_path: Path) -> None:
    with ExitStack() as stack, ExitStack() as first_life:
        steady = stack.enter_context(started(*PACE))
        mortal = first_life.enter_context(started(*PACE))
        opened = partial(open_openai, "tiny", backoff_s=0.01)
        engine = await anyio.to_thread.run_sync(partial(opened, base_url=[mortal, steady]))
        solver = MarkovianRSA(engine, progress_every_s=0.0, **SIZES)
        progress = finished = 0
        died = back = False
        async with solver.stream(PROBLEM, out=tmp_path / "run") as events:
            async for event in events:
                progress += isinstance(event, CandidateProgress)
                finished += isinstance(event, CandidateFinished)
                if progress == 50 and not died:
                    died, finished = True, 0
                    await anyio.to_thread.run_sync(first_life.close)  # kill -9
                if died and finished == 4 and not back:
                    back = True
                    again = partial(started, "--port", port_of(mortal), *PACE)
                    assert stack.enter_context(await anyio.to_thread.run_sync(again)) == mortal
        assert back
        assert asked(mortal) > 0, "it is given work again"
        await engine.aclose()
        quick = stack.enter_context(await anyio.to_thread.run_sync(started))
        alone = await anyio.to_thread.run_sync(partial(opened, base_url=quick))
        expected = await MarkovianRSA(alone, **SIZES).solve(PROBLEM)
        await alone.aclose()
    ends = [event.candidate for event in read_events(tmp_path / "run") if isinstance(event, CandidateFinished)]
    assert Counter((end.round, end.index) for end in ends) == {(t, i): 1 for t in range(3) for i in range(SIZES["n"])}
    assert {end.status for end in ends} == {"ok"}
    broken = 0
    for end in (end for end in ends if end.round == 0):  # those of later rounds have other parents
        unbroken = expected.rounds[0].candidates[end.index].completion
        assert end.completion
        assert unbroken
        kept = None
        for interruption in end.completion.interruptions:
            broken += 1
            kept = interruption.after_tokens if kept is None else kept
            assert mortal.removesuffix("/v1") in interruption.error
        assert end.completion.token_ids[:kept] == unbroken.token_ids[:kept]
    assert broken
