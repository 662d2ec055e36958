"""Who may ask, for how much, and how many at once; what logs and metrics say of it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Serving, chat_body, serving

from engine.api import Engine
from engine.errors import EngineError, ModelError
from engine.scripted import Script, ScriptedEngine
from rsa.errors import ConfigError
from rsa.serve.errors import ApiError
from rsa.serve.guard import Keys, Slots
from rsa.serve.logs import LOGGER, JSONLines
from rsa.serve.settings import ServeSettings, keys_of, open_to_others

pytestmark = pytest.mark.anyio
KEYS = ("first-key", "second-key")
ANSWER = Script(reasoning="2 and 2 make 4", answer=r"\boxed{4}")
# Not the same words again and again: a candidate that repeats itself is cut off.
ENDLESS = Script(reasoning=" ".join(str(number) for number in range(20_000)), never_ends=True, tokens_per_step=1)
HELD = Script(reasoning="2 and 2 make 4", held=True)


def engine() -> Engine:
    return ScriptedEngine(ANSWER)


def assert_error(response: httpx2.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return str(error["message"])


# ---- keys


def test_keys_show_themselves_nowhere() -> None:
    keys = Keys(KEYS)
    assert all(keys.opens(key) for key in KEYS)
    assert not any(keys.opens(key) for key in ("", "first", "first-key ", "FIRST-KEY", "first-key\0", "\udcff"))
    assert not Keys(())
    assert not any(key in repr(keys) + str(vars(keys)) for key in KEYS)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (None, "invalid_api_key"),
        ("Bearer", "invalid_api_key"),
        ("Bearer wrong", "invalid_api_key"),
        ("Basic first-key", "invalid_api_key"),
        ("first-key", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/runs", "/metrics", "/page/runs", "/none"])
async def test_a_server_with_keys_asks_for_one(tmp_path: Path, given: str | None, code: str, path: str) -> None:
    async with serving(engine, tmp_path, api_keys=KEYS) as server:
        headers = {} if given is None else {"Authorization": given}
        response = await server.client.get(path, headers=headers)
        message = assert_error(response, 401, code)
        assert response.headers["www-authenticate"] == "Bearer"
        assert "first-key" not in message


async def test_each_key_opens_it_and_what_tells_nothing_is_open(tmp_path: Path) -> None:
    async with serving(engine, tmp_path, api_keys=KEYS) as server:
        for scheme, key in [("Bearer", KEYS[0]), ("bearer", KEYS[1])]:
            response = await server.client.get("/v1/models", headers={"Authorization": f"{scheme} {key}"})
            assert response.status_code == 200
        for path in ("/", "/health", "/page/assets/app.js", "/page/assets/page.css"):
            assert (await server.client.get(path)).status_code == 200, path
        assert (await server.client.get("/page/assets/../../pages.py")).status_code in (401, 404)
        assert (await server.client.get("/page/reports/none")).status_code == 404


def test_keys_are_given_and_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key\n\n  second-key  # hers\n")
    assert keys_of((), file) == KEYS
    assert keys_of([" third-key"], file) == ("third-key", *KEYS)
    assert keys_of((), None) == ()
    with pytest.raises(ConfigError, match="is blank"):
        keys_of(["first-key", " "], None)
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match="has no keys"):
        keys_of((), file)
    with pytest.raises(ConfigError, match="cannot be read"):
        keys_of((), tmp_path / "missing")


@pytest.mark.parametrize(
    ("host", "keys", "reached"),
    [
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("192.168.0.7", (), True),
        ("mine.test", (), True),
        ("0.0.0.0", KEYS, False),
    ],
)
def test_who_is_open_to_others_is_known(host: str, keys: tuple[str, ...], reached: bool) -> None:
    assert open_to_others(ServeSettings(host=host, api_keys=keys)) == reached


# ---- hosts and origins


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8000", "10.0.0.5", "mine.test", "MINE.test:80"]
)
async def test_hosts_that_are_known(tmp_path: Path, host: str) -> None:
    async with serving(engine, tmp_path, hosts=("mine.test",)) as server:
        assert (await server.client.get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "evil.test:8000", "a@b", "", "[", "x:y"]
)
async def test_a_name_of_the_internet_that_leads_here_is_refused(tmp_path: Path, host: str) -> None:
    """A page whose name was pointed at this machine could otherwise ask in its reader's browser."""
    async with serving(engine, tmp_path) as server:
        for path in ("/", "/v1/models", "/health"):
            assert_error(await server.client.get(path, headers={"Host": host}), 421, "unknown_host")
    async with serving(engine, tmp_path, api_keys=KEYS) as server:
        headers = {"Host": host, "Authorization": "Bearer first-key"}
        assert (await server.client.get("/v1/models", headers=headers)).status_code == 200, "it has no key"


async def test_who_names_no_host_is_no_browser(tmp_path: Path) -> None:
    """Balancers look after their servers in HTTP/1.0."""
    async with serving(engine, tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /health HTTP/1.0\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200")


async def test_pages_of_other_sites_may_not_ask_unless_they_are_let(tmp_path: Path) -> None:
    body = json.dumps(chat_body("What is 2 + 2?"))
    simple = {"Origin": "https://evil.test", "Content-Type": "text/plain"}
    preflight = {"Origin": "https://good.test", "Access-Control-Request-Method": "POST"}
    async with serving(engine, tmp_path, origins=("https://good.test/",)) as server:
        refused = await server.client.post("/v1/chat/completions", content=body, headers=simple)
        assert_error(refused, 403, "origin_refused")
        assert "access-control-allow-origin" not in refused.headers
        asked = await server.client.options("/v1/chat/completions", headers=preflight)
        assert asked.status_code == 204
        assert "authorization" in asked.headers["access-control-allow-headers"]
        let = await server.client.post("/v1/chat/completions", content=body, headers={"Origin": "https://good.test"})
        assert let.status_code == 200
        assert let.headers["access-control-allow-origin"] == "https://good.test"
        assert "origin" in let.headers["vary"].lower()
        own = await server.client.get("/v1/models", headers={"Origin": server.url})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers


# ---- bodies


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    """Said beforehand, or found out while it comes in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    async with serving(engine, tmp_path, body_bytes=10_000) as server:
        said = await server.client.post("/v1/chat/completions", content=b" " * 10_001)
        assert_error(said, 413, "request_too_large")
        counted = await server.client.post("/v1/chat/completions", content=pieces())
        assert_error(counted, 413, "request_too_large")
        assert (await server.chat())["choices"][0]["message"]["content"] == r"\boxed{4}"


# ---- how many at once


@asynccontextmanager
async def endless_requests(server: Serving, number: int) -> AsyncIterator[None]:
    """So many requests that are being worked on, or wait; all of them are left at the end."""

    async def ask() -> None:
        body = chat_body("What is 2 + 2?", stream=True)
        async with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            async for _ in response.aiter_lines():
                pass

    slots = server.service.slots
    async with anyio.create_task_group() as group:
        before = slots.working + slots.waiting
        for _ in range(number):
            group.start_soon(ask)
        most = min(before + number, slots.most)
        await until(lambda: slots.working == most and slots.working + slots.waiting == before + number)
        yield
        group.cancel_scope.cancel()
    await until(lambda: slots.working + slots.waiting == before)


async def until(condition: Any) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_who_finds_the_queue_full_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with serving(lambda: ScriptedEngine(HELD), tmp_path, concurrent=2, queue=1) as server:
        async with endless_requests(server, 3):
            slots = server.service.slots
            assert (slots.working, slots.waiting) == (2, 1)
            for model in ("scripted", "scripted:rsa"):
                body = {**chat_body("What is 2 + 2?"), "model": model}
                response = await server.post("/v1/chat/completions", body)
                message = assert_error(response, 429, "server_busy")
                assert response.json()["error"]["type"] == "rate_limit_error"
                assert "2 requests are worked on and 1 wait" in message
                assert 1 <= int(response.headers["retry-after"]) <= 60
            assert (await server.client.get("/health")).status_code == 200, "who watches is not turned away"
        async with endless_requests(server, 3):
            pass  # all places are free again


async def test_places_are_given_in_order_and_given_back() -> None:
    slots = Slots(1, 3)
    began: list[int] = []

    async def work(number: int, ticket: Any) -> None:
        async with ticket:
            began.append(number)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        tickets = [slots.ticket() for _ in range(4)]
        with pytest.raises(ApiError):
            slots.ticket()
        resumed = slots.ticket(bounded=False)
        resumed.close()
        tickets[1].close()
        tickets[1].close()
        for number in (0, 2, 3):
            group.start_soon(work, number, tickets[number])
    assert began == [0, 2, 3]
    assert (slots.working, slots.waiting) == (0, 0)


async def test_who_leaves_the_queue_leaves_no_trace() -> None:
    slots = Slots(1, 5)
    async with slots.ticket():
        with anyio.move_on_after(0.01):
            async with slots.ticket():
                raise AssertionError("it is not free")
        assert (slots.working, slots.waiting) == (1, 0)
    async with slots.ticket():
        assert slots.working == 1


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
