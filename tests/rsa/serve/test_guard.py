"""Who may ask, for how much, and how many at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from serving import assert_error, chat_body, endless_requests, serving

from engine.api import Engine
from engine.scripted import Script, ScriptedEngine
from rsa.errors import ConfigError
from rsa.serve.errors import ApiError
from rsa.serve.guard import Keys, Slots
from rsa.serve.settings import ServeSettings, keys_of, open_to_others

pytestmark = pytest.mark.anyio
KEYS = ("first-key", "second-key")
ANSWER = Script(reasoning="2 and 2 make 4", answer=r"\boxed{4}")
# Not the same words again and again: a candidate that repeats itself is cut off.
HELD = Script(reasoning="2 and 2 make 4", held=True)


def engine() -> Engine:
    return ScriptedEngine(ANSWER)


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
