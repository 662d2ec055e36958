"""Messages and tools as chat templates take them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.api import Message, ToolCall


class Piece(NamedTuple):
    """A part of a rendered prompt: the chat template's own words, or a person's."""

    text: str
    by_people: bool = False


class SetApart:
    """Marks special tokens that are spelled in tools and calls while a chat template is at work on these.

    A template may write what it is given as JSON, leave it out or write it twice. So it is given a word in place of the
    first character of each spelled token, one that nobody can have foreseen.

    spelled  a pattern that matches, without a width, where a special token is spelled.
    """

    def __init__(self, spelled: re.Pattern[str]) -> None:
        self._spelled = spelled
        self._word = f"apart{secrets.token_hex(8)}x"
        self._marked: list[str] = []

    def __call__(self, value: Any) -> Any:
        """The same value, of whatever JSON has, with marks in its texts and keys."""
        if isinstance(value, str):
            return self._mark(value)
        if isinstance(value, dict):
            return {self(key): self(each) for key, each in value.items()}
        return [self(each) for each in value] if isinstance(value, list | tuple) else value

    def _mark(self, text: str) -> str:
        parts, at = [], 0
        for match in self._spelled.finditer(text):
            parts += [text[at : match.start()], f"{self._word}{len(self._marked)}x"]
            self._marked.append(text[match.start()])
            at = match.start() + 1
        return "".join([*parts, text[at:]])

    def pieces(self, piece: Piece) -> list[Piece]:
        """A rendered piece, cut where characters were marked: they are people's, and stand alone."""
        if piece.by_people or not self._marked:
            return [piece]
        parts = re.split(rf"{self._word}(\d+)x", piece.text)
        return [
            Piece(self._marked[int(part)], by_people=True) if place % 2 else Piece(part)
            for place, part in enumerate(parts)
            if place % 2 or part
        ]


def turns(messages: Sequence[Message], apart: SetApart) -> list[dict[str, Any]]:
    """Turns of a conversation; content with images is a list, images first. The result of a call has its tool's name,
    which some templates write."""
    names = {call.id: call.name for message in messages for call in message.calls}
    return [_turn(message, names, apart) for message in messages]


def _turn(message: Message, names: dict[str, str], apart: SetApart) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.calls:
        turn["tool_calls"] = [_call(call, apart) for call in message.calls]
    if message.answers is not None:
        turn |= {"tool_call_id": apart(message.answers), "name": apart(names.get(message.answers, message.answers))}
    return turn


def _content(message: Message) -> Any:
    if not message.images:
        return message.text
    return [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}]


def _call(call: ToolCall, apart: SetApart) -> dict[str, Any]:
    arguments = call.arguments if call.values is None else call.values
    function = {"name": call.name, "arguments": arguments}
    return {"id": apart(call.id), "type": "function", "function": apart(function)}
