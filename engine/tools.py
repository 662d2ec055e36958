"""Tools: what a model may ask its caller to do, and the calls in which it asks. Plain data of the boundary.

An engine gives the tools of a request to the model's chat template, or to the server that has one; a call is what the
model then writes, in its own words: text of a completion like any other. `engine.api` has these names, too.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

TAGS = ("zyphra_tool_call", "tool_call")
"""What stands around calls in the forms that are read: ZAYA1's, and that of Hermes, Qwen and many others."""
ANY_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
"""The schema of a tool that says nothing of its arguments."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tool(_Record):
    """A function that a model may ask to have called.

    description  for the model: what it does, and when it is of use.
    parameters   a JSON schema of its arguments, which are an object.
    """

    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: dict(ANY_ARGUMENTS))

    def __hash__(self) -> int:
        return hash((self.name, self.description))

    @property
    def declared(self) -> dict[str, Any]:
        """As chat templates and servers of the OpenAI API take it."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


class ToolCall(_Record):
    """One call of a tool that a model asks for.

    id         names it in its conversation: the turn with its result says which call it answers.
    arguments  a JSON object as text, as the model or a client wrote it; it may be none, for models err.
    """

    id: str
    name: str
    arguments: str = "{}"

    @property
    def values(self) -> dict[str, Any] | None:
        """The arguments by name; None if they are no JSON object."""
        try:
            values = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None
