"""The plugin of `llm`: the real program on the built-in model, and its models in a program."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import llm
import pytest
from llm.parts import StreamEvent
from processes import run

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import compose
from rsa.controller import MarkovianRSA
from rsa.errors import ConfigError, ProblemError
from rsa.plugins.for_llm import AsyncRSAModel, RSAModel
from rsa.policies.registry import names

PUZZLE = "Add up 48, 93 and 120."
SIZES: dict[str, Any] = {"n": 2, "t": 0, "beta": 128}
NAME = "scripted:any"
PNG = bytes.fromhex("89504e470d0a1a0a")


def streamed(response: llm.Response) -> list[StreamEvent]:
    return list(response.stream_events())  # type: ignore[no-untyped-call]


# ---- the program


def test_llm_answers_as_the_library_does_and_keeps_what_it_cost(tmp_path: Path) -> None:
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
    options = [word for name, value in SIZES.items() for word in ("-o", name, str(value))]
    llm_ = [sys.executable, "-m", "llm"]
    done = run([*llm_, "-m", "rsa/nano", *options, PUZZLE], env=environment, check=True)
    result = MarkovianRSA("nano", **SIZES).solve_sync(PUZZLE)
    assert done.stdout == f"{result.text.strip()}\n"
    (log,) = json.loads(run([*llm_, "logs", "--json"], env=environment, check=True).stdout)
    assert (log["input_tokens"], log["output_tokens"]) == (result.usage.prompt_tokens, result.usage.completion_tokens)
    assert log["response_json"]["answer"] == result.answer
    assert log["response_json"]["check"]["mark"] == "verified"


# ---- in a program


def test_a_conversation_is_the_problem(asked: list[GenerationRequest]) -> None:
    conversation = RSAModel(NAME).conversation()
    first = conversation.prompt("What is 2 + 2?", system="Be brief.", n=2, t=0)
    assert first.text() == r"so \boxed{4}"
    conversation.prompt("And 1 + 3?", n=2, t=0).text()
    told = [(message.role, message.text) for message in asked[-1].messages]
    assert told[:3] == [("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", r"so \boxed{4}")]
    assert "And 1 + 3?" in told[3][1]


def test_options_are_settings_of_the_run(asked: list[GenerationRequest]) -> None:
    response = RSAModel(NAME).prompt("2 + 2?", method="vote", n=3, beta="1k", total_tokens=4000, seed=5)
    response.text()
    assert len(asked) == 3
    assert asked[0].sampling.reasoning_budget == 1024
    assert response.response_json is not None
    settings = response.response_json["settings"]
    assert (settings["n"], settings["t"], settings["seed"]) == (3, 0, 5)


def test_policies_are_options(asked: list[GenerationRequest]) -> None:
    """They decide, and each of ours is named where options are listed."""
    given: dict[str, Any] = {"stop": "consensus:.5", "select": "pooled", "parents": "distinct", "waves": "2,1"}
    response = RSAModel(NAME).prompt("2 + 2?", n=3, c=2, t=2, **given)
    response.text()
    assert response.response_json is not None
    assert (response.response_json["stopped_because"], len(asked)) == ("policy", 3)
    options = RSAModel.Options.model_fields
    for kind in ("select", "parents"):
        assert all(name in str(options[kind].description) for name in names(kind))
    with pytest.raises(ConfigError, match="waves = 3,3 are 6 candidates, not n = 4"):
        RSAModel(NAME).prompt("2 + 2?", n=4, waves="3,3").text()
    with pytest.raises(ConfigError, match="parents = 'distnct': no policy is called so; did you mean 'distinct'"):
        RSAModel(NAME).prompt("2 + 2?", parents="distnct").text()


def test_images_are_seen(asked: list[GenerationRequest]) -> None:
    RSAModel(NAME).prompt("What is this?", attachments=[llm.Attachment(content=PNG, type="image/png")], n=1, t=0).text()
    assert [image.data for image in asked[0].messages[-1].images] == [PNG]


def test_progress_is_told_as_reasoning_where_it_is_asked_for(asked: list[GenerationRequest]) -> None:
    def events(**more: Any) -> list[StreamEvent]:
        return streamed(RSAModel(NAME).prompt("2 + 2?", n=2, c=2, t=1, **more))

    assert {event.type for event in events()} == {"text"}
    told = events(progress=True)
    assert told[-1].chunk == r"so \boxed{4}"
    reasoning = "".join(event.chunk for event in told if event.type == "reasoning")
    assert "Round 1 of 2: 2 attempts." in reasoning
    assert "Votes: 4 by 2 of 2." in reasoning
    silent = RSAModel(NAME).prompt("2 + 2?", n=1, t=0, stream=False, progress=True)
    assert {event.type for event in streamed(silent)} == {"text"}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # of that loop alone
async def test_asynchronous_models_answer_alike_and_share_an_event_loop(asked: list[GenerationRequest]) -> None:
    model, said = AsyncRSAModel(NAME), []

    async def ask() -> None:
        said.append(await model.prompt("2 + 2?", n=2, t=0, stream=False).text())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
    assert said == [r"so \boxed{4}"] * 2


def test_who_stops_reading_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ScriptedEngine(lambda request: Script(reasoning="hm", answer="4", held=True))
    monkeypatch.setattr(compose, "open_engine", lambda model, **options: held)
    response = RSAModel(NAME).prompt("2 + 2?", n=4, t=0, progress=True)
    parts = iter(response.stream_events())  # type: ignore[no-untyped-call]
    assert next(parts).chunk.startswith("Round 1 of 1: 4 attempts")
    parts.close()
    del parts, response
    assert held.active == 0


def test_mistakes_are_told_in_words(asked: list[GenerationRequest]) -> None:
    with pytest.raises(ConfigError, match="c = 3 is more than n = 2"):
        RSAModel(NAME).prompt("2 + 2?", n=2, c=3).text()
    with pytest.raises(ConfigError, match="contradicts method = vote"):
        RSAModel(NAME).prompt("2 + 2?", method="vote", t=2).text()
    messages = [llm.user("2 + 2?"), llm.tool_message("4")]
    with pytest.raises(ProblemError, match="a message of the role tool cannot be part of a problem: leave tools out"):
        RSAModel(NAME).prompt(messages=messages).text()


def test_a_run_is_kept_where_it_is_asked_for(asked: list[GenerationRequest], tmp_path: Path) -> None:
    RSAModel(NAME).prompt("2 + 2?", n=1, t=0, runs=str(tmp_path)).text()
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("llm-")
    assert (folder / "result.json").is_file()
