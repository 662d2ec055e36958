"""Calls of tools that a server took out of a model's text: put together from its deltas, and put back into the text.

So a completion is text whoever generated it, with calls in one of the forms that are read. What a server's own parser
made of them is kept as it is: a name, and arguments that should be a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.openai.wire import CallPart


@dataclass(slots=True)
class Calls:
    """The calls of one answer, by their index in it, as far as they have come."""

    names: dict[int, str] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)

    def take(self, parts: Sequence[CallPart]) -> None:
        for part in parts:
            self.names[part.index] = self.names.get(part.index) or part.name
            self.arguments[part.index] = self.arguments.get(part.index, "") + part.arguments

    def spelled(self, *, whole: bool) -> str:
        """All of them as text, "" without one. `whole`: the last one is; else it was cut off, and stays open."""
        blocks = [f"<tool_call>\n{self._call(index)}\n</tool_call>" for index in sorted(self.names)]
        if blocks and not whole:
            last = max(self.names)
            head = json.dumps({"name": self.names[last], "arguments": None}).removesuffix("null}")
            blocks[-1] = f"<tool_call>\n{head}{self.arguments[last]}"
        return "\n".join(blocks)

    def _call(self, index: int) -> str:
        given = self.arguments[index].strip() or "{}"
        try:
            arguments = json.loads(given)
        except (ValueError, RecursionError):
            arguments = given  # kept, as a text
        return json.dumps({"name": self.names[index], "arguments": arguments}, ensure_ascii=False)
