"""Clients' mistakes: an HTTP status and OpenAI's error form, which names the field; and the server goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving import chat_body, serving

from engine.errors import BackendError, EngineClosedError, ModelError
from engine.scripted import Script, ScriptedEngine
from rsa.serve.errors import api_error, path_of

CASES = json.loads((Path(__file__).resolve().parents[2] / "data" / "chat_mistakes.json").read_text(encoding="utf-8"))


def engine() -> ScriptedEngine:
    return ScriptedEngine(Script(reasoning="so", answer=r"\boxed{4}"), images=False)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_each_names_its_field(tmp_path: Path, stream: bool) -> None:
    wrong = []
    async with serving(engine, tmp_path) as server:
        for case in CASES:
            fields = {**chat_body("What is 2 + 2?", stream=stream), **case.get("with", {})}
            if stream and "stream_options" in fields:
                continue
            body = case.get("body", json.dumps({k: v for k, v in fields.items() if k not in case.get("without", [])}))
            response = await server.client.post("/v1/chat/completions", content=body.encode())
            error = response.json()["error"]
            told = (response.status_code, error["param"], error["type"], error["code"])
            wanted = (case["status"], case["param"], "invalid_request_error", case.get("code", error["code"]))
            if told != wanted or case["says"] not in error["message"]:
                wrong.append((case, response.status_code, error))
        assert (await server.chat())["choices"][0]["message"]["content"] == r"\boxed{4}"
        assert (await server.client.get("/v1/runs")).json()["data"] == []
    assert not wrong, wrong


@pytest.mark.anyio
async def test_where_there_is_nothing_it_says_so(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        nothing = await server.client.get("/v2/chat")
        wrong = await server.client.delete("/v1/chat/completions")
        long = await server.client.get("/" + "x" * 5000)
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
    assert nothing.json()["error"]["message"] == "there is nothing at /v2/chat: /openapi.json says what there is"
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["message"].startswith("/v1/chat/completions takes no DELETE: ")
    assert len(long.json()["error"]["message"]) < 200


@pytest.mark.anyio
async def test_what_only_the_model_can_tell(tmp_path: Path) -> None:
    """Faults that show when the engine is asked are an HTTP status too, streamed or not."""
    image = "data:image/png;base64,iVBORw0KGgo="
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}]
    pictured = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, picture[0]["content"][0]]}]
    }
    small = {"messages": [{"role": "user", "content": "word " * 100}]}
    huge = {"messages": [{"role": "user", "content": "word " * 10**5}]}
    async with serving(
        lambda: ScriptedEngine("so", images=False, context_tokens=200), tmp_path, first_byte_s=60
    ) as server:
        for fields, says in ((pictured, "reads text only"), (small, "reads 200 at most"), (huge, "500,000 characters")):
            for model in ("scripted", "scripted:rsa"):
                for stream in (False, True):
                    body = {**chat_body("", model=model, stream=stream), **fields}
                    response = await server.post("/v1/chat/completions", body)
                    assert response.status_code == 400, (fields, response.text)
                    assert says in response.json()["error"]["message"] or "fit" in response.json()["error"]["message"]
                    assert response.json()["error"]["param"] == "messages"


@pytest.mark.anyio
async def test_an_unknown_address(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        for method, path, status in (("GET", "/v1/nowhere", 404), ("GET", "/v1/chat/completions", 405)):
            response = await server.client.request(method, path)
            assert response.status_code == status
            assert response.json()["error"]["type"] == "invalid_request_error"
        for path in ("/v1/runs/run_1", "/v1/runs/..%2f..%2fetc", "/v1/models/nobody", "/v1/runs?limit=x"):
            response = await server.client.get(path)
            assert response.status_code in (400, 404)
            assert response.json()["error"]["message"]


def test_trouble_of_engines_is_told_apart() -> None:
    assert api_error(EngineClosedError("x")).status == 503
    assert api_error(EngineClosedError("x")).headers == {"Retry-After": "1"}
    assert api_error(ModelError("x")).code == api_error(BackendError("x")).code == "model_unavailable"
    told = api_error(ZeroDivisionError("a secret"))
    assert (told.status, told.type) == (500, "server_error")
    assert "secret" not in told.message


def test_paths_are_written_as_people_write_them() -> None:
    assert path_of(("messages", 2, "content", "list[ContentPart]", 0, "image_url", "url")) == (
        "messages[2].content[0].image_url.url"
    )
    assert path_of(("rsa", "Any Key")) == "rsa['Any Key']"
