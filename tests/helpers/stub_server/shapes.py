"""The dialects of servers: shapes recorded from each, in tests/data/server_shapes.json, with places to fill in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

SHAPES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "server_shapes.json").read_text(encoding="utf-8")
)
NAMES = tuple(SHAPES)
LEFT_OUT = object()
"""The value of a place whose key is not there: a field that this server leaves out of this answer."""


@dataclass(frozen=True)
class Dialect:
    """How one kind of server speaks.

    reasoning              the field that the reasoning stands in; `tags`: in the text, between think tags;
                           `hidden`: nowhere, and only counted.
    token_ids              where `return_token_ids` gives them: `always`, in `whole` answers alone, `never`; or they
                           stand with the `logprobs`.
    thinking_token_budget  it ends the reasoning there.
    continues              how it is asked to continue an assistant's turn: by a flag, for every `last turn`, or None.
    strict                 it refuses parameters that it does not know.
    streaming              `refused`: an error; `ignored`: the whole answer at once.
    """

    name: str
    reasoning: str
    token_ids: Literal["always", "whole", "logprobs", "never"]
    thinking_token_budget: bool
    continues: str | None
    strict: bool
    seeds: bool
    n: bool
    streaming: Literal["yes", "refused", "ignored"] = "yes"
    shapes: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def filled(self, shape: str, **values: Any) -> Any:
        """A recorded shape with its places filled in."""
        return fill(self.shapes[shape], {"field": self.reasoning, **values})

    @cached_property
    def section_shapes(self) -> dict[str, str]:
        """The shape of a chunk of each section."""
        return {"answer": "content", "reasoning": "reasoning" if self.reasoning in REASONING_FIELDS else "content"}


REASONING_FIELDS = ("reasoning", "reasoning_content")


def dialect(name: str, **changes: Any) -> Dialect:
    """A dialect by its name; `changes` are those of its configuration."""
    shapes = SHAPES[name]
    return replace(Dialect(name, **shapes["can"], shapes=shapes), **changes)


def fill(shape: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a shape in which "$name" is the value of that name; places in a longer text are spelled out."""
    if isinstance(shape, dict):
        filled = {fill(key, values): fill(value, values) for key, value in shape.items()}
        return {key: value for key, value in filled.items() if value is not LEFT_OUT}
    if isinstance(shape, list):
        return [fill(each, values) for each in shape]
    if not isinstance(shape, str) or "$" not in shape:
        return shape
    if shape.startswith("$") and shape[1:] in values:
        return values[shape[1:]]
    for name, value in values.items():
        shape = shape.replace(f"${name}", str(value))
    return shape
