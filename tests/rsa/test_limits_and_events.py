"""Limits end a run in an answer; events are the run, as it happens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from processes import run

import rsa
from engine.api import GenerationRequest, GenerationStream, Message
from engine.errors import EngineClosedError, OutOfMemoryError
from engine.scripted import Script, ScriptedEngine, ScriptedStream
from rsa import MarkovianRSA, NoCandidatesError, RSAConfig, RSAError, RunResult, rollouts
from rsa.events import (
    CandidateFinished,
    CandidateProgress,
    Event,
    LimitHit,
    RoundFinished,
    RoundStarted,
    RunFinished,
    event_from_json,
    event_to_json,
)
from rsa.limits import Hit, Meter
from rsa.rollouts import Rollout
from rsa.settings.config import Limits

pytestmark = pytest.mark.anyio
SMALL: dict[str, Any] = {"n": 4, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}
THOUGHTS = " ".join(str(number * number) for number in range(2000))  # a loop would be cut off as degenerate
ENDLESS = Script(reasoning=THOUGHTS, answer=r"\boxed{9}", never_ends=True)


def holder(engine: ScriptedEngine, **settings: Any) -> MarkovianRSA:
    return MarkovianRSA(engine, config=RSAConfig(**{**SMALL, **settings}), progress_every_s=0)


async def solve(engine: ScriptedEngine, **settings: Any) -> RunResult:
    return await holder(engine, **settings).solve("why?")


async def events_of(engine: ScriptedEngine, **settings: Any) -> list[Event]:
    async with holder(engine, **settings).stream("why?") as stream:
        return [event async for event in stream]


# ---- tokens


@pytest.mark.parametrize("total", [400, 1000, 3000])
async def test_a_token_limit_is_kept_and_answered(total: int) -> None:
    engine = ScriptedEngine(ENDLESS, tokens_per_step=1)
    result = await solve(engine, beta=5000, limits={"total_tokens": total})
    assert result.answer == "9"
    assert result.limits_hit == ("total_tokens",)
    assert result.stopped_because == "total_tokens"
    in_flight = 2 * 4  # one step of each candidate, and the forced tag
    assert result.usage.completion_tokens <= total + in_flight
    assert engine.concluded
    assert len(result.votes[0].candidates) == 4
    assert engine.active == 0


async def test_tokens_left_over_by_short_candidates_go_to_long_ones() -> None:
    def script(request: GenerationRequest) -> Script:
        return ENDLESS if request.id.endswith("3") else Script("short", r"\boxed{1}")

    result = await solve(ScriptedEngine(script, tokens_per_step=1), beta=5000, limits={"total_tokens": 1000})
    last = result.rounds[0].candidates[3].completion
    assert last is not None
    assert last.usage.reasoning_tokens > 800 > 1000 / 4


async def test_the_limit_cuts_answers_that_do_not_end() -> None:
    engine = ScriptedEngine(Script("thinking ", "word " * 500, never_ends=True), tokens_per_step=1)
    result = await solve(engine, beta=5000, answer_budget=5000, limits={"total_tokens": 500})
    assert result.answer is None
    assert result.rounds[-1].statuses == {"cancelled": 4}
    assert result.usage.completion_tokens <= 508
    hits = [(hit.limit, hit.action) for hit in await _limit_hits(engine, total=500)]
    assert hits == [("total_tokens", "conclude"), ("total_tokens", "cancel")]


async def _limit_hits(engine: ScriptedEngine, total: int) -> list[LimitHit]:
    events = await events_of(engine, beta=5000, answer_budget=5000, limits={"total_tokens": total})
    return [event for event in events if isinstance(event, LimitHit)]


async def test_a_complete_answer_of_a_cut_off_candidate_counts() -> None:
    script = Script("thinking ", r"\boxed{5} " + "and more " * 500, never_ends=True)
    result = await solve(
        ScriptedEngine(script, tokens_per_step=1), beta=5000, answer_budget=5000, limits={"total_tokens": 500}
    )
    assert (result.answer, result.rounds[-1].statuses) == ("5", {"cancelled": 4})


async def test_a_limit_that_only_the_last_aggregation_runs_into_is_why_the_run_ended() -> None:
    engine = ScriptedEngine(lambda r: ENDLESS if r.id == "select" else Script("abc", r"\boxed{5}"), tokens_per_step=1)
    result = await solve(engine, t=0, beta=5000, select="aggregate", limits={"total_tokens": 300})
    assert (result.answer, result.stopped_because, result.limits_hit) == ("9", "total_tokens", ("total_tokens",))


async def test_no_round_starts_without_tokens_for_it() -> None:
    engine = ScriptedEngine(Script("x" * 50, r"\boxed{2}"))
    result = await solve(engine, limits={"total_tokens": 300})
    assert (len(result.rounds), result.answer, result.stopped_because) == (1, "2", "total_tokens")
    assert result.rounds[0].statuses == {"ok": 4}
    assert not engine.concluded


async def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    result = await solve(ScriptedEngine(Script("abc", r"\boxed{2}")), limits={"total_tokens": "1M", "deadline_s": 999})
    assert (len(result.rounds), result.stopped_because, result.limits_hit) == (3, "finished", ())


async def test_the_prompt_limit_holds_for_every_prompt() -> None:
    engine = ScriptedEngine(ENDLESS)
    await solve(engine, beta=500, tau=400, limits={"prompt_tokens": 700})
    assert max(engine.tokenizer.prompt_tokens(request.messages) for request in engine.requests) <= 700


# ---- time: these runs never end by themselves, so the clock alone can end them


async def test_a_deadline_ends_in_an_answer() -> None:
    engine = ScriptedEngine(ENDLESS, hold=lambda request: True)
    result = await solve(engine, beta=10**9, limits={"deadline_s": 0.2})
    assert (result.answer, result.stopped_because, result.limits_hit) == ("9", "deadline_s", ("deadline_s",))
    assert len(engine.concluded) == 4
    assert result.timings.wall_s >= 0.17


class SilentStream(ScriptedStream):
    """Takes no notice of anybody."""

    def conclude(self, request_id: str, at: int = 0) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class SilentEngine(ScriptedEngine):
    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return SilentStream(self, requests)


async def test_an_engine_that_hangs_does_not_hang_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "CANCEL_GRACE_S", 0.05)
    engine = SilentEngine(lambda r: Script("a", r"\boxed{1}"), hold=lambda r: r.id in ("r0-c01", "r0-c02"))
    result = await solve(engine, limits={"deadline_s": 0.2})
    assert result.rounds[0].statuses == {"ok": 2, "cancelled": 2}
    assert (result.answer, result.stopped_because) == ("1", "deadline_s")
    assert engine.active == 0


class PatientListener:
    """Takes its time over limits."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def progressed(self, rollout: Rollout) -> None: ...

    async def finished(self, rollout: Rollout) -> None:
        self.told.append(rollout.status or "")

    async def limit_hit(self, hit: Hit, action: str) -> None:
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        self.told.append(action)


async def test_a_limit_is_told_to_the_end_though_the_last_candidate_ended_meanwhile() -> None:
    engine, listener = ScriptedEngine(Script("abc", r"\boxed{1}"), hold=lambda request: True), PatientListener()
    request = GenerationRequest(id="r0-c00", messages=(Message(role="user", text="why?"),))
    rollout = Rollout(round=0, kind="population", index=0, parents=(), request=request, started_s=0.0)
    meter = Meter(Limits(deadline_s=0.05), n=1, answer_budget=32)
    await rollouts.play(engine, [rollout], meter=meter, listener=listener, progress_every_s=1.0)
    assert listener.told == ["ok", "conclude"]


def test_a_candidate_that_repeated_itself_still_did_when_the_engine_begins_again() -> None:
    request = GenerationRequest(id="r0-c00", messages=(Message(role="user", text="why?"),))
    rollout = Rollout(round=0, kind="population", index=0, parents=(), request=request, started_s=0.0)
    for tokens, degenerate in ((100, False), (600, True), (3, True)):
        rollout.monitor.feed([7] * tokens)
        rollout.restart()
        assert rollout.monitor.degenerate == degenerate


# ---- events


async def test_the_events_of_a_run() -> None:
    engine = ScriptedEngine(lambda r: Script(f"in {r.id}", r"\boxed{1}"))
    events = await events_of(engine)
    kinds = [event.type for event in events if not isinstance(event, CandidateProgress)]
    one_round = ["round_started", *["candidate_started"] * 4, *["candidate_finished"] * 4, "round_finished"]
    assert kinds == ["run_started", *one_round * 3, "run_finished"]
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    last = events[-1]
    assert isinstance(last, RunFinished)
    finished = [event.candidate for event in events if isinstance(event, CandidateFinished)]
    assert [c for each in last.result.rounds for c in each.candidates] == sorted(
        finished, key=lambda c: (c.round, c.index)
    )
    progress = [event for event in events if isinstance(event, CandidateProgress)]
    assert {event.section for event in progress} == {"reasoning", "answer"}
    assert any("in r2-c03" in event.text for event in progress)


async def test_events_survive_json() -> None:
    trouble = ScriptedEngine(
        lambda r: Script("é漢", error=OutOfMemoryError("x")) if r.id == "r0-c00" else Script("é漢", r"\boxed{1}"),
        context_tokens=2000,
    )
    events = await events_of(trouble, beta=4000, stop="consensus:1", limits={"total_tokens": 100}, select="aggregate")
    assert {"budgets_lowered", "limit_hit", "run_finished"} <= {event.type for event in events}
    for event in events:
        assert event_from_json(event_to_json(event)) == event


async def test_rounds_do_not_overlap() -> None:
    engine = ScriptedEngine(Script("abc", r"\boxed{1}"), hold=lambda request: request.id == "r0-c02")
    seen: list[Event] = []

    async def read() -> None:
        async with holder(engine).stream("why?") as stream:
            seen.extend([event async for event in stream])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert len(engine.requests) == 4
        assert engine.active == 1
        engine.release()
    order = [(e.type, e.round) for e in seen if isinstance(e, RoundStarted | RoundFinished)]
    assert order == [(kind, number) for number in range(3) for kind in ("round_started", "round_finished")]


async def test_leaving_a_stream_early_frees_the_rows() -> None:
    engine = ScriptedEngine(ENDLESS)
    async with holder(engine, beta=10**9).stream("why?") as stream:
        async for event in stream:
            if isinstance(event, CandidateProgress):
                assert engine.active == 4
                break
    assert engine.active == 0


async def test_cancelling_a_solve_frees_the_rows() -> None:
    engine = ScriptedEngine(ENDLESS, hold=lambda request: True)
    async with anyio.create_task_group() as group:
        group.start_soon(holder(engine).solve, "why?")
        await anyio.wait_all_tasks_blocked()
        assert engine.active == 4
        group.cancel_scope.cancel()
    assert engine.active == 0


async def test_errors_come_as_themselves() -> None:
    broken = ScriptedEngine(Script("abc", error=OutOfMemoryError("x")))
    with pytest.raises(NoCandidatesError):
        await solve(broken)
    with pytest.raises(NoCandidatesError):
        await events_of(broken)
    await broken.aclose()
    with pytest.raises(EngineClosedError):
        await solve(broken)
    with pytest.raises(RSAError, match="enter the stream first"):
        await holder(broken).stream("why?").__anext__()


async def test_solve_sync_inside_an_event_loop_says_what_to_do() -> None:
    with pytest.raises(RSAError, match="await rsa"):
        holder(ScriptedEngine(ENDLESS)).solve_sync("why?")


# ---- the package


def test_solve_sync() -> None:
    engine = ScriptedEngine(Script("abc", r"\boxed{1}"))
    mine = holder(engine)
    assert mine.solve_sync("why?").answer == "1"
    assert mine.solve_sync("why?").answer == "1", "an engine of the caller's stays open"


def test_an_engine_opened_by_name_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[ScriptedEngine] = []

    def open_engine(name: str) -> ScriptedEngine:
        assert name == "nano"
        opened.append(ScriptedEngine(Script("abc", r"\boxed{1}")))
        return opened[-1]

    monkeypatch.setattr("rsa.compose.open_engine", open_engine)
    by_name = MarkovianRSA("nano", **SMALL)
    assert opened == []
    assert by_name.solve_sync("why?").answer == by_name.solve_sync("why?").answer == "1"
    assert len(opened) == 2
    assert all(engine._closed for engine in opened)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"engine": None}, "should be an engine or the name of a model"),
        ({"engine": 5}, "engine = 5: should be an engine"),
        ({"engine": "nano", "config": RSAConfig(), "profile": "light"}, "a config or a profile"),
        ({"engine": "nano", "sync": "no"}, "sync = 'no': should be one of candidate, round, end"),
        ({"engine": "nanoo"}, "did you mean 'nano'"),
        ({"engine": "nano", "bta": 3}, "did you mean 'beta'"),
    ],
)
def test_mistakes_at_construction(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(rsa.ConfigError, match=words):
        MarkovianRSA(**arguments)


def test_exported_names() -> None:
    for name in rsa.__all__:
        assert getattr(rsa, name).__name__ == name
    assert rsa.__all__ == sorted(rsa.__all__, key=lambda name: name)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = rsa.nothing_such


def test_importing_is_cheap() -> None:
    code = (
        "import sys; from rsa import MarkovianRSA; "
        "print(*{name.split('.')[0] for name in sys.modules} & {'mlx', 'mlx_lm', 'transformers', 'datasets', 'httpx2',"
        " 'jinja2', 'math_verify', 'sympy', 'numpy', 'huggingface_hub', 'rich', 'typer'})"
    )
    done = run([sys.executable, "-c", code], check=True)
    assert done.stdout.strip() == ""
