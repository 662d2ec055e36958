"""One MarkovianRSA in several threads, and in one event loop after another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, RSAError, RunResult

SMALL: dict[str, Any] = {"n": 2, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 32}
THREADS = 4
PROBLEMS = [f"problem {number}" for number in range(3 * THREADS)]


def script(request: GenerationRequest) -> Script:
    return Script(f"in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}")


def texts(result: RunResult) -> list[str]:
    return [c.completion.text for played in result.rounds for c in played.candidates if c.completion]


class Opened:
    """Stands for `open_engine`: the engines that a name was turned into."""

    def __init__(self, script: Callable[[GenerationRequest], Script] = script) -> None:
        self.engines: list[ScriptedEngine] = []
        self.script = script

    def __call__(self, name: str) -> ScriptedEngine:
        self.engines.append(ScriptedEngine(self.script))
        return self.engines[-1]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened = Opened()
    monkeypatch.setattr("rsa.compose.open_engine", opened)
    return opened


def test_threads_that_share_one_object_get_what_each_would_get_alone(opened: Opened) -> None:
    rsa = MarkovianRSA("nano", **SMALL)
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(rsa.solve_sync, PROBLEMS))
    assert all(engine._closed for engine in opened.engines)
    alone = [MarkovianRSA(ScriptedEngine(script), **SMALL).solve_sync(problem) for problem in PROBLEMS]
    assert [texts(result) for result in together] == [texts(result) for result in alone]


def test_threads_share_the_rows_of_one_engine() -> None:
    """Each run waits in its thread until all are there: together they are in one batch."""
    everyone = threading.Barrier(THREADS)
    engine = ScriptedEngine(script, hold=lambda request: True)
    rsa = MarkovianRSA(engine, **{**SMALL, "t": 0})

    def solve(problem: str) -> RunResult:
        everyone.wait()
        return rsa.solve_sync(problem)

    async def release_when_all_wait() -> None:
        while engine.active < 2 * THREADS:
            await anyio.lowlevel.checkpoint()
        engine.release()

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(solve, problem) for problem in PROBLEMS[:THREADS]]
        with rsa._portals as portal:
            portal.call(release_when_all_wait)
        assert all(each.result().answer is not None for each in running)
    assert engine.max_active == 2 * THREADS


def test_a_thread_whose_run_fails_disturbs_no_other(opened: Opened) -> None:
    def some_fail(request: GenerationRequest) -> Script:
        if "problem 1" in request.messages[-1].text:
            raise RSAError("this one fails")
        return script(request)

    opened.script = some_fail
    rsa = MarkovianRSA("nano", **SMALL)
    with ThreadPoolExecutor(THREADS) as pool:
        running = {problem: pool.submit(rsa.solve_sync, problem) for problem in PROBLEMS}
    failed = {problem for problem, each in running.items() if each.exception() is not None}
    assert failed == {problem for problem in PROBLEMS if problem.startswith("problem 1")}
    assert all(engine._closed for engine in opened.engines)


def test_a_second_event_loop_is_refused_at_once_while_the_first_has_runs() -> None:
    engine = ScriptedEngine(script, hold=lambda request: True)
    rsa = MarkovianRSA(engine, **SMALL)

    async def first() -> RunResult:
        async with rsa.stream("why?") as events:
            async for event in events:
                if event.type == "candidate_started":
                    break
            for other in (lambda: rsa.solve_sync("how?"), lambda: anyio.run(rsa.solve, "how?", backend="trio")):
                with pytest.raises(RSAError, match="at work in another event loop: give each loop one of its own"):
                    await anyio.to_thread.run_sync(other)
        engine.release()
        return await rsa.solve("why?")

    assert anyio.run(first).answer is not None
    assert rsa.solve_sync("how?").answer is not None, "the loop is free again"


@pytest.mark.parametrize("order", [("asyncio", "trio", "asyncio"), ("trio", "asyncio", "trio")])
def test_one_object_serves_one_event_loop_after_another(opened: Opened, order: tuple[str, ...]) -> None:
    rsa = MarkovianRSA("nano", **SMALL)

    async def two_at_once() -> list[RunResult]:
        results: list[RunResult] = []

        async def solve(problem: str) -> None:
            results.append(await rsa.solve(problem))

        async with anyio.create_task_group() as group:
            group.start_soon(solve, "why?")
            group.start_soon(solve, "how?")
        return results

    for backend in order:
        assert len(anyio.run(two_at_once, backend=backend)) == 2
    assert rsa.solve_sync("why?").answer is not None
    assert len(opened.engines) == 1


def test_an_interrupted_wait_cancels_its_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """^C comes out of the wait for the result: here the wait itself raises it, when both runs hold their rows."""
    engine = ScriptedEngine(script, hold=lambda request: True)
    rsa = MarkovianRSA(engine, **SMALL)
    with ThreadPoolExecutor(1) as pool, rsa._portals as portal:
        other = pool.submit(rsa.solve_sync, "why?")

        async def until(rows: int) -> None:
            while engine.active != rows:
                await anyio.lowlevel.checkpoint()

        portal.call(until, 2)
        start = portal.start_task_soon

        def interrupted(task: Callable[..., Any], *args: Any) -> Any:
            future = start(task, *args)

            def result(timeout: float | None = None) -> Any:
                start(until, 4).result()  # `portal.call` would come here again
                raise KeyboardInterrupt

            monkeypatch.setattr(future, "result", result)
            return future

        monkeypatch.setattr(portal, "start_task_soon", interrupted)
        try:
            with pytest.raises(KeyboardInterrupt):
                rsa.solve_sync("how?")
            monkeypatch.undo()
            portal.call(until, 2)
        finally:  # else the other thread would be waited for without an end
            monkeypatch.undo()
            portal.call(engine.release)  # in its own loop: from here it would wake nobody who sleeps there
        assert other.result().answer is not None
