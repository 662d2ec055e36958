"""`/v1/chat/completions`, streamed and whole, of the model itself and of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from serving import serving

from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA, Problem

SCRIPT = Script(reasoning="2 and 2 make 4", answer="\n\nIt is \\boxed{4}.")
RSA: dict[str, Any] = {"model": "scripted:rsa", "rsa": {"n": 3, "t": 1, "c": 2}, "seed": 5}
pytestmark = pytest.mark.anyio


def engine() -> ScriptedEngine:
    return ScriptedEngine(SCRIPT)


async def test_the_model_itself(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await server.chat(n=2, seed=3)
    assert [choice["message"] for choice in found["choices"]] == 2 * [
        {
            "role": "assistant",
            "content": "It is \\boxed{4}.",
            "refusal": None,
            "reasoning_content": "2 and 2 make 4",
        }
    ]
    assert [choice["finish_reason"] for choice in found["choices"]] == ["stop", "stop"]
    assert "rsa" not in found


async def test_a_run_answers_as_the_library_does(tmp_path: Path) -> None:
    async with serving(engine, tmp_path) as server:
        found = await server.chat(**RSA)
    result = await MarkovianRSA(engine(), n=3, t=1, c=2).solve(Problem("What is 2 + 2?"), seed=5)
    assert found["choices"][0]["message"]["content"] == "It is \\boxed{4}."
    assert "3 of 3" in found["choices"][0]["message"]["reasoning_content"]
    assert found["rsa"]["answer"] == result.answer == "4"
    assert found["usage"]["completion_tokens"] == result.usage.completion_tokens
    rounds = found["rsa"]["rounds"]
    assert sum(each["usage"]["completion_tokens"] for each in rounds) == result.usage.completion_tokens


@pytest.mark.parametrize("fields", [{}, {"n": 3}, RSA], ids=["one", "three", "run"])
async def test_a_stream_says_what_a_whole_answer_says(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with serving(engine, tmp_path) as server:
        whole = await server.chat(**fields)
        chunks = await server.chat_chunks(**fields, stream_options={"include_usage": True})
    *chunks, last = chunks
    if "rsa" in whole:
        assert chunks[0]["rsa"] == {"run_id": chunks[-1]["rsa"]["run_id"]}
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        deltas = [each["delta"] for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        assert deltas[0] == {"role": "assistant", "content": ""}
        for name in ("content", "reasoning_content"):
            assert "".join(delta.get(name, "") for delta in deltas) == choice["message"][name]
        (reason,) = [
            each["finish_reason"]
            for chunk in chunks
            for each in chunk["choices"]
            if each["index"] == choice["index"] and each["finish_reason"]
        ]
        assert reason == choice["finish_reason"]
