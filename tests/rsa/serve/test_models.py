"""Models of a server: what they are called, and when their engines are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from serving import serving

from engine.api import Engine
from engine.errors import ModelError, RequestError
from engine.scripted import Script, ScriptedEngine
from rsa import ConfigError, profile_names
from rsa.serve.errors import ApiError
from rsa.serve.models import Route, Served
from rsa.serve.settings import ServedModel, models_served


def test_names_as_people_give_them(tmp_path: Path) -> None:
    folder = tmp_path / "ZAYA1-8B"
    folder.mkdir()
    servers = {"base_url": ["http://127.0.0.1:9/v1"]}
    served = models_served(["nano", str(folder), "small=openai:qwen", "openai:big"], servers)
    assert [(model.name, model.opens, model.options) for model in served] == [
        ("nano", "nano", {}),
        ("ZAYA1-8B", str(folder), {}),
        ("small", "openai:qwen", servers),
        ("openai:big", "openai:big", servers),
    ]


@pytest.mark.parametrize(
    ("given", "servers", "says"),
    [
        (["nano", "nano=zaya1-8b"], {}, "two models are called 'nano' (nano and zaya1-8b)"),
        (["nanno"], {}, "no model is called 'nanno'; did you mean 'nano'?"),
        (["a=opnai:x"], {}, "no kind of engine is called 'opnai'; did you mean 'openai'?"),
        (["nano"], {"base_url": ["http://x"]}, "`base_url` is for openai:MODEL, and there is none"),
    ],
)
def test_names_that_cannot_be(given: list[str], servers: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, RequestError)) as refused:
        models_served(given, servers)
    assert says in str(refused.value)


def test_every_public_name_leads_to_its_model() -> None:
    served = Served([ServedModel(name="nano", opens="nano"), ServedModel(name="a/b:c", opens="a/b")])
    for model in ("nano", "a/b:c"):
        assert served.route(model) == Route(model, model)
        assert served.route(f"{model}:rsa") == Route(f"{model}:rsa", model, rsa=True)
        for profile in profile_names():
            name = f"{model}:rsa-{profile}"
            assert served.route(name) == Route(name, model, rsa=True, profile=profile)
    assert len(served.names) == 2 * (2 + len(profile_names())) == len({*served.names})
    with pytest.raises(ApiError) as refused:
        served.route("nano:rsa-lite")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    assert "did you mean 'nano:rsa-light'" in refused.value.message


class Opener:
    """Opens scripted engines; the first `failures` times it cannot. It waits for `gate` each time."""

    def __init__(self, failures: int = 0) -> None:
        self.opened: list[ScriptedEngine] = []
        self.failures = failures
        self.gate = anyio.Event()

    async def __call__(self, opens: str, **options: Any) -> Engine:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ModelError("its files are gone")
        self.opened.append(ScriptedEngine("x", name=opens))
        return self.opened[-1]


@pytest.mark.anyio
async def test_an_engine_is_opened_once_for_all_who_ask() -> None:
    opener = Opener()
    served = Served([ServedModel(name="m", opens="x/y")], open_engine=opener)
    assert served.state("m") == ("closed", None)
    got: list[Engine] = []

    async def ask() -> None:
        got.append(await served.engine("m"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert served.state("m") == ("opening", None)
        opener.gate.set()
    assert got == 5 * opener.opened
    assert served.state("m") == ("open", None)
    await served.lost("m", got[0], "it broke")
    await served.lost("m", got[0], "told twice")
    assert served.state("m") == ("closed", "it broke")
    second = await served.engine("m")
    assert [second] == opener.opened[1:]
    await served.lost("m", got[0], "old news")
    assert served.opened("m") is second
    await served.aclose()
    assert opener.opened[1]._closed
    assert served.opened("m") is None


@pytest.mark.anyio
async def test_what_cannot_be_opened_is_tried_again() -> None:
    opener = Opener(failures=1)
    opener.gate.set()
    served = Served([ServedModel(name="m", opens="x/y")], open_engine=opener)
    with pytest.raises(ModelError, match="its files are gone"):
        await served.engine("m")
    assert served.state("m") == ("broken", "its files are gone")
    assert await served.engine("m") is opener.opened[0]


@pytest.mark.anyio
async def test_who_stops_waiting_leaves_it_to_the_others() -> None:
    opener = Opener()
    served = Served([ServedModel(name="m", opens="x/y")], open_engine=opener)
    async with anyio.create_task_group() as group:
        group.start_soon(served.engine, "m")
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert served.state("m") == ("closed", None)
    opener.gate.set()
    assert await served.engine("m") is opener.opened[0]


@pytest.mark.anyio
async def test_a_server_behind_a_server_beside_a_model_of_its_own(tmp_path: Path) -> None:
    """Models of several kinds, and our client of servers as a client of this one."""

    def engine() -> ScriptedEngine:
        return ScriptedEngine(Script(reasoning="2 and 2", answer=r"\boxed{4}"))

    run: dict[str, Any] = {"rsa": {"n": 3, "t": 1, "c": 2, "beta": 100, "tau": 20, "answer_budget": 50}}
    async with serving(engine, tmp_path / "behind") as behind:
        (far,) = models_served(["far=openai:scripted"], {"base_url": [f"{behind.url}/v1"]})
        async with serving(engine, tmp_path / "before", models=[far]) as server:
            listed = [each["id"] for each in (await server.client.get("/v1/models")).json()["data"]]
            assert {"scripted", "scripted:rsa", "far", "far:rsa-light"} <= {*listed}
            for fields in ({}, run):
                near = await server.chat(seed=1, model="scripted", **fields)
                there = await server.chat(seed=1, model="far", **fields)
                contents = [each["choices"][0]["message"]["content"] for each in (near, there)]
                assert contents == 2 * [r"\boxed{4}"]
            reasoning = (await server.chat(seed=1, model="far"))["choices"][0]["message"]["reasoning_content"]
            assert reasoning == "2 and 2"
