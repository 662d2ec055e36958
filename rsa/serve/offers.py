"""Tools that a request offers to its model, checked, whichever door it came through.

What is done with OpenAI's fields, at every door:

tools                functions; their `parameters` are a JSON schema of an object, `strict` has no effect: nothing here
                     holds a model to a schema.
tool_choice          `auto`; `none`: the model is not told of the tools. No model is held to calling one, so that with
                     `required` an answer without a call is an error (422, `no_tool_call`), and the vote of a run is
                     over calls alone. A tool's name: the same, and the model is told of no other.
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
from rsa.words import shortened

MAX_TOOLS = 128


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as a client describes it. `where`: the field that its own fields stand in."""

    name: str
    description: str | None
    parameters: Any
    where: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Tools that the model is told of. `parallel`: an answer may have several calls; `required`: it must have one."""

    tools: tuple[Tool, ...] = ()
    parallel: bool = True
    required: bool = False

    def kept(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Those calls of an answer that are returned. Raises ApiError if there is none and one is required."""
        if self.required and not calls:
            raise ApiError(
                422,
                "the model called no tool, and tool_choice wants a call: ask again, or leave it at 'auto'",
                param="tool_choice",
                code="no_tool_call",
            )
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
    if choice in (None, "auto", "none"):
        return Offer(tools if choice != "none" else (), parallel is not False)
    named = _named(choice)
    if named is not None and named not in names:
        raise ApiError(400, f"tool_choice names {named!r}, which is not among the tools", param="tool_choice")
    if not tools:
        raise ApiError(400, "tool_choice wants a call, and there are no tools", param="tool_choice")
    return Offer(tuple(tool for tool in tools if named in (None, tool.name)), parallel is not False, required=True)


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


def _named(choice: Any) -> str | None:
    """The tool that must be called; None: any. Raises ApiError for what is no choice."""
    if choice == "required":
        return None
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function", choice)  # chat completions, and Responses
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return str(function["name"])
    raise ApiError(
        400,
        f"tool_choice = {shortened(repr(choice), 100)}: should be 'auto', 'none', 'required' or a function's name",
        param="tool_choice",
    )
