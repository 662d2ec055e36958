"""Schemas of tools: whether they are any, and what type they give to an argument."""

from __future__ import annotations

import re
from typing import Any

from engine.api import Tool
from rsa.errors import ProblemError
from rsa.words import shortened

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Names that every client and every chat template can carry."""
_DEEPEST = 64
_SHOWN_CHARACTERS = 120


def check_tool(tool: Tool) -> None:
    """Raises ProblemError for a name that cannot be called, and for parameters that are no JSON schema of an object;
    where in them stands in the message."""
    check_name(tool.name)
    if (fault := fault_of(tool.parameters)) is not None:
        raise ProblemError(f"the parameters of the tool {tool.name!r} are no JSON schema of an object: {fault}")


def check_name(name: str) -> None:
    """Raises ProblemError for a name that cannot be called."""
    if not _NAME.fullmatch(name):
        raise ProblemError(
            f"the tool {shortened(repr(name), 60)} has no name that can be called: letters, digits, '_', '-' and '.', "
            "128 at most"
        )


def fault_of(schema: Any) -> str | None:
    """Why this is no JSON schema of an object's fields, in a line; None if it is one.

    References to other documents are refused: nothing is fetched for a schema.
    """
    if not isinstance(schema, dict):
        return "it is no object"
    if schema.get("type", "object") != "object":
        return f"its type is {_shown(repr(schema['type']))}, and should be 'object'"
    if _depth_over(schema, _DEEPEST):
        return f"it is nested more than {_DEEPEST} deep"
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        return f"{_shown(error.message)}{f' at {where}' if where else ''}"
    except (RecursionError, re.error, ValueError) as error:  # a pattern that is none
        return _shown(f"{type(error).__name__}: {error}")
    return None


def types_of(tool: Tool | None, argument: str) -> frozenset[str]:
    """JSON types that the schema allows an argument of this name; empty where it says nothing of it."""
    properties = tool.parameters.get("properties") if tool is not None else None
    if tool is None or not isinstance(properties, dict):
        return frozenset()
    return _types(properties.get(argument), tool.parameters, set())


def _types(schema: Any, whole: dict[str, Any], followed: set[str]) -> frozenset[str]:
    """Types of a part of a whole schema. `followed`: references that were, each once, whoever refers to it."""
    if not isinstance(schema, dict):
        return frozenset()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in followed:
            return frozenset()
        followed.add(reference)
        return _types(_referred(reference, whole), whole, followed)
    told = schema.get("type")
    if isinstance(told, str):
        return frozenset([told])
    if isinstance(told, list):
        return frozenset(each for each in told if isinstance(each, str))
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema.get("const")]
        return frozenset(_type_of(value) for value in values)
    branches = [each for key in ("anyOf", "oneOf", "allOf") for each in schema.get(key) or []]
    return frozenset().union(*(_types(branch, whole, followed) for branch in branches))


def _referred(reference: str, whole: dict[str, Any]) -> Any:
    """What `#/$defs/Color` stands for; None for what is not there, or in another document."""
    if not reference.startswith("#/"):
        return None
    found: Any = whole
    for part in reference[2:].split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _type_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _depth_over(value: Any, most: int) -> bool:
    """Whether a JSON value is nested deeper than this; without recursion."""
    level = [value]
    for _ in range(most):
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        if not level:
            return False
    return True


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return shortened(" ".join(text.split()), _SHOWN_CHARACTERS)
