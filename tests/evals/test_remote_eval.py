"""An evaluation with a model behind a server, over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import rsa
from stub_server.running import Running, running
from stub_server.server import StubServer

from evals.job import evaluate

SIZES: dict[str, Any] = {"n": 2, "c": 1, "t": 1, "beta": 40, "tau": 16, "answer_budget": 8}
FLAGS = [word for name, value in SIZES.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def server() -> Iterator[Running]:
    with running(StubServer("vllm")) as found:
        yield found


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def candidates(folder: str) -> bytes:
    return Path(folder, "candidates.jsonl").read_bytes()


@pytest.mark.thorough
def test_it_is_repeated_and_resumed_to_the_byte(server: Running) -> None:
    new = (
        "eval",
        "countdown",
        "--limit",
        "3",
        "--model",
        "openai:tiny",
        "--base-url",
        server.url,
        *FLAGS,
        "--no-report",
    )
    for out in ("first", "again"):
        code, _, err = rsa(*new, "--out", out)
        assert code == 0, err
    assert candidates("first") == candidates("again")
    results = json.loads(Path("first/results.json").read_text())
    assert results["model"]["details"]["base_url"] == server.url
    run = next(path for path in Path("again").rglob("scores.json"))
    run.unlink()
    (run.parent / "result.json").unlink()
    for name in ("results.json", "candidates.jsonl"):
        Path("again", name).unlink()
    code, _, err = rsa("eval", "--resume", "again", "--no-report")
    assert code == 0, err
    assert candidates("first") == candidates("again")


@pytest.mark.anyio
async def test_programs_give_its_servers_as_options(server: Running) -> None:
    options = {"base_url": server.url}
    results = await evaluate("countdown", "openai:tiny", engine_options=options, out="here", limit=2, **SIZES)
    assert results.model.name == "tiny"
    assert results.data.selected == 2
