"""A server killed in the midst of responses in the background: the next one goes on with them."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2
from open_responses import CREATE, Json, added_up, check_event, check_response, events_of, text_of
from serving import served_process

PLAY = r"""
from engine.script import Script

THOUGHTS = " ".join(map(str, range(5_000)))

def script(request):
    return Script(reasoning=THOUGHTS, answer=f"It is \\boxed{{{request.sampling.seed % 3}}}.", tokens_per_step=8)
"""
"""A model that thinks for a while; what it answers depends on its seed."""
ASKED: dict[str, Json] = {
    "run": {"model": "play:rsa", "rsa": {"n": 4, "t": 2, "beta": 32_000, "tau": 100}, "input": "?", "seed": 3},
    "model": {"model": "play", "input": "?", "seed": 3},
}


def ask(url: str, body: Json) -> str:
    started = httpx2.post(url + CREATE, json={**body, "background": True}, timeout=60)
    assert started.status_code == 200, started.text
    return str(started.json()["id"])


def read(url: str, response_id: str, query: str = "") -> httpx2.Response:
    return httpx2.get(f"{url}{CREATE}/{response_id}{query}", timeout=60)


def told_until_a_delta(url: str, response_id: str) -> list[Json]:
    """The events of a response up to its first delta."""
    lines = []
    with httpx2.stream("GET", f"{url}{CREATE}/{response_id}?stream=true", timeout=60) as stream:
        for line in stream.iter_lines():
            lines.append(line)
            if "delta" in line and line.startswith("data:"):
                break
    return events_of("\n".join([*lines, "", "data: [DONE]", "", ""]))


def test_responses_go_on_after_the_servers_death(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(PLAY)
    words = ["--model", "play=scripted:play.py", "--runs"]
    with served_process(*words, tmp_path / "unbroken", cwd=tmp_path) as (_, url):
        ids = {kind: ask(url, body) for kind, body in ASKED.items()}
        unbroken = {kind: events_of(read(url, ids[kind], "?stream=true").text)[-1]["response"] for kind in ids}

    with served_process(*words, tmp_path / "runs", cwd=tmp_path) as (process, url):
        ids = {kind: ask(url, body) for kind, body in ASKED.items()}
        before = {kind: told_until_a_delta(url, ids[kind]) for kind in ids}
        process.send_signal(signal.SIGKILL)
        process.wait()

    with served_process(*words, tmp_path / "runs", cwd=tmp_path) as (_, url):
        for kind, response_id in ids.items():
            last = before[kind][-1]["sequence_number"]
            events = before[kind] + events_of(read(url, response_id, f"?stream=true&starting_after={last}").text)
            found = read(url, response_id).json()
            for event in events:
                check_event(event)
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert added_up(events)[-1] == found["output"][-1]
            assert "response.in_progress" in [event["type"] for event in events[len(before[kind]) :]]
            check_response(found)
            assert found["status"] == unbroken[kind]["status"] == "completed"
            assert text_of(found["output"][-1]) == text_of(unbroken[kind]["output"][-1])
    assert not [*(tmp_path / "runs").glob("responses/*/unfinished")]
