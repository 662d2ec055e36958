"""`/v1/runs`: events for any number of followers, live and afterwards, from any place; runs stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from sealed import rewrite
from serving import Serving, chat_body, serving

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import read_events
from rsa.events import event_to_json
from rsa.folders import lock_folder

RSA: dict[str, Any] = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 2, "c": 2}, "seed": 5}
pytestmark = pytest.mark.anyio


def script(request: GenerationRequest) -> Script:
    return Script(reasoning=f"{request.id} thinks of it", answer=r"\boxed{4}")


def engine() -> ScriptedEngine:
    return ScriptedEngine(script)


async def sse(server: Serving, path: str, **headers: str) -> list[tuple[str | None, str, Any]]:
    """The events of a stream: id, name, data."""
    found: list[tuple[str | None, str, Any]] = []
    fields: dict[str, str] = {}
    async with server.client.stream("GET", path, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            name, colon, value = line.partition(": ")
            if name and colon:
                fields[name] = value
            elif fields:
                found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
                fields = {}
    return found


def logged(events: list[tuple[str | None, str, Any]]) -> list[tuple[str | None, str, Any]]:
    """Without progress, and without the end."""
    return [each for each in events if each[0] is not None]


async def test_events_are_the_same_live_and_afterwards_and_from_any_place(tmp_path: Path) -> None:
    held = ScriptedEngine(script, hold=lambda request: True)
    followed: list[list[tuple[str | None, str, Any]]] = []

    async with serving(lambda: held, tmp_path) as server:

        async def follow(run_id: str) -> None:
            followed.append(await sse(server, f"/v1/runs/{run_id}/events"))

        async with anyio.create_task_group() as group:
            group.start_soon(server.chat_of, RSA)
            run_id = (await server.run_that_runs()).id
            for _ in range(3):
                group.start_soon(follow, run_id)
            held.release()
        whole = await sse(server, f"/v1/runs/{run_id}/events")
        assert [logged(each) for each in followed] == 3 * [logged(whole)]
        assert whole[-1][1] == "end"
        assert whole[-1][2]["state"] == "finished"
        log = [json.loads(event_to_json(event)) for event in read_events(tmp_path / run_id)]
        assert [data for _, name, data in logged(whole) if name != "run_finished"] == log
        assert [number for number, _, _ in logged(whole)] == [str(n) for n in range(1, len(log) + 2)]
        for after in (1, 5, len(log), len(log) + 1, 10**6):
            path = f"/v1/runs/{run_id}/events"
            assert logged(await sse(server, path, **{"Last-Event-ID": str(after)})) == logged(whole)[after:]
            assert logged(await sse(server, f"{path}?after={after}")) == logged(whole)[after:]


async def test_stopped_and_gone_on_with_it_tells_one_story(tmp_path: Path) -> None:
    """Wherever a run is stopped, its events are numbered as its log is, none is told twice, and its answer is that of
    an unbroken run."""
    async with serving(engine, tmp_path / "unbroken") as server:
        unbroken = (await server.chat(**RSA))["rsa"]
    held = ScriptedEngine(script, hold=lambda request: request.id in ("r1-c00", "r2-c02"))
    async with serving(lambda: held, tmp_path / "broken") as server, anyio.create_task_group() as group:
        group.start_soon(server.chat_of, RSA)
        handle = await server.run_that_runs()
        for row in ("r1-c00", "r2-c02"):
            await server.until(lambda row=row: any(each.request.id == row for each in held._rows))  # type: ignore[misc]
            await server.until(lambda: held.active == 1)
            stopped = await server.post(f"/v1/runs/{handle.id}/cancel", None)
            assert stopped.json()["state"] == "cancelled"
            assert held.active == 0
            held.release(row)
            resumed = await server.post(f"/v1/runs/{handle.id}/resume", None)
            assert resumed.json()["state"] in ("queued", "running")
        story = await sse(server, f"/v1/runs/{handle.id}/events")
    log = [json.loads(event_to_json(event)) for event in read_events(tmp_path / "broken" / handle.id)]
    assert [data for _, name, data in logged(story) if name != "run_finished"] == log
    result = logged(story)[-1][2]["result"]
    assert result["answer"] == unbroken["answer"]
    assert result["usage"] == {
        name: sum(each["usage"][name] for each in unbroken["rounds"]) for name in result["usage"]
    }
    again = await sse_of_a_new_server(tmp_path / "broken", handle.id)
    assert logged(again) == logged(story)


async def sse_of_a_new_server(folder: Path, run_id: str) -> list[tuple[str | None, str, Any]]:
    async with serving(engine, folder) as server:
        finished = await server.post(f"/v1/runs/{run_id}/resume", None)
        assert finished.json()["state"] == "finished"
        return await sse(server, f"/v1/runs/{run_id}/events")


async def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    """`rsa mcp` on standard input and output takes no lock on the folder of runs: there may be many."""
    async with serving(engine, tmp_path / "runs") as server:
        await server.chat(**RSA)
        (run,) = await server.service.runs.list()
        folder = tmp_path / "runs" / run.id
        rewrite(folder / "state.json", lambda was: {**was, "state": "running"})
        state = (folder / "state.json").read_text()
        with lock_folder(folder):
            refused = await server.post(f"/v1/runs/{run.id}/resume", None)
            assert await server.service.runs.resume_unfinished(foreground=True) == []
        assert refused.status_code == 409
        assert refused.json()["error"]["message"].startswith("another process is working in")
        assert (folder / "state.json").read_text() == state
        assert (await server.post(f"/v1/runs/{run.id}/resume", None)).status_code == 200


async def test_a_run_of_a_model_that_is_not_served_waits_for_its_server(tmp_path: Path) -> None:
    held = ScriptedEngine(script, hold=lambda request: True)
    async with serving(lambda: held, tmp_path) as server, anyio.create_task_group() as group:
        group.start_soon(server.chat_of, RSA)
        run_id = (await server.run_that_runs()).id
        server.service.interrupt()
    state = tmp_path / run_id / "state.json"
    mine = state.read_text()
    rewrite(state, lambda was: {**was, "model": "another"})
    async with serving(engine, tmp_path, resume="all") as server:
        refused = await server.post(f"/v1/runs/{run_id}/resume", None)
        assert refused.status_code == 409
        assert "serve it as another=..." in refused.json()["error"]["message"]
        assert (await server.client.get(f"/v1/runs/{run_id}")).json()["state"] == "interrupted"
    state.write_text(mine)
    async with serving(engine, tmp_path, resume="all") as server:
        assert (await sse(server, f"/v1/runs/{run_id}/events"))[-1][2]["state"] == "finished"


async def test_a_run_whose_log_was_changed_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    held = ScriptedEngine(script, hold=lambda request: True)
    async with serving(lambda: held, tmp_path) as server, anyio.create_task_group() as group:
        group.start_soon(server.chat_of, RSA)
        run_id = (await server.run_that_runs()).id
        server.service.interrupt()
    log = tmp_path / run_id / "events.jsonl"
    log.write_text(log.read_text().replace('"n":', '"n":1', 1))
    changed = log.read_bytes()
    async with serving(engine, tmp_path, resume="all") as server:
        refused = await server.post(f"/v1/runs/{run_id}/resume", None)
    assert refused.status_code == 500
    assert "events.jsonl, line 1, is not what was written there" in refused.json()["error"]["message"]
    assert log.read_bytes() == changed


async def test_a_stream_speaks_at_once_and_is_never_silent(tmp_path: Path) -> None:
    held = ScriptedEngine(script, hold=lambda request: True)
    async with serving(lambda: held, tmp_path, keep_alive_s=0.05) as server:
        for fields in ({}, RSA):
            body = chat_body("Think.", stream=True, **{"model": "scripted", **fields})
            async with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()
                assert '"role":"assistant"' in await anext(lines)
                async for line in lines:
                    if line == ": keep-alive":
                        break
                await server.until(lambda: held.active > 0)


async def test_an_engine_that_died_is_told_and_comes_back(tmp_path: Path) -> None:
    engines = [ScriptedEngine(script, hold=lambda request: True), engine(), engine()]
    opened = iter(engines)
    async with serving(lambda: next(opened), tmp_path) as server:
        told: list[Any] = []

        async def ask(fields: dict[str, Any]) -> None:
            told.append((await server.post("/v1/chat/completions", chat_body("Think.", **fields))).json())

        async with anyio.create_task_group() as group:
            group.start_soon(ask, {})
            group.start_soon(ask, RSA)
            await server.until(lambda: engines[0].active == 4)
            await engines[0].aclose()
        assert all("closed" in each["error"]["message"] for each in told), told
        assert server.service.served.state("scripted")[0] == "closed"
        assert (await server.chat(**RSA))["rsa"]["answer"] == "4"
        assert server.service.served.opened("scripted") is engines[1]


async def test_a_bug_in_one_run_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    async with serving(engine, tmp_path) as server:
        for name in ("told", "ended"):
            with monkeypatch.context() as patched:
                patched.setattr(server.service, name, broken)
                response = await server.post("/v1/chat/completions", chat_body("Think.", **RSA))
            assert response.status_code == (500 if name == "told" else 200)
            assert "a bug" not in response.text
            assert server.service.runs.live == []
        assert (await server.chat(**RSA))["rsa"]["answer"] == "4"


async def test_lists_show_the_newest_first(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        for number in range(3):
            await server.chat(f"What is {number}?", **RSA, metadata={"number": str(number)})
        broken = tmp_path / "run_99991231235959000000deadbeef"
        broken.mkdir()
        (broken / "state.json").write_text("{")
        listed = (await server.client.get("/v1/runs?limit=2")).json()["data"]
        one = (await server.client.get(f"/v1/runs/{listed[0]['id']}")).json()
    assert [each["metadata"] for each in listed] == [{"number": "2"}, {"number": "1"}]
    assert one == listed[0]
    assert one["title"] == "What is 2?"
    assert (one["state"], one["answer"], one["n"], one["t"]) == ("finished", "4", 3, 2)
