"""A model that is none, for LangChain's suite: it calls the first tool that it has, if the last turn is a user's."""

from __future__ import annotations

import json
import re
from typing import Any

from engine.api import GenerationRequest
from engine.scripted import Script


def script(request: GenerationRequest) -> Script:
    last = request.messages[-1]
    if request.tools and last.role == "user":
        tool = request.tools[0]
        arguments = {name: _value(schema, last.text) for name, schema in tool.parameters["properties"].items()}
        call = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False)
        return Script("A tool can do it.", f"<tool_call>\n{call}\n</tool_call>")
    return Script("Nothing to call.", f"You said: {last.text[:40]}. One, two, three.")


def _value(schema: dict[str, Any], text: str) -> Any:
    """What the text has of the type: its last number in parentheses, or what stands in quotes."""
    if schema.get("type") in ("integer", "number"):
        return int((re.findall(r"\((\d+)\)", text) or ["1"])[-1])
    return (re.findall(r"'([^']+)'", text) or ["a text"])[0]
