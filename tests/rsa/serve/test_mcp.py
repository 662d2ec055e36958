"""`rsa mcp` by the SDK's own client: over HTTP on loopback, where the engine can be watched."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result
from serving import serving

from engine.errors import ModelError
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, read_run
from rsa.policies.registry import Kind, names
from rsa.serve.mcp.serving import PATH, create_mcp_app, mcp_server
from rsa.serve.mcp.tasks import TASKS
from rsa.serve.models import Served
from rsa.serve.service import Service
from rsa.serve.settings import ServedModel, ServeSettings

pytestmark = pytest.mark.anyio
SCRIPT = Script(reasoning="2 and 2 make 4", answer=r"It is \boxed{4}.")
HELD = Script(reasoning="hm", answer=r"\boxed{4}", held=True)
SIZES: dict[str, Any] = {"n": 3, "c": 2, "t": 1, "seed": 5}
CALL = {"problem": "What is 2 + 2?", **SIZES}
PNG = bytes.fromhex("89504e470d0a1a0a")


@dataclass(frozen=True, slots=True)
class Offering:
    """A server over HTTP in this event loop: its URL, its runs, and the engines that were opened."""

    url: str
    service: Service
    engines: list[ScriptedEngine]

    @property
    def engine(self) -> ScriptedEngine:
        return self.engines[-1]


@asynccontextmanager
async def offering(runs: Path, script: Any = SCRIPT, *, images: bool = False, **more: Any) -> AsyncIterator[Offering]:
    engines: list[ScriptedEngine] = []

    def make_engine() -> ScriptedEngine:
        engines.append(ScriptedEngine(script, images=images))
        return engines[-1]

    async with serving(make_engine, runs, create=create_mcp_app, **more) as server:
        yield Offering(server.url + PATH, server.service, engines)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks of this event loop bring about."""
    with anyio.fail_after(30):
        while not condition():
            await anyio.lowlevel.checkpoint()


def said(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


# ---- calls


async def test_what_is_offered(tmp_path: Path) -> None:
    async with offering(tmp_path) as server, Client(server.url) as client:
        (tool,) = (await client.list_tools()).tools
        assert "scripted" in (client.instructions or "")
    assert tool.name == "solve"
    assert tool.input_schema["required"] == ["problem"]
    assert {"n", "t", "beta", "method", "profile", "seed", "deadline_s"} <= set(tool.input_schema["properties"])
    assert tool.output_schema is not None
    assert {"answer", "votes", "check", "usage", "run_folder"} <= set(tool.output_schema["properties"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_answers_as_the_library_does(tmp_path: Path, mode: Literal["auto", "legacy"]) -> None:
    async with offering(tmp_path) as server, Client(server.url, mode=mode) as client:
        found = await client.call_tool("solve", CALL)
    result = await MarkovianRSA(ScriptedEngine(SCRIPT), n=3, c=2, t=1).solve("What is 2 + 2?", seed=5)
    assert not found.is_error
    told = found.structured_content or {}
    assert (told["answer"], told["rounds"], told["settings"]["seed"]) == (result.answer, 2, 5)
    assert told["votes"] == [{"answer": "4", "count": 3, "of": 3, "check": None}]
    assert told["usage"] == result.usage.model_dump()
    assert said(found) == "It is \\boxed{4}.\nAnswer: 4. Votes: 4: 3 of 3."
    assert Path(told["run_folder"]) == (tmp_path / told["run_id"]).resolve()
    assert (tmp_path / told["run_id"] / "result.json").is_file()


async def test_policies_are_arguments(tmp_path: Path) -> None:
    """They decide, and each of ours is named where arguments are described."""
    policies = {"stop": "consensus:.5", "select": "pooled", "parents": "distinct", "waves": "2,1"}
    async with offering(tmp_path) as server, Client(server.url) as client:
        (tool,) = (await client.list_tools()).tools
        found = await client.call_tool("solve", {**CALL, **policies})
    for kind in get_args(Kind):
        assert all(name in json.dumps(tool.input_schema["properties"][kind]) for name in names(kind))
    assert not found.is_error, said(found)
    config = read_run(Path((found.structured_content or {})["run_folder"]))[0].config
    assert (config.stop, config.select, config.parents, config.waves) == (
        ("consensus:.5",), "pooled", "distinct", (2, 1),
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_grows_to_its_total_and_says_how_the_vote_forms(
    tmp_path: Path, mode: Literal["auto", "legacy"]
) -> None:
    steps: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total, message))

    async with offering(tmp_path) as server, Client(server.url, mode=mode) as client:
        await client.call_tool("solve", CALL, progress_callback=note)
        await until(lambda: bool(steps) and steps[-1][0] == 6)
    assert {total for _, total, _ in steps} == {6}
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    lines = [message for _, _, message in steps if message]
    assert lines[0] == "Round 1 of 2: 3 attempts."
    assert "Round 2 of 2: 3 attempts, each reading the ends of 2 of the last round." in lines
    assert lines[-1] == "Votes: 4 by 3 of 3."


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_that_is_given_up_frees_its_rows(tmp_path: Path, mode: Literal["auto", "legacy"]) -> None:
    async with (
        offering(tmp_path, HELD) as server,
        Client(server.url, mode=mode) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.call_tool, "solve", CALL)
        await until(lambda: bool(server.engines) and server.engine.active == 3)
        (run,) = server.service.runs.live
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await until(lambda: server.engine.active == 0)
            await run.over()
    assert run.summary.state == "cancelled"


async def test_calls_share_the_engine(tmp_path: Path) -> None:
    async with (
        offering(tmp_path, HELD) as server,
        Client(server.url) as one,
        Client(server.url) as other,
        anyio.create_task_group() as group,
    ):
        for client in (one, one, other):
            group.start_soon(client.call_tool, "solve", {**CALL, "t": 0})
        await until(lambda: bool(server.engines) and server.engine.active == 9)
        server.engine.release()
    assert len(server.engines) == 1


async def test_images_are_seen(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    async with offering(tmp_path, images=True) as server, Client(server.url) as client:
        assert not (await client.call_tool("solve", {**CALL, "images": [url]})).is_error
        images = [image.data for image in server.engine.requests[0].messages[-1].images]
    assert images == [PNG]


async def test_a_client_on_this_machine_may_name_files(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(PNG)
    settings = ServeSettings(models=(ServedModel(name="scripted", opens="scripted:x"),), runs=tmp_path)
    engine = ScriptedEngine(SCRIPT, images=True)

    async def open_engine(_: str, **options: Any) -> ScriptedEngine:
        return engine

    service = Service(settings, Served(settings.models, open_engine=open_engine))
    async with service, mcp_server(service, files=True) as server, Client(server) as client:
        assert not (await client.call_tool("solve", {**CALL, "image_files": [str(picture)]})).is_error
        missing = await client.call_tool("solve", {**CALL, "image_files": [str(tmp_path / "gone.png")]})
    assert [image.data for image in engine.requests[0].messages[-1].images] == [PNG]
    assert said(missing) == f"cannot read image {tmp_path / 'gone.png'}: No such file or directory"


async def test_over_http_the_guard_of_the_server_stands_before_it(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer open"}
    async with (
        offering(tmp_path, api_keys=("open",)) as server,
        httpx2.AsyncClient(headers=headers, verify=False) as known,
    ):
        async with Client(streamable_http_client(server.url, http_client=known)) as client:
            assert not (await client.call_tool("solve", CALL)).is_error
        async with httpx2.AsyncClient(verify=False) as stranger:
            refused = await stranger.post(server.url, json={})
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"


async def test_a_call_too_many_is_told_so(tmp_path: Path) -> None:
    async with (
        offering(tmp_path, HELD, concurrent=1, queue=0) as server,
        Client(server.url) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.call_tool, "solve", CALL)
        await until(lambda: bool(server.engines) and server.engine.active == 3)
        found = await client.call_tool("solve", CALL)
        server.engine.release()
    assert found.is_error
    assert said(found).startswith("the server is busy: 1 requests are worked on")


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "problem: Field required"),
        ({"problem": " "}, "the problem is empty: give it as text, a file, or on standard input"),
        ({"problem": "x", "n": "many"}, "n: should be a valid integer, unable to parse string as an integer"),
        ({"problem": "x", "n": 10**9}, "n: should be less than or equal to 1024"),
        ({"problem": "x", "n": 4, "c": 5}, "c = 5 is more than n = 4: a round of 4 cannot give 5 different tails"),
        ({"problem": "x", "method": "vote", "t": 2}, "t = 2 contradicts method = vote, which means t = 0"),
        (
            {"problem": "x", "method": "auto", "t": 0},
            "t = 0 contradicts method = auto, which plays rounds",
        ),
        ({"problem": "x", "stop": "often"}, "stop = 'often': no policy is called so. There are decided"),
        ({"problem": "x", "parents": "confident:0"}, "parents = 'confident:0': 0 is no temperature: more than 0"),
        ({"problem": "x", "n": 4, "waves": "3,3"}, "waves = 3,3 are 6 candidates, not n = 4: change one of them"),
        ({"problem": "x", "n": 4, "waves": "a"}, "waves = 'a': should be numbers with commas between them"),
        ({"problem": "x", "profile": "../../etc"}, "profile = '../../etc' is not known. There are apex-high"),
        ({"problem": "x", "model": "scriptd"}, "no model is called 'scriptd' here; did you mean 'scripted'"),
        ({"problem": "x", "model": "long\n" * 10**5}, "no model is called 'long"),
        ({"problem": "x", "images": ["file:///etc/passwd"]}, "file:///etc/passwd is no URL that is opened here"),
        ({"problem": "x", "image_files": ["/etc/passwd"]}, "image_files are files of the server's machine: over HTTP"),
        ({"problem": "x", "images": ["data:image/png;base64,AAAA"]}, "is empty or no image of a known kind"),
    ],
)
async def test_mistakes_are_told_in_a_line(tmp_path: Path, arguments: dict[str, Any], why: str) -> None:
    async with offering(tmp_path) as server, Client(server.url) as client:
        found = await client.call_tool("solve", arguments)
        still = await client.call_tool("solve", CALL)
    assert found.is_error
    assert why in said(found)
    assert "\n" not in said(found)
    assert len(said(found)) <= 1000
    assert not still.is_error


async def test_what_the_engine_cannot_do_is_told(tmp_path: Path) -> None:
    def broken(_: object) -> Script:
        raise ModelError("the weights are gone: download the model again")

    async with offering(tmp_path, broken) as server, Client(server.url) as client:
        found = await client.call_tool("solve", CALL)
    assert found.is_error
    assert said(found) == "the weights are gone: download the model again"


# ---- tasks


class TaskHandle(Result):
    """What a server gives instead of a result."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    poll_interval_ms: int


class TaskState(Result):
    task_id: str
    status: str
    status_message: str | None = None
    result: dict[str, Any] | None = None


class TaskParams(RequestParams):
    task_id: str


class TaskRequest(Request[TaskParams, str]):
    """tasks/get, tasks/update or tasks/cancel; HTTP carries the id in a header, too."""

    name_param = "taskId"


class Polling(ClientExtension):
    """Makes calls of tasks what they are without: it asks until there is a result."""

    identifier = TASKS

    def __init__(self) -> None:
        self.states: list[TaskState] = []

    def claims(self) -> list[ResultClaim[TaskHandle]]:
        return [ResultClaim(result_type="task", model=TaskHandle, resolve=self._resolve)]

    async def _resolve(self, task: TaskHandle, context: ClaimContext) -> CallToolResult:
        while True:
            state = await ask(context.session, "tasks/get", task.task_id)
            self.states.append(state)
            if state.status == "completed":
                return CallToolResult.model_validate(state.result)
            await anyio.lowlevel.checkpoint()


async def ask(session: Any, method: str, task_id: str) -> TaskState:
    found = await session.send_request(TaskRequest(method=method, params=TaskParams(task_id=task_id)), TaskState)
    assert isinstance(found, TaskState)
    return found


async def begun(client: Client) -> str:
    """The id of a task that was just begun."""
    handle = await client.session.call_tool("solve", CALL, allow_claimed=True)
    assert isinstance(handle, TaskHandle)
    assert handle.status == "working"
    return handle.task_id


async def test_a_task_ends_in_what_the_call_gives_without(tmp_path: Path) -> None:
    polling = Polling()
    async with offering(tmp_path) as server, Client(server.url) as plain:
        async with Client(server.url, extensions=[polling]) as client:
            task = await client.call_tool("solve", CALL)
        call = await plain.call_tool("solve", CALL)
    assert polling.states[-1].status == "completed"
    timeless = [
        {key: value for key, value in (found.structured_content or {}).items() if key not in ("seconds", "run_id")}
        for found in (task, call)
    ]
    for told in timeless:
        told.pop("run_folder")
    assert timeless[0] == timeless[1]
    assert said(task) == said(call)


async def test_a_task_can_be_asked_for_and_cancelled(tmp_path: Path) -> None:
    async with offering(tmp_path, HELD) as server, Client(server.url, extensions=[Polling()]) as client:
        task_id = await begun(client)
        await until(lambda: bool(server.engines) and server.engine.active == 3)
        state = await ask(client.session, "tasks/get", task_id)
        assert (state.status, state.status_message) == ("working", "Round 1 of 2: 3 attempts.")
        run = await server.service.runs.get(task_id)
        await client.session.send_request(
            TaskRequest(method="tasks/cancel", params=TaskParams(task_id=task_id)), Result
        )
        await run.over()
        assert server.engine.active == 0
        assert (await ask(client.session, "tasks/get", task_id)).status == "cancelled"


async def test_a_task_goes_on_without_its_client_and_is_found_by_the_next_server(tmp_path: Path) -> None:
    async with offering(tmp_path, HELD) as server:
        async with Client(server.url, extensions=[Polling()]) as client:
            task_id = await begun(client)
        run = await server.service.runs.get(task_id)
        await until(lambda: bool(server.engines) and server.engine.active == 3)
        server.engine.release()
        await run.over()
    async with offering(tmp_path) as server, Client(server.url, extensions=[Polling()]) as client:
        state = await ask(client.session, "tasks/get", task_id)
    assert state.status == "completed"
    assert (state.result or {})["structuredContent"]["answer"] == "4"


async def test_the_next_server_goes_on_with_a_task(tmp_path: Path) -> None:
    async with offering(tmp_path, HELD) as server:
        async with Client(server.url, extensions=[Polling()]) as client:
            task_id = await begun(client)
        await until(lambda: bool(server.engines) and server.engine.active == 3)
    async with offering(tmp_path) as server, Client(server.url, extensions=[Polling()]) as client:
        await (await server.service.runs.get(task_id)).over()
        state = await ask(client.session, "tasks/get", task_id)
    assert state.status == "completed"
    assert (state.result or {})["structuredContent"]["answer"] == "4"


async def test_tasks_are_for_those_who_take_them_alone_and_other_runs_are_none(tmp_path: Path) -> None:
    async with offering(tmp_path) as server, Client(server.url, extensions=[advertise("org.example/other")]) as client:
        found = await client.call_tool("solve", CALL)
        assert found.result_type == "complete"
        for task_id in ((found.structured_content or {})["run_id"], "run_20260101000000abcdefabcdef", "../x"):
            with pytest.raises(MCPError, match="there is no task"):
                await ask(client.session, "tasks/get", task_id)


async def test_a_task_that_cannot_be_is_a_result_that_says_so(tmp_path: Path) -> None:
    async with offering(tmp_path) as server, Client(server.url, extensions=[Polling()]) as client:
        found = await client.call_tool("solve", {"problem": "x", "n": 4, "c": 5})
    assert found.is_error
    assert "c = 5 is more than n = 4" in said(found)
    assert await anyio.Path(tmp_path).exists()
    assert [each async for each in anyio.Path(tmp_path).iterdir()] == []
