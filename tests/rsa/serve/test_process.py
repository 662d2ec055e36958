"""`rsa serve` as a process of its own: killed and started again, asked to end, asked twice, wrongly started."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from processes import run
from serving import served_process

from rsa import MarkovianRSA, read_events
from rsa.events import CandidateFinished
from rsa.folders import lock_folder

PROBLEM = "Use 3, 7, 5 and 2 once each to make 24."
SETTINGS: dict[str, Any] = {"n": 3, "c": 2, "t": 1, "beta": 64, "tau": 32}
SEED = 11
ENDLESS = """
from engine.scripted import Script
script = Script(reasoning=" ".join(str(number) for number in range(20_000)), never_ends=True, tokens_per_step=1)
"""


LONG = {**SETTINGS, "beta": 10**9}


def body(model: str, settings: dict[str, Any] = SETTINGS) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROBLEM}]
    return {"model": model, "messages": messages, "rsa": settings, "seed": SEED, "stream": True}


@contextmanager
def stream_of(url: str, path: str, asked: dict[str, Any] | None = None) -> Iterator[Iterator[str]]:
    """The lines of a stream that is begun; a POST where something is asked."""
    with (
        httpx2.Client(base_url=url, timeout=60) as client,
        client.stream("POST" if asked else "GET", path, json=asked) as response,
    ):
        assert response.status_code == 200, response.read()
        yield response.iter_lines()


def until(found: Callable[[], Any]) -> Any:
    """What is found at last; the test's time limit ends a wait in vain."""
    while not (value := found()):
        pass
    return value


def runs(url: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = httpx2.get(f"{url}/v1/runs", timeout=30).json()["data"]
    return listed


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """A model that never comes to an end."""
    (tmp_path / "play.py").write_text(ENDLESS)
    return f"endless=scripted:{tmp_path / 'play.py'}"


def test_killed_and_started_again_it_ends_as_an_unbroken_run(tmp_path: Path) -> None:
    with served_process(cwd=tmp_path) as (process, url):
        with stream_of(url, "/v1/chat/completions", body("nano:rsa")) as lines:
            next(lines)
            (begun,) = runs(url)
            with stream_of(url, f"/v1/runs/{begun['id']}/events") as events:
                assert any(line == "event: candidate_finished" for line in events)
            process.kill()
        process.wait()
    log = tmp_path / "runs" / begun["id"]
    assert any(isinstance(event, CandidateFinished) for event in read_events(log))
    assert not (log / "result.json").exists()
    with served_process("--resume", "all", cwd=tmp_path) as (_, url):
        with stream_of(url, f"/v1/runs/{begun['id']}/events") as events:
            told = [json.loads(line.removeprefix("data: ")) for line in events if line.startswith("data: ")]
        assert runs(url) == [{**told[-1]}]
    unbroken = MarkovianRSA("nano", **SETTINGS).solve_sync(PROBLEM, seed=SEED)
    assert told[-1]["state"] == "finished"
    assert told[-1]["answer"] == unbroken.answer
    candidates = {
        (each["candidate"]["round"], each["candidate"]["index"]): each["candidate"]["completion"]["token_ids"]
        for each in told
        if each.get("type") == "candidate_finished"
    }
    assert candidates == {
        (c.round, c.index): [*c.completion.token_ids] for each in unbroken.rounds for c in each.candidates
    }


def test_asked_to_end_it_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    with served_process(cwd=tmp_path) as (process, url):
        with stream_of(url, "/v1/chat/completions", body("nano:rsa")) as lines:
            assert any("Attempt" in line for line in lines)
            process.terminate()
            refused = until(lambda: refusal(url))
            rest = [line for line in lines if line]
        assert refused["code"] == "shutting_down"
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["rsa"]["stopped_because"] == "finished"
        assert process.wait() == 128 + signal.SIGTERM


def refusal(url: str) -> dict[str, Any] | None:
    """The error that a new request gets, if it gets one."""
    asked = {**body("nano"), "rsa": None, "max_completion_tokens": 1, "stream": False}
    response = httpx2.post(f"{url}/v1/chat/completions", json=asked, timeout=30)
    error: dict[str, Any] = response.json().get("error")
    assert response.status_code == (503 if error else 200)
    return error


def test_what_does_not_end_in_time_is_interrupted_and_can_be_gone_on_with(tmp_path: Path, endless: str) -> None:
    with served_process("--model", endless, "--grace", "0.1", cwd=tmp_path) as (process, url):
        plain = {**body("endless"), "rsa": None}
        with (
            stream_of(url, "/v1/chat/completions", body("endless:rsa", LONG)) as lines,
            stream_of(url, "/v1/chat/completions", plain) as plain_lines,
        ):
            next(lines)
            next(plain_lines)
            process.terminate()
            for each in (lines, plain_lines):
                *_, error, done = [line.removeprefix("data: ") for line in each if line]
                assert json.loads(error)["error"]["code"] == "interrupted"
                assert done == "[DONE]"
        assert process.wait() == 128 + signal.SIGTERM
    with served_process("--model", endless, cwd=tmp_path) as (_, url):
        (found,) = runs(url)
        assert found["state"] == "interrupted"
        assert httpx2.post(f"{url}/v1/runs/{found['id']}/resume").json()["state"] in ("queued", "running")
        cancelled = httpx2.post(f"{url}/v1/runs/{found['id']}/cancel", timeout=30).json()
        assert cancelled["state"] == "cancelled"


def test_a_second_signal_ends_it_at_once(tmp_path: Path, endless: str) -> None:
    with (
        served_process("--model", endless, "--grace", "1000", cwd=tmp_path) as (process, url),
        stream_of(url, "/v1/chat/completions", body("endless:rsa", LONG)) as lines,
    ):
        next(lines)
        process.send_signal(signal.SIGINT)
        asked = {**body("endless"), "rsa": None, "stream": False, "max_completion_tokens": 1}
        until(lambda: httpx2.post(f"{url}/v1/chat/completions", json=asked, timeout=30).status_code == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT


def test_a_client_that_is_gone_stops_its_run(tmp_path: Path, endless: str) -> None:
    with served_process("--model", endless, cwd=tmp_path) as (_, url):
        with stream_of(url, "/v1/chat/completions", body("endless:rsa", LONG)) as lines:
            next(lines)
        until(lambda: [each["state"] for each in runs(url)] == ["cancelled"])


def test_wrong_starts_are_told_in_a_line(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "rsa", "serve"]
    with lock_folder(tmp_path):
        done = run([*serve, "--port", "0", "--runs", tmp_path], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: another process is working in {tmp_path}: wait for it or stop it\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run([*serve, "--port", port], cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: cannot listen at 127.0.0.1, --port {port} (Address already in use): choose another one\n"
    )
    done = run([*serve, "--port", "0", "--model", "nanno"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no model is called 'nanno'; did you mean 'nano'?")
