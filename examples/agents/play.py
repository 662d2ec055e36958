"""A model that is none, for trying agents without one: it multiplies by a tool, and knows nothing else.

    rsa serve --model play=scripted:examples/agents/play.py

Asked for a product, it calls the first tool that it was given with the factors, and reports the result. Of a program of
DSPy it fills in the fields.
"""

from __future__ import annotations

import json
import re

from engine.api import GenerationRequest
from engine.scripted import Script


def script(request: GenerationRequest) -> Script:
    """What the model writes, its reasoning first."""
    question = next((turn.text for turn in request.messages if turn.role == "user"), "")
    numbers = _numbers(question)
    results = [turn.text for turn in request.messages if turn.role == "tool"]
    if "[[ ## " in request.messages[-1].text:
        return Script("The form is that of DSPy.", _fields(request.messages[-1].text))
    if results:
        return Script("The tool has answered.", f"The result is {results[-1]}.")
    if request.tools and len(numbers) == 2:
        return Script(f"{numbers[0]} times {numbers[1]} is for a tool.", _call(request, numbers))
    return Script("There is nothing to multiply.", "I can multiply two numbers, given a tool.")


def _numbers(text: str) -> list[int]:
    """The factors of the last product that is spelled out."""
    found = re.findall(r"(\d+) \* (\d+)", text)
    return [int(each) for each in found[-1]] if found else []


def _call(request: GenerationRequest, numbers: list[int]) -> str:
    tool = request.tools[0]
    arguments = dict(zip(tool.parameters["properties"], numbers, strict=False))
    return f"<tool_call>\n{json.dumps({'name': tool.name, 'arguments': arguments})}\n</tool_call>"


def _fields(prompt: str) -> str:
    """DSPy's fields, as its programs ask for them: of an agent's next step, or of its answer."""
    numbers = _numbers(prompt)
    observed = re.findall(r"observation_\d+ ## \]\]\s*(\d+)", prompt) or re.findall(r"\b(\d{3,})\b", prompt)
    done = "observation_0" in prompt
    if "next_tool_name" in prompt:
        step = ("finish", {}) if done else ("multiply", dict(zip("ab", numbers, strict=False)))
        wanted = {
            "next_thought": "It is known." if done else "A tool can do it.",
            "next_tool_name": step[0],
            "next_tool_args": json.dumps(step[1]),
        }
    else:
        wanted = {"reasoning": "The tool has said so.", "answer": observed[-1] if observed else "unknown"}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in [*wanted.items(), ("completed", "")])
