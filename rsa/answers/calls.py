"""Answers that are calls of tools: which are the same, and how they read for people."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import Completion, Tool, ToolCall
from rsa.answers.extract import AnswerRule, answer_of, extract
from rsa.tools.reading import Written, read_calls
from rsa.words import shortened

_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Answered:
    """What a candidate answers: its calls, and these in words; or a text."""

    answer: str | None
    calls: tuple[ToolCall, ...] = ()


def answered(
    completion: Completion, rule: AnswerRule, *, thinks: bool, tools: Sequence[Tool] = (), salt: str = ""
) -> Answered:
    """The answer of a completion: the calls it ends with, or what the rule finds (`rsa.answers.extract.answer_of`).

    Of a completion that was cut off, calls that are complete count. `salt`: as of `rsa.tools.reading.read_calls`.
    """
    if not tools:
        return Answered(answer_of(completion, rule, thinks=thinks))
    if thinks and not completion.closed:
        return Answered(None)
    written = calls_of(completion, tools, salt=salt)
    if written.calls:
        return Answered(in_words(written.calls), written.calls)
    if completion.finish_reason == "cancelled" and rule == "text":
        return Answered(None)
    return Answered(extract(written.text, rule, whole=completion.finish_reason == "stop"))


def calls_of(completion: Completion, tools: Sequence[Tool], *, salt: str = "") -> Written:
    """The text of a completion's answer, and the calls in it."""
    return read_calls(completion.text, tools, whole=completion.finish_reason == "stop", salt=salt)


def group_calls(answers: Sequence[Sequence[ToolCall]], *, uncompared: Collection[str] = ()) -> list[tuple[int, ...]]:
    """Indices of equivalent answers, those without calls left out; larger groups first, ties to the earliest member.

    Two answers are the same if they call the same tools with the same arguments, in whatever order. Arguments are
    compared as JSON: the order of keys does not matter, 1 is 1.0, and `true` is not 1.

    uncompared  arguments that are left out: `NAME` of any tool, `TOOL.NAME` of one.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, calls in enumerate(answers):
        if calls:
            groups[_key(calls, uncompared)].append(index)
    return sorted(map(tuple, groups.values()), key=lambda group: (-len(group), group[0]))


def in_words(calls: Sequence[ToolCall]) -> str:
    """Calls as people read them: `weather(city="Paris", days=3)`, several parted by semicolons."""
    return "; ".join(_words(call) for call in calls)


def _words(call: ToolCall) -> str:
    values = call.values
    if values is None:
        return f"{call.name}({shortened(call.arguments, _SHOWN_CHARACTERS)})"
    told = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    return shortened(f"{call.name}({', '.join(told)})", _SHOWN_CHARACTERS)


def _key(calls: Sequence[ToolCall], uncompared: Collection[str]) -> str:
    return json.dumps(sorted(json.dumps(_compared(call, uncompared)) for call in calls))


def _compared(call: ToolCall, uncompared: Collection[str]) -> list[Any]:
    values = call.values
    if values is None:
        return [call.name, call.arguments]
    left = {name: value for name, value in values.items() if not {name, f"{call.name}.{name}"} & set(uncompared)}
    return [call.name, _same(left)]


def _same(value: Any) -> Any:
    """A value in which what is the same looks the same."""
    if isinstance(value, dict):
        return {key: _same(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_same(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
