"""The plugin of inspect_ai: the real program on the built-in model, and its provider in a program."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelOutput,
)
from inspect_ai.tool import ToolInfo
from processes import run

from engine.api import GenerationRequest
from rsa.errors import ConfigError, ProblemError
from rsa.plugins.for_inspect import RunModel, problem_of

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]  # inspect_ai alone takes seconds to import
ROOT = Path(__file__).resolve().parents[3]
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def add():
    samples = [Sample(input="Add up 48, 93 and 120.", target="261"), Sample(input="Add up 5, 6 and 7.", target="18")]
    return Task(dataset=samples, solver=generate(), scorer=includes())
"""
SIZES: dict[str, Any] = {"n": 2, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 32}


# ---- the program


def evaluated(folder: Path, *words: str) -> dict[str, Any]:
    """The log of an evaluation by the real program, to which our package is installed as a wheel installs it."""
    packages = folder / "site-packages"
    packages.mkdir()
    for name in ("rsa", "engine", "evals", "configs"):
        (packages / name).symlink_to(ROOT / name)
    (folder / "task.py").write_text(TASK)
    environment = {**os.environ, "PYTHONPATH": str(packages), "INSPECT_LOG_DIR": str(folder / "logs")}
    command = [sys.executable, "-m", "inspect_ai", "eval", "task.py", "--display", "none", "--log-format", "json"]
    run([*command, "--model", "rsa/nano", *words], env=environment, cwd=folder, check=True)
    (log,) = (folder / "logs").glob("*.json")
    found: dict[str, Any] = json.loads(log.read_text())
    assert found["status"] == "success", found["error"]
    return found


def test_a_task_is_evaluated_on_a_model_of_ours_by_our_solver(tmp_path: Path) -> None:
    model = ["-M", "n=2", "-M", "beta=128", "-M", "tau=64"]
    log = evaluated(tmp_path, *model, "--solver", "rsa/markovian_rsa", "-S", "t=1", "-S", "seed=7", "--epochs", "2")
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1.0
    assert len(log["samples"]) == 4
    for sample in log["samples"]:
        told = sample["metadata"]["rsa"]
        assert told == sample["output"]["metadata"]["rsa"]
        assert told["check"]["mark"] == "verified"
        seed = 6 + sample["epoch"]  # each epoch is a run of its own
        assert told["settings"] == {"n": 2, "c": 2, "t": 1, "beta": 128, "tau": 64, "seed": seed}
        assert sample["messages"][-1]["role"] == "assistant"
    (usage,) = log["stats"]["model_usage"].values()
    spent = [sample["output"]["usage"]["output_tokens"] for sample in log["samples"]]
    assert usage["output_tokens"] == sum(spent) > 0


# ---- in a program


async def answered(*messages: Any, config: dict[str, Any] | None = None, **args: Any) -> ModelOutput:
    model = RunModel("scripted:any", **{**SIZES, **args})
    output = await model.generate(list(messages), [], "auto", GenerateConfig(**(config or {})))
    await model.aclose()
    return output


async def test_an_answer_comes_with_its_usage_and_its_votes(asked: list[GenerationRequest]) -> None:
    output = await answered(ChatMessageUser(content="2 + 2?"))
    assert output.completion == r"so \boxed{4}"
    assert output.stop_reason == "stop"
    assert output.usage is not None
    assert output.metadata is not None
    assert output.metadata["rsa"]["votes"] == [{"answer": "4", "count": 2, "of": 2}]
    assert output.usage.total_tokens == (
        output.usage.input_tokens + (output.usage.input_tokens_cache_read or 0) + output.usage.output_tokens
    )


async def test_settings_of_a_request_are_settings_of_its_run(asked: list[GenerationRequest]) -> None:
    config = {"temperature": 0.5, "reasoning_tokens": 32, "seed": 9}
    output = await answered(ChatMessageUser(content="2 + 2?"), config=config)
    assert output.metadata is not None
    assert output.metadata["rsa"]["settings"] == {"n": 2, "c": 2, "t": 1, "beta": 32, "tau": 16, "seed": 9}
    assert {request.sampling.temperature for request in asked} == {0.5}


async def test_the_same_question_asked_again_is_another_run(asked: list[GenerationRequest]) -> None:
    model, question = RunModel("scripted:any", seed=7, **SIZES), ChatMessageUser(content="2 + 2?")
    outputs = [await model.generate([question], [], "auto", GenerateConfig()) for _ in range(3)]
    await model.aclose()
    assert [(output.metadata or {})["rsa"]["settings"]["seed"] for output in outputs] == [7, 8, 9]


async def test_a_limit_is_told_as_the_reason_to_stop(asked: list[GenerationRequest]) -> None:
    output = await answered(ChatMessageUser(content="2 + 2?"), config={"max_tokens": 1})
    assert output.stop_reason == "max_tokens"
    assert output.metadata is not None
    assert output.metadata["rsa"]["limits_hit"] == ["total_tokens"]


async def test_a_run_is_kept_and_not_played_again(asked: list[GenerationRequest], tmp_path: Path) -> None:
    question = ChatMessageUser(content="2 + 2?")
    first = await answered(question, runs=str(tmp_path))
    count = len(asked)
    second = await answered(question, runs=str(tmp_path))
    assert len(asked) == count
    assert first.completion == second.completion
    assert (tmp_path / f"inspect-{problem_of([question]).id}-0" / "result.json").is_file()


def test_messages_are_turns_of_the_problem() -> None:
    png = "data:image/png;base64,iVBORw0KGgo="
    problem = problem_of(
        [
            ChatMessageSystem(content="Be brief."),
            ChatMessageUser(content="2 + 2?"),
            ChatMessageAssistant(content="4"),
            ChatMessageUser(content=[ContentImage(image=png), ContentText(text="And this?")]),
        ]
    )
    told = [(message.role, message.text, len(message.images)) for message in problem.messages]
    assert told == [("system", "Be brief.", 0), ("user", "2 + 2?", 0), ("assistant", "4", 0), ("user", "And this?", 1)]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([ChatMessageTool(content="4")], "a message of the role tool cannot be part of a problem: leave tools out"),
        ([ChatMessageUser(content=[ContentImage(image="https://x/y.png")])], "an image is no data: URL"),
        ([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,?")])], "an image is not in base64"),
        ([ChatMessageAssistant(content="4")], "the conversation ends with a turn of the assistant"),
    ],
)
def test_what_is_no_problem_is_told_in_words(messages: list[Any], why: str) -> None:
    with pytest.raises(ProblemError, match=why):
        problem_of(messages)


async def test_mistakes_are_told_in_words(asked: list[GenerationRequest]) -> None:
    with pytest.raises(PrerequisiteError, match=r"rsa/scripted:any: unknown setting 'tt'; did you mean 't'\?"):
        RunModel("scripted:any", tt=1)
    with pytest.raises(PrerequisiteError, match=r"no model is called 'nanno'; did you mean 'nano'\?"):
        RunModel("nanno")
    with pytest.raises(ConfigError, match="leave num_choices and stop_seqs out"):
        await answered(ChatMessageUser(content="2 + 2?"), config={"num_choices": 2})
    tool = ToolInfo(name="look", description="Look.")
    with pytest.raises(ConfigError, match="calls no tools: leave 'look' out"):
        await RunModel("scripted:any").generate([ChatMessageUser(content="2?")], [tool], "auto", GenerateConfig())
