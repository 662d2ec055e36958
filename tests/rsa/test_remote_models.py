"""Remote models from the command line and the library, on a server over a socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from command_line import rsa
from stub_server.faults import Fault, FaultPlan
from stub_server.running import Running, running
from stub_server.server import StubServer
from stub_server.shapes import dialect

from engine.scripted import ScriptedEngine
from evals.report import write_report
from rsa import MarkovianRSA
from rsa.compose import open_in_thread
from rsa.errors import ConfigError
from rsa.events import CandidateFinished
from rsa.runlog import read_events, read_run

pytestmark = pytest.mark.thorough

SIZES = ["--n", 4, "--c", 2, "--t", 1, "--beta", 60, "--tau", 20, "--answer-budget", 16]


@pytest.fixture
def server() -> Iterator[Running]:
    with running(StubServer("vllm")) as found:
        yield found


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "RSA_MODEL"):
        monkeypatch.delenv(name, raising=False)
    Path("problem.txt").write_text("What is 2 + 2?")


def solved(server: Running, out: str, *more: object) -> dict[str, Any]:
    code, _, err = rsa(
        "solve", "problem.txt", "--model", "openai:tiny", "--base-url", server.url, *SIZES, "--out", out, *more
    )
    assert code in (0, 3), err
    result: dict[str, Any] = json.loads(Path(out, "result.json").read_text())
    return result


def told(result: dict[str, Any]) -> Any:
    """What does not depend on a clock, nor on a port."""
    rounds = json.loads(json.dumps(result["rounds"]))
    for played in rounds:
        for each in (played, *played["candidates"]):
            each.pop("started_s"), each.pop("finished_s")
    return rounds


def test_a_run_is_repeated_and_resumed(server: Running) -> None:
    first, again = solved(server, "first"), solved(server, "again")
    assert told(first) == told(again)
    lines = Path("first/events.jsonl").read_text().splitlines(keepends=True)
    Path("first/result.json").unlink()
    Path("first/events.jsonl").write_text("".join(lines[: len(lines) // 2]))
    code, _, err = rsa("solve", "--resume", "first")
    assert code in (0, 3), err
    assert told(json.loads(Path("first/result.json").read_text())) == told(again)


def test_a_run_goes_on_with_a_server_that_has_moved(server: Running) -> None:
    expected = solved(server, "whole")
    solved(server, "moved")
    Path("moved/result.json").unlink()
    Path("moved/events.jsonl").write_text("".join(Path("moved/events.jsonl").read_text().splitlines(keepends=True)[:5]))
    server.die()
    code, _, err = rsa("solve", "--resume", "moved")
    assert (code, err.count("\n")) == (4, 2), "the error, and how to go on"
    assert "cannot connect to" in err
    with running(StubServer("vllm")) as other:
        code, _, err = rsa("solve", "--resume", "moved", "--base-url", other.url)
        assert code in (0, 3), err
    assert told(json.loads(Path("moved/result.json").read_text())) == told(expected)


def test_interruptions_are_kept_and_shown() -> None:
    faults = FaultPlan([*[None] * 20, Fault("cut", 9), Fault("500")])
    with running(StubServer("vllm", faults=faults)) as broken, running(StubServer("vllm")) as well:
        solved(broken, "broken")
        expected = solved(well, "well")
    ended = [event.candidate for event in read_events("broken") if isinstance(event, CandidateFinished)]
    kept = [each for candidate in ended if candidate.completion for each in candidate.completion.interruptions]
    assert len(kept) == sum(faults.injected.values()) <= 2
    assert len(ended) == len(told(expected)[0]["candidates"]) * 2


def test_tails_that_are_estimated_are_marked(server: Running) -> None:
    with running(StubServer(dialect("openai", reasoning="tags"))) as estimating:
        code, _, err = rsa(
            "solve", "problem.txt", "--model", "openai:tiny", "--base-url", estimating.url, *SIZES, "--out", "rough"
        )
    assert code in (0, 3), err
    assert err.count("tokens are estimated") == err.count("--tokenizer names a folder") == 1
    ended = [event.candidate for event in read_events("rough") if isinstance(event, CandidateFinished)]
    assert all(candidate.tail and candidate.tail.text and candidate.tail.approximate for candidate in ended)
    assert "approximate" in write_report("rough").read_text()
    exact = [event.candidate for event in read_events_of(server) if isinstance(event, CandidateFinished)]
    assert not any(candidate.tail and candidate.tail.approximate for candidate in exact)


def read_events_of(server: Running) -> list[Any]:
    solved(server, "exact")
    return list(read_events("exact"))


def test_the_key_is_in_no_file_and_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(StubServer("vllm", key="sk-secret")) as guarded:
        code, out, err = rsa("models", "info", "openai:tiny", "--base-url", guarded.url)
        assert (code, err.count("\n")) == (4, 1)
        assert "wants a key" in err
        monkeypatch.setenv("MINE", "sk-wrong")
        code, out, err = rsa("models", "info", "openai:tiny", "--base-url", guarded.url, "--api-key-env", "MINE")
        assert "refuses the key in MINE" in err
        assert "sk-wrong" not in out + err
        monkeypatch.setenv("MINE", "sk-secret")
        solved(guarded, "run", "--api-key-env", "MINE")
        code, _, err = rsa("solve", "--resume", "run")
        assert code in (0, 3), err
    assert read_run("run")[0].model.details["api_key_env"] == "MINE"
    assert not any(b"sk-secret" in path.read_bytes() for path in Path("run").rglob("*") if path.is_file())


def test_facts_for_people_and_for_programs(server: Running) -> None:
    code, out, _ = rsa("models", "info", "openai:tiny", "--base-url", server.url)
    assert code == 0
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (facts["name"], facts["streaming"], facts["server"]) == ("tiny", "yes", "vllm")
    _, out, _ = rsa("models", "info", "openai:tiny", "--base-url", server.url, "--json")
    assert json.loads(out)["details"]["source"] == "openai:tiny"
    code, out, _ = rsa("doctor", "--model", "openai:tiny", "--base-url", server.url)
    assert "thinking budget yes" in out
    with running(StubServer("vllm", model="other")) as other:
        code, out, _ = rsa("doctor", "--model", "openai:tiny", "--base-url", f"{server.url},{other.url}")
    assert code == 4
    assert f"!!  model          {other.url} has no model 'tiny'; it has other" in out
    server.die()
    code, out, _ = rsa("doctor", "--model", "openai:tiny", "--base-url", server.url)
    assert code == 4
    assert "!!  model" in out
    assert "cannot connect" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["openai:huge", "--base-url", "URL"], "has no model 'huge'; it has tiny"),
        (["openai:tiny"], "no server given: set --base-url to its URL"),
        (["openai:tiny", "--base-url", "here"], "--base-url = here: should be a URL"),
        (["openai:tiny", "--base-url", "URL", "--max-rows", "0"], "--max-rows = 0: should be at least 1"),
        (["openai:tiny", "--base-url", "URL", "--tokenizer", "nowhere"], "nowhere"),
        (["nano", "--base-url", "URL"], "engines of the kind 'mlx' take no --base-url"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], says: str, server: Running) -> None:
    given = [server.url if word == "URL" else word for word in words]
    code, _, err = rsa("solve", "problem.txt", "--model", *given)
    assert code in (2, 4)
    assert err.startswith("error: ")
    assert (err.count("\n"), says in err) == (1, True), err


async def solve(server: Running) -> Any:
    options = {"base_url": server.url}
    async with MarkovianRSA("openai:tiny", engine_options=options, n=2, t=0, beta=20, answer_budget=8) as rsa:
        return await rsa.solve("What is 2 + 2?")


@pytest.mark.anyio
async def test_the_library_takes_it(server: Running) -> None:
    result = await solve(server)
    assert result.model.name == "tiny"
    assert result.usage.completion_tokens > 0
    with pytest.raises(ConfigError, match="engine_options are for"):
        MarkovianRSA(ScriptedEngine("4"), engine_options={"base_url": server.url})


@pytest.mark.anyio
async def test_who_leaves_while_a_server_is_silent_does_not_wait_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, anyio.fail_after(30):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with anyio.create_task_group() as group:
            group.start_soon(partial(open_in_thread, "openai:tiny", base_url=url))
            connection, _ = await anyio.to_thread.run_sync(silent.accept)
            group.cancel_scope.cancel()
        connection.close()
