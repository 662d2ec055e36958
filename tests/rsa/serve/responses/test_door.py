"""`/v1/responses` over a socket: whole and streamed, kept and gone on from, in the background, cancelled, deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from open_responses import CREATE, Json, check_response, check_stream, events_of, text_of
from serving import Serving, serving

from engine.scripted import Script, ScriptedEngine

SCRIPT = Script(reasoning="2 and 2 make 4", answer="It is \\boxed{4}.")
RUN: Json = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 1, "c": 2}, "seed": 5}
QUESTION = "What is 2 + 2?"
pytestmark = pytest.mark.anyio


def engine() -> ScriptedEngine:
    return ScriptedEngine(SCRIPT)


def body(**fields: Any) -> Json:
    return {"model": "scripted", "input": QUESTION, **fields}


async def ask(server: Serving, **fields: Any) -> Json:
    response = await server.post(CREATE, body(**fields))
    assert response.status_code == 200, response.text
    found: Json = response.json()
    check_response(found)
    return found


async def streamed(server: Serving, **fields: Any) -> list[Json]:
    response = await server.post(CREATE, body(stream=True, **fields))
    assert response.headers["content-type"].startswith("text/event-stream")
    return events_of(response.text)


async def got(server: Serving, response_id: str, query: str = "") -> httpx2.Response:
    return await server.client.get(f"{CREATE}/{response_id}{query}")


async def until(server: Serving, response_id: str, wanted: Callable[[Json], bool]) -> Json:
    """The response once it is as wanted; the test's time limit ends the wait."""
    while True:
        found: Json = (await got(server, response_id)).json()
        if wanted(found):
            return found
        await anyio.lowlevel.checkpoint()


def kept(runs: Path, pattern: str = "*") -> list[Path]:
    """What there is of responses on the disk."""
    return [*(runs / "responses").glob(pattern)]


def without_its_own(response: Json) -> Json:
    """What does not differ between two responses to the same request."""
    own = ("id", "created_at", "completed_at")
    items = [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
    rsa = {key: value for key, value in (response["rsa"] or {}).items() if key not in ("run_id", "wall_s")}
    return {**{key: value for key, value in response.items() if key not in own}, "output": items, "rsa": rsa}


@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_a_stream_ends_with_what_a_whole_answer_is(tmp_path: Path, fields: Json) -> None:
    async with serving(engine, tmp_path) as server:
        whole = await ask(server, **fields)
        last = check_stream(await streamed(server, **fields))
    assert without_its_own(last) == without_its_own(whole)
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
    assert whole["output"][1]["content"][0]["text"] == SCRIPT.answer
    assert whole["status"] == "completed"


async def test_the_tokens_of_a_run_are_counted_by_round(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await ask(server, **RUN)
    assert found["usage"]["output_tokens"] == sum(r["usage"]["completion_tokens"] for r in found["rsa"]["rounds"])
    assert found["rsa"]["votes"][0]["count"] == 3
    assert "Votes: 4 by 3 of 3." in text_of(found["output"][0])


async def test_an_answer_cut_off_by_its_tokens_is_incomplete(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        last = check_stream(await streamed(server, max_output_tokens=20))
    assert last["status"] == "incomplete"
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["output"][-1]["status"] == "incomplete"


async def test_a_run_without_an_answer_to_compare_gives_a_text(tmp_path: Path) -> None:
    poem = Script(reasoning="rhyme", answer="Roses are red.")
    async with serving(lambda: ScriptedEngine(poem), tmp_path) as server:
        found = await ask(server, **RUN)
        cut = await ask(server, **{**RUN, "rsa": {**RUN["rsa"], "answer_budget": 5}})
    assert found["status"] == "completed"
    assert text_of(found["output"][-1]) == "Roses are red."
    assert (found["rsa"]["answer"], found["rsa"]["votes"]) == (None, [])
    assert cut["status"] == "incomplete"


async def test_what_was_asked_is_said_again(tmp_path: Path) -> None:
    asked = {
        "instructions": "Be short.",
        "metadata": {"who": "me"},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "me",
    }
    async with serving(engine, tmp_path) as server:
        found = await ask(server, **asked)
    for name, value in asked.items():
        assert value == ({key: found[name][key] for key in value} if isinstance(value, dict) else found[name])


async def test_a_conversation_goes_on_from_a_response(tmp_path: Path) -> None:
    engines = [engine()]
    async with serving(lambda: engines[0], tmp_path) as server:
        first = await ask(server, instructions="Be short.")
        second = await ask(server, input="And 3 + 3?", previous_response_id=first["id"], instructions="Be long.")
        await ask(server, input="And 4 + 4?", previous_response_id=second["id"])
    turns = [(message.role, message.text) for message in engines[0].requests[-1].messages]
    answer = ("assistant", SCRIPT.answer)
    assert turns == [("user", QUESTION), answer, ("user", "And 3 + 3?"), answer, ("user", "And 4 + 4?")]
    assert engines[0].requests[1].messages[0].text == "Be long."


async def test_a_conversation_may_be_sent_back_item_by_item(tmp_path: Path) -> None:
    engines = [engine()]
    async with serving(lambda: engines[0], tmp_path) as server:
        first = await ask(server)
        question = {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
        await ask(server, input=[question, *first["output"], {"role": "user", "content": "And 3 + 3?"}], store=False)
    turns = [(message.role, message.text) for message in engines[0].requests[-1].messages]
    assert turns == [("user", QUESTION), ("assistant", SCRIPT.answer), ("user", "And 3 + 3?")]


async def test_responses_are_kept_for_the_next_server(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        whole = await ask(server, **RUN)
        last = check_stream(await streamed(server))
    engines = [engine()]
    async with serving(lambda: engines[0], tmp_path) as server:
        assert (await got(server, whole["id"])).json() == whole
        assert (await got(server, last["id"])).json() == last
        await ask(server, input="And 3 + 3?", previous_response_id=last["id"])
    assert [message.text for message in engines[0].requests[-1].messages] == [QUESTION, SCRIPT.answer, "And 3 + 3?"]


async def test_what_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await ask(server, store=False)
        missing = await got(server, found["id"])
        after = await server.post(CREATE, body(previous_response_id=found["id"]))
    assert missing.status_code == 404
    assert missing.json()["error"]["param"] == "response_id"
    assert after.status_code == 404
    assert after.json()["error"]["code"] == "previous_response_not_found"
    assert after.json()["error"]["param"] == "previous_response_id"


@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_in_the_background_an_answer_is_worked_out_alone(tmp_path: Path, fields: Json) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: made, tmp_path) as server:
        asked = await ask(server, background=True, **fields)
        assert asked["status"] in ("queued", "in_progress")
        assert asked["output"] == []
        await until(server, asked["id"], lambda found: found["status"] == "in_progress")
        made.release()
        found = await until(server, asked["id"], lambda found: found["status"] == "completed")
        check_response(found)
        assert text_of(found["output"][-1]) == SCRIPT.answer
        events = events_of((await got(server, asked["id"], "?stream=true")).text)
        assert check_stream(events) == found
        assert events_of((await got(server, asked["id"], "?stream=true&starting_after=3")).text) == events[4:]
        assert not kept(tmp_path, "*/unfinished")


async def test_a_stream_of_the_background_goes_on_without_its_client(tmp_path: Path) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: made, tmp_path) as server:
        asked = body(background=True, stream=True)
        async with server.client.stream("POST", CREATE, json=asked) as response:
            lines = response.aiter_lines()
            first = [await anext(lines), await anext(lines)]
        (created,) = events_of("\n".join([*first, "", "data: [DONE]", "", ""]))
        made.release()
        rest = events_of((await got(server, created["response"]["id"], "?stream=true&starting_after=0")).text)
    assert check_stream([created, *rest])["status"] == "completed"


@pytest.mark.parametrize("in_order", [False, True], ids=["at-once", "in-order"])
@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_the_next_server_goes_on_with_what_one_had_to_leave(tmp_path: Path, fields: Json, in_order: bool) -> None:
    held = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: held, tmp_path) as server:
        asked = await ask(server, background=True, **fields)
        await until(server, asked["id"], lambda found: found["status"] == "in_progress")
        if in_order:
            server.service.draining = True
            server.service.interrupt()
            events = (await got(server, asked["id"], "?stream=true")).text
            assert "[DONE]" not in events
    async with serving(engine, tmp_path, resume="none") as server:
        left = (await got(server, asked["id"])).json()
        assert check_stream(events_of((await got(server, asked["id"], "?stream=true")).text)) == left
        assert left["status"] == "failed"
    async with serving(engine, tmp_path) as server:
        found = await until(server, asked["id"], lambda found: found["status"] == "completed")
        assert check_stream(events_of((await got(server, asked["id"], "?stream=true")).text)) == found
    assert text_of(found["output"][-1]) == SCRIPT.answer


async def test_who_leaves_a_stream_cancels_it(tmp_path: Path) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: made, tmp_path) as server:
        async with server.client.stream("POST", CREATE, json=body(stream=True)) as response:
            await anext(response.aiter_lines())
            assert made.active == 1
        while made.active:
            await anyio.lowlevel.checkpoint()
    assert not kept(tmp_path)


@pytest.mark.parametrize("fields", [{}, RUN], ids=["model", "run"])
async def test_a_response_in_the_background_can_be_cancelled(tmp_path: Path, fields: Json) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: made, tmp_path) as server:
        asked = await ask(server, background=True, **fields)
        await until(server, asked["id"], lambda found: found["status"] == "in_progress")
        first = await server.client.post(f"{CREATE}/{asked['id']}/cancel")
        again = await server.client.post(f"{CREATE}/{asked['id']}/cancel")
        while made.active:
            await anyio.lowlevel.checkpoint()
        events = events_of((await got(server, asked["id"], "?stream=true")).text)
    assert first.json()["status"] == "cancelled"
    assert first.json() == again.json() == check_stream(events)


async def test_a_cancelled_run_is_a_cancelled_response(tmp_path: Path) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: True)
    async with serving(lambda: made, tmp_path) as server:
        asked = await ask(server, background=True, **RUN)
        (handle,) = server.service.runs.live
        handle.cancel()
        found = await until(server, asked["id"], lambda found: found["status"] == "cancelled")
    assert found["error"] is None


async def test_only_what_is_in_the_background_can_be_cancelled(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await ask(server)
        refused = await server.client.post(f"{CREATE}/{found['id']}/cancel")
    assert refused.status_code == 400
    assert "background" in refused.json()["error"]["message"]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_deleted_response_is_gone(tmp_path: Path, ended: bool) -> None:
    made = ScriptedEngine(SCRIPT, hold=lambda _: not ended)
    async with serving(lambda: made, tmp_path) as server:
        asked = await ask(server, background=not ended)
        deleted = await server.client.delete(f"{CREATE}/{asked['id']}")
        assert deleted.json() == {"id": asked["id"], "object": "response", "deleted": True}
        assert (await got(server, asked["id"])).status_code == 404
        assert (await server.client.delete(f"{CREATE}/{asked['id']}")).status_code == 404
    assert not kept(tmp_path)


async def test_a_failure_in_mid_stream_is_an_event(tmp_path: Path) -> None:
    from engine.errors import OutOfMemoryError

    broken = Script(reasoning="2 and 2 make 4", error=OutOfMemoryError("no room: lower n"), fail_after=5)
    async with serving(lambda: ScriptedEngine(broken, tokens_per_step=1), tmp_path, first_byte_s=0) as server:
        last = check_stream(await streamed(server))
        whole = await server.post(CREATE, body())
    assert last["status"] == "failed"
    assert last["error"] == {"code": "server_error", "message": "no room: lower n"}
    assert whole.status_code == 503


async def test_the_items_of_a_response_can_be_read(tmp_path: Path) -> None:
    items = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
    async with serving(engine, tmp_path) as server:
        found = await ask(server, input=items)
        path = f"{CREATE}/{found['id']}/input_items"
        newest = (await server.client.get(f"{path}?limit=2")).json()
        rest = (await server.client.get(f"{path}?limit=2&after={newest['last_id']}")).json()
        in_order = (await server.client.get(f"{path}?order=asc")).json()
    assert newest["has_more"]
    assert not rest["has_more"]
    parts = [part for item in in_order["data"] for part in item["content"]]
    assert [part["text"] for part in parts] == ["user", "assistant", "user"]
    assert [part["type"] for part in parts] == ["input_text", "output_text", "input_text"]
    assert [*newest["data"], *rest["data"]] == in_order["data"][::-1]
