"""A run that goes as far as it has leave to: where it pauses changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import ConfigError, MarkovianRSA, RSAConfig, RunResult
from rsa.errors import PausedError
from rsa.events import LimitHit
from rsa.limits import Hit, Leave, Meter
from rsa.runlog import read_events
from rsa.settings.config import Limits

pytestmark = pytest.mark.anyio
SMALL: dict[str, Any] = {"n": 4, "c": 2, "t": 3, "beta": 64, "tau": 16, "answer_budget": 32, "answers": "every"}
SPENT = Hit("set_tokens", 900, 1000)


def script(request: GenerationRequest) -> Script:
    return Script(f"in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}")


async def solve(engine: ScriptedEngine, out: Path, leave: Leave | None = None, **settings: Any) -> RunResult:
    rsa = MarkovianRSA(engine, config=RSAConfig(**{**SMALL, **settings}))
    return await rsa.solve("why?", out=out, resume=True, leave=leave)


async def paused(engine: ScriptedEngine, out: Path, rounds: int, **settings: Any) -> PausedError:
    with pytest.raises(PausedError, match=f"waits for leave to play round {rounds}") as info:
        await solve(engine, out, Leave(rounds), **settings)
    return info.value


def told(result: RunResult) -> dict[str, Any]:
    """Everything that depends on no clock."""
    candidates: Any = {"candidates": {"__all__": {"started_s", "finished_s"}}, "started_s": True, "finished_s": True}
    without: Any = {"timings": True, "rounds": {"__all__": candidates}, "selection": candidates}
    return result.model_dump(exclude=without)


@pytest.mark.parametrize("settings", [{}, {"select": "aggregate"}, {"c": 1}])
async def test_a_run_that_pauses_after_every_round_is_the_run_that_does_not(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    engine, other = ScriptedEngine(script), ScriptedEngine(script)
    for rounds in (1, 2, 2, 3):  # asked twice, it waits at the same place
        pause = await paused(engine, tmp_path / "pausing", rounds, **settings)
        assert [played.round for played in pause.rounds] == list(range(rounds))
        assert not (tmp_path / "pausing" / "result.json").exists()
    result = await solve(engine, tmp_path / "pausing", Leave(4), **settings)
    assert told(result) == told(await solve(other, tmp_path / "unbroken", **settings))
    assert result.stopped_because == "finished"
    assert [request.id for request in engine.requests] == [request.id for request in other.requests], "none twice"


async def test_a_run_ends_where_what_it_shares_is_spent(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    pause = await paused(engine, tmp_path, 2)
    result = await solve(engine, tmp_path, Leave(2, over=SPENT))
    assert (result.stopped_because, result.limits_hit) == ("set_tokens", ("set_tokens",))
    assert (result.answer, result.answered_from_round) == (pause.rounds[1].votes[0].answer, 1)
    (hit,) = [event for event in read_events(tmp_path) if isinstance(event, LimitHit)]
    assert (hit.round, hit.action, hit.used, hit.allowed) == (1, "no_new_round", 900, 1000)
    again = await solve(engine, tmp_path)
    assert again == result, "it has ended"


@pytest.mark.parametrize(("settings", "reason"), [({"stop": "consensus:.25"}, "policy"), ({"t": 0}, "finished")])
async def test_a_run_that_is_at_its_end_does_not_wait(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    assert (await solve(ScriptedEngine(script), tmp_path, Leave(1), **settings)).stopped_because == reason


async def test_the_deadline_of_the_set_is_as_the_runs_own(tmp_path: Path) -> None:
    endless = Script(" ".join(str(number**2) for number in range(2000)), r"\boxed{9}", never_ends=True)
    engine = ScriptedEngine(endless, hold=lambda request: True)
    result = await solve(engine, tmp_path, Leave(left_s=0.1, allowed_s=0.1), beta=10**9, limits={"deadline_s": 999})
    assert (result.answer, result.stopped_because) == ("9", "set_deadline_s")
    assert len(engine.concluded) == 4
    late = await solve(ScriptedEngine(script), tmp_path / "late", Leave(left_s=-5.0, allowed_s=60.0))
    assert (len(late.rounds), late.stopped_because) == (1, "set_deadline_s")


CASES = [
    (Limits(deadline_s=60), Leave(left_s=100, allowed_s=1000), "deadline_s"),
    (Limits(deadline_s=60), Leave(left_s=50, allowed_s=1000), "set_deadline_s"),
    (Limits(), Leave(left_s=50, allowed_s=1000), "set_deadline_s"),
    (Limits(deadline_s=60), Leave(), "deadline_s"),
]


@pytest.mark.parametrize(("limits", "leave", "first"), CASES)
async def test_of_two_deadlines_the_first_holds(limits: Limits, leave: Leave, first: str) -> None:
    meter = Meter(limits, n=1, answer_budget=8, leave=leave)
    assert meter.time_hit().limit == first
    assert leave.no_time == (leave.left_s in {50, 100}), "of a long time two minutes are for answers"


async def test_leave_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="leave needs the run's folder"):
        await MarkovianRSA(ScriptedEngine(script)).solve("why?", leave=Leave(1))
    with pytest.raises(ConfigError, match="leave = 3: should be a Leave"):
        await MarkovianRSA(ScriptedEngine(script)).solve("why?", leave=3)  # type: ignore[arg-type]
