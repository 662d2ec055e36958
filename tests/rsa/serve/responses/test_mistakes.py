"""What a client gets wrong at `/v1/responses`: each mistake is told in a line that names its field, over a socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from open_responses import CREATE, Json
from serving import serving

from engine.scripted import Script, ScriptedEngine

CASES: list[Json] = json.loads((Path(__file__).parents[3] / "data/responses_mistakes.json").read_text())
BODY: Json = {"model": "scripted", "input": "What is 2 + 2?"}
pytestmark = pytest.mark.anyio


def engine() -> ScriptedEngine:
    return ScriptedEngine(Script("2 and 2 make 4", "It is \\boxed{4}."))


def sent(case: Json) -> bytes:
    """The body of a request, as a case says it."""
    if "raw_hex" in case:
        return bytes.fromhex(case["raw_hex"])
    if "raw" in case:
        return str(case["raw"]).encode()
    if "nest" in case:
        return b'{"model": "scripted", "input": ' + case["nest"] * b"[" + case["nest"] * b"]" + b"}"
    body = {**BODY, **case.get("body", {}), **{name: size * "x" for name, size in case.get("long", {}).items()}}
    body.pop(case.get("without"), None)
    return json.dumps(body).encode()


def wrong_with(case: Json, status: int, text: str) -> list[str]:
    """What an answer to a mistake lacks."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return [f"{case['says']}: {status} {text[:200]!r}"]
    expected = {
        "status": status == case["status"],
        "form": set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error",
        "param": error["param"] == case.get("param"),
        "message": case["message"] in error["message"],
        "length": len(error["message"]) <= 1000,
        "one line": not error["message"].endswith(".") and "\n" not in error["message"],
    }
    return [f"{case['says']}: {name}: {status} {error}" for name, right in expected.items() if not right]


async def test_each_mistake_is_told_by_its_field(tmp_path: Path) -> None:
    """One server for all of them, which then answers as ever."""
    async with serving(engine, tmp_path) as server:
        answers = [(case, await server.client.post(CREATE, content=sent(case))) for case in CASES]
        assert (await server.post(CREATE, BODY)).status_code == 200
    assert [fault for case, answer in answers for fault in wrong_with(case, answer.status_code, answer.text)] == []
    assert not [*(tmp_path / "responses").glob("*/unfinished")]


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with serving(engine, tmp_path, body_bytes=1000) as server:
        refused = await server.post(CREATE, {**BODY, "input": 1000 * "x"})
        assert (await server.post(CREATE, BODY)).status_code == 200
    assert refused.status_code == 413


async def test_other_methods_and_paths_are_answered_in_the_same_form(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        wrong = await server.client.put(CREATE, json=BODY)
        nowhere = await server.client.post(f"{CREATE}/x/y/z", json=BODY)
        queries = [
            await server.client.get(f"{CREATE}/resp_{32 * '0'}/input_items?{query}")
            for query in ("limit=many", "order=up", "limit=0")
        ]
    assert (wrong.status_code, nowhere.status_code) == (405, 404)
    assert [query.json()["error"]["param"] for query in queries] == ["limit", "order", "limit"]
    assert all(set(each.json()) == {"error"} for each in (wrong, nowhere, *queries))
