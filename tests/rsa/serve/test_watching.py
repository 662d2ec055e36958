"""How a server says that it is: health, metrics and logs."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Serving, assert_error, chat_body, endless_requests, serving, until

from engine.api import Engine
from engine.errors import EngineError, ModelError
from engine.scripted import Script, ScriptedEngine
from rsa.serve.logs import LOGGER, JSONLines

pytestmark = pytest.mark.anyio
KEYS = ("first-key", "second-key")
ANSWER = Script(reasoning="2 and 2 make 4", answer=r"\boxed{4}")
ENDLESS = Script(reasoning=" ".join(str(number) for number in range(20_000)), never_ends=True, tokens_per_step=1)


def engine() -> Engine:
    return ScriptedEngine(ANSWER)


# ---- health


async def test_health_tells_of_a_dead_engine_which_comes_back(tmp_path: Path) -> None:
    engines: list[ScriptedEngine] = []

    def make() -> Engine:
        engines.append(ScriptedEngine(ANSWER))
        return engines[-1]

    async with serving(make, tmp_path) as server:
        response = await server.client.get("/health")
        assert response.status_code == 200, "it is opened when it is needed"
        assert response.json()["models"]["scripted"]["state"] == "closed"
        await server.chat()
        assert (await server.client.get("/health")).json()["models"]["scripted"]["state"] == "open"
        await engines[0].aclose()
        response = await server.client.get("/health")
        assert response.status_code == 503
        body = response.json()
        assert body["status"] == "ill"
        assert body["models"]["scripted"]["deaths"] == 1
        assert "died" in body["models"]["scripted"]["why"]
        while (await server.client.get("/health")).status_code != 200:
            pass
        assert len(engines) == 2
        assert (await server.chat())["choices"][0]["message"]["content"] == r"\boxed{4}"


async def test_health_tells_of_a_model_that_cannot_be_opened(tmp_path: Path) -> None:
    def make() -> Engine:
        raise ModelError("its files are gone: fetch them again")

    async with serving(make, tmp_path) as server:
        response = await server.post("/v1/chat/completions", chat_body("What is 2 + 2?"))
        assert_error(response, 503, "model_unavailable")
        response = await server.client.get("/health")
        assert response.status_code == 503
        assert response.json()["models"]["scripted"]["why"] == "its files are gone: fetch them again"


async def test_health_of_a_server_that_is_about_to_end(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        server.service.draining = True
        response = await server.client.get("/health")
        assert response.status_code == 503
        assert response.json()["status"] == "ending"


# ---- metrics


async def numbers(server: Serving) -> dict[tuple[str, ...], float]:
    """The metrics of the server: values by name and labels' values."""
    response = await server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_metrics_count_what_was_done(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        done = await server.chat()
        run = await server.chat(model="scripted:rsa", rsa={"n": 3, "t": 1, "c": 2, "beta": 64, "tau": 16})
        assert (await server.client.get("/v1/nothing")).status_code == 404
        assert (await server.client.get("/v1/runs/made-up")).status_code == 404
        found = await numbers(server)
    path = "/v1/chat/completions"
    assert found["rsa_requests_total", "200", path] == 2
    assert found["rsa_requests_total", "404", "other"] == 1
    assert found["rsa_requests_total", "404", "/v1/runs/{id}"] == 1
    assert found["rsa_errors_total", "run_not_found"] == 1
    assert found["rsa_first_byte_seconds_count", path] == 2
    tokens = done["usage"]["completion_tokens"] + run["usage"]["completion_tokens"]
    assert found["rsa_tokens_total", "completion", "scripted"] == tokens
    assert found["rsa_candidates_total", "scripted", "ok"] == 6
    assert found["rsa_rounds_total", "scripted"] == 2
    assert found["rsa_runs_total", "finished", "scripted"] == 1
    assert found["rsa_engine", "scripted", "open"] == 1
    assert found["rsa_engine", "scripted", "closed"] == 0
    for gauge in ("rsa_rows", "rsa_queue", "rsa_slots_working", "rsa_runs_in_progress"):
        assert found[gauge,] == 0, gauge
    assert found["rsa_requests_in_flight",] == 1, "the one that asks"


async def test_metrics_of_what_is_being_done(tmp_path: Path) -> None:
    settings = {"n": 3, "t": 0, "beta": 10**9}
    async with serving(lambda: ScriptedEngine(ENDLESS), tmp_path, concurrent=2) as server:
        body = {"model": "scripted:rsa", "problem": "What is 2 + 2?", "settings": settings}
        run = (await server.post("/page/runs", body)).json()["id"]
        await until(lambda: server.service.slots.working == 1)  # it is first, before those that come after it
        async with endless_requests(server, 2):
            while (found := await numbers(server))["rsa_rows",] != 3 + 1:
                pass
            assert found["rsa_runs_in_progress",] == 1
            assert found["rsa_slots_working",] == 2
            assert found["rsa_queue",] == 1
        await server.client.post(f"/v1/runs/{run}/cancel")
        found = await numbers(server)
        assert found["rsa_rows",] == 0
        assert found["rsa_runs_total", "cancelled", "scripted"] == 1


# ---- logs


@asynccontextmanager
async def logged() -> AsyncIterator[list[dict[str, Any]]]:
    """The lines of the server's log, there when the block is left."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONLines())
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    lines: list[dict[str, Any]] = []
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        lines += [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("prompts", [False, True])
async def test_logs_hold_what_happened_and_prompts_only_where_asked(tmp_path: Path, prompts: bool) -> None:
    secret = "the treasure lies under the oak"
    async with logged() as lines, serving(engine, tmp_path, log_prompts=prompts, api_keys=KEYS) as server:
        server.client.headers["Authorization"] = "Bearer first-key"
        await server.chat(secret)
        await server.chat(secret, model="scripted:rsa", rsa={"n": 2, "t": 0, "beta": 64})
        await server.client.get(f"/v1/runs?limit={secret}", headers={"X-Request-Id": "mine-1"})
    text = json.dumps(lines)
    assert (secret in text) == prompts
    assert "first-key" not in text
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [200, 200, 400]
    assert [line["path"] for line in requests] == ["/v1/chat/completions"] * 2 + ["/v1/runs"]
    assert all(0 <= line["first_byte_s"] <= line["seconds"] for line in requests)
    assert requests[2]["id"] == "mine-1"
    assert requests[2]["param"] == "limit"
    (run,) = [line for line in lines if line["event"] == "run"]
    assert run["state"] == "finished"
    assert run["tokens"] > 0


def test_a_log_line_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "broken\n%s", ('\n"quoted"\n',), None)
    try:
        raise EngineError("two\nlines")
    except EngineError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = JSONLines().format(record)
    assert "\n" not in line
    assert "two\nlines" in json.loads(line)["traceback"]
