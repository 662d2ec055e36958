"""Tools that a request offers to its model, checked, whichever door it came through.

What is done with OpenAI's fields, at every door:

tools                functions; their `parameters` are a JSON schema of an object, `strict` has no effect: nothing here
                     holds a model to a schema.
tool_choice          `auto`; `none`: the model is not told of the tools. `required` and a tool's name are refused, since
                     no model is held to calling.
parallel_tool_calls  false: of an answer's calls the first one alone is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import Tool, ToolCall
from rsa.errors import ProblemError
from rsa.serve.errors import ApiError
from rsa.tools.schemas import check_name, fault_of

MAX_TOOLS = 128
UNSUPPORTED = "unsupported_parameter"


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as a client describes it. `where`: the field that its own fields stand in."""

    name: str
    description: str | None
    parameters: Any
    where: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools that the model is told of. `parallel`: an answer may have several calls."""

    tools: tuple[Tool, ...] = ()
    parallel: bool = True

    def kept(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Those calls of an answer that are returned."""
        return tuple(calls) if self.parallel else tuple(calls[:1])


def offer(declared: Sequence[Declared] | None, choice: Any, parallel: bool | None) -> Offer:
    """What a request offers. Raises ApiError, naming the field."""
    given = declared or ()
    if len(given) > MAX_TOOLS:
        raise ApiError(400, f"tools: {len(given)} are given, and {MAX_TOOLS} at most are taken", param="tools")
    tools = tuple(_tool(each) for each in given)
    names: dict[str, str] = {}
    for each in given:
        if each.name in names:
            raise ApiError(
                400,
                f"{each.where}.name: {names[each.name]} has the name {each.name!r}, too",
                param=f"{each.where}.name",
            )
        names[each.name] = each.where
    _check_choice(choice, list(names))
    return Offer(tools if choice != "none" else (), parallel is not False)


def _tool(declared: Declared) -> Tool:
    where = f"{declared.where}.parameters"
    try:
        check_name(declared.name)
    except ProblemError as error:
        raise ApiError(400, str(error), param=f"{declared.where}.name") from None
    fields: dict[str, Any] = {"name": declared.name, "description": declared.description or ""}
    if declared.parameters is None:
        return Tool(**fields)
    if (fault := fault_of(declared.parameters)) is not None:
        raise ApiError(400, f"{where}: this is no JSON schema of an object: {fault}", param=where)
    return Tool(**fields, parameters=declared.parameters)


def _check_choice(choice: Any, names: Sequence[str]) -> None:
    if choice in (None, "none") or (choice == "auto"):
        return
    if choice == "required" or isinstance(choice, dict):
        named = choice.get("name") or (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
        if named is not None and named not in names:
            raise ApiError(400, f"tool_choice names {named!r}, which is not among the tools", param="tool_choice")
        raise ApiError(
            400,
            "tool_choice: nothing here holds a model to calling a tool: leave it at 'auto', or give 'none'",
            param="tool_choice",
            code=UNSUPPORTED,
        )
    raise ApiError(400, f"tool_choice = {choice!r}: should be 'auto' or 'none'", param="tool_choice")
