"""`rsa mcp` as a process: on standard input and output, and over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from processes import started
from serving import URL
from typer.testing import CliRunner

from rsa.command import mcp as command
from rsa.command.cli import app
from rsa.serve.orders import read_summary

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]
Process = Any
"""Of `processes.started`."""
SCRIPT = """
from engine.scripted import Script

script = Script(reasoning="hm", answer=r"\\boxed{4}")
"""
SLOW_SCRIPT = """
from engine.scripted import Script

script = Script(reasoning="hm", answer="4", held=True)
"""
CALL = {"problem": "Add up 48, 93 and 120.", "n": 2, "t": 0, "beta": 256, "seed": 1}


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RSA_")} | {"HF_HUB_OFFLINE": "1"}


async def test_the_sdk_s_client_starts_it_and_has_a_puzzle_solved(tmp_path: Path) -> None:
    words = ["-m", "rsa", "mcp", "--runs", "kept"]
    server = StdioServerParameters(command=sys.executable, args=words, cwd=tmp_path, env=environment())
    lines: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        lines.append(message)

    async with Client(server) as client:
        found = await client.call_tool("solve", CALL, progress_callback=note)
    told = found.structured_content or {}
    assert told["check"]["mark"] == "verified"
    assert Path(told["run_folder"]).parent == (tmp_path / "kept").resolve()
    assert any(line and line.startswith("Votes: ") for line in lines)


# ---- by hand: what stands on the streams, and how it ends


def asks(process: Process, method: str, number: int, **params: Any) -> None:
    """Write a request of the protocol's newest version."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": meta}}
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()


def reads(process: Process, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The next message that is wanted; every line is one."""
    assert process.stdout is not None
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        if wanted(message):
            return message
    raise AssertionError("it has ended")


@pytest.mark.parametrize("ending", ["input closed", "SIGTERM", "SIGINT"])
def test_it_speaks_the_protocol_alone_and_ends_in_order(tmp_path: Path, ending: str) -> None:
    (tmp_path / "slow.py").write_text(SLOW_SCRIPT)
    words = [sys.executable, "-m", "rsa", "mcp", "--model", "scripted:slow.py"]
    with started(words, cwd=tmp_path, env=environment(), stdin=PIPE) as process:
        asks(process, "tools/list", 1)
        listed = reads(process, lambda message: message.get("id") == 1)
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["solve"]
        params = {"name": "solve", "arguments": {"problem": "x", "n": 2, "c": 2, "t": 0}}
        asks(process, "tools/call", 2, **params, progressToken=None)
        (tmp_path / "runs").mkdir(exist_ok=True)
        begun = until_begun(process, tmp_path / "runs")
        assert process.stdin is not None
        if ending == "input closed":
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, ending))
        assert process.wait(30) == {"input closed": 0, "SIGTERM": 143, "SIGINT": 130}[ending]
        assert process.stdout is not None
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in process.stdout)
    assert read_summary(begun).state == ("cancelled" if ending == "input closed" else "interrupted")


def until_begun(process: Process, runs: Path) -> Path:
    """The folder of the only run, once it is at work: it answers no earlier than it has read its input."""
    for number in range(10, 10_000):
        asks(process, "tools/list", number)
        reads(process, lambda message, number=number: message.get("id") == number)  # type: ignore[misc]
        for folder in runs.iterdir():
            if (folder / "state.json").is_file() and read_summary(folder).state == "running":
                return folder
    raise AssertionError("no run has begun")


async def test_over_http_and_ended_by_a_signal(tmp_path: Path) -> None:
    (tmp_path / "quick.py").write_text(SCRIPT)
    words = [sys.executable, "-m", "rsa", "mcp", "--http", "--port", "0", "--model", "quick=scripted:quick.py"]
    with started(words, cwd=tmp_path, env=environment()) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        url = URL.search(said)
        assert url is not None, said
        async with Client(url[0]) as client:
            found = await client.call_tool("solve", {"problem": "2 + 2?", "n": 2, "t": 0})
        assert (found.structured_content or {})["answer"] == "4"
        process.terminate()
        assert process.wait(30) == 143


# ---- the command


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["mcp"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (
        "error: rsa mcp needs the protocol's SDK, which is not installed: pip install 'markovian-rsa[mcp]'\n"
    )


def test_an_unknown_model_is_told_before_anything_is_served() -> None:
    done = CliRunner().invoke(app, ["mcp", "--model", "nanno"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no model is called 'nanno'; did you mean 'nano'?")
