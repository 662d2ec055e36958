"""One call in a text that comes in pieces: read from its first tag on, in time that is linear in its length.

Tags of XML are told from the same words in a value by what follows them, and by the tool's schema:

- `</parameter>` ends a value where the next parameter or the end of the call follows; else it is a part of the value.
- `<parameter=NAME>` inside a value begins the next parameter, the last one never having been closed, only if the schema
  has a parameter of that name which was not given yet.
- `</function>` ends the call, and a value that was not closed, where another call or the closing tag follows.

Anything else in a value is the value, to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import Tool
from engine.tools import TAGS
from rsa.tools.schemas import types_of
from rsa.tools.values import as_text, json_object, value_of

OPENERS = tuple(f"<{tag}>" for tag in TAGS)
CLOSERS = tuple(f"</{tag}>" for tag in TAGS)
FUNCTION = "<function="
NAME = r"([^<>\s]{1,128})>"
LONGEST_TAG = len("<parameter=") + 128 + 1
_FUNCTION_END, _PARAMETER, _PARAMETER_END = "</function>", "<parameter=", "</parameter>"
_HEADER = re.compile(FUNCTION + NAME)
_OPENED = re.compile(_PARAMETER + NAME)
_IN_VALUE = re.compile("|".join([_PARAMETER + NAME, _PARAMETER_END, _FUNCTION_END, *CLOSERS]))
_IN_JSON = re.compile("|".join(['["{}\\\\]', *CLOSERS]))
_GAP = 256
"""White space between two tags at most."""
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Called:
    """A call that has been read: a tool's name, and its arguments as a JSON object."""

    name: str
    arguments: str


class Wait(Exception):  # noqa: N818 - no error: more has to come
    """What comes next decides."""


class NotACall(Exception):  # noqa: N818 - no error: it is a text
    """What began like a call is none. `upto`: so much of the buffer is text; None: its first tag alone."""

    def __init__(self, upto: int | None = None) -> None:
        super().__init__()
        self.upto = upto


class Block:
    """Reads one call, whose first tag is at the beginning of a buffer that grows.

    at       where reading goes on; in the end, where what follows the call begins.
    over     no further call stands between the same tags.
    wrapped  it stands between tags; else it begins with `<function=`.
    strict   a closing tag ends JSON wherever it stands; else not in a string.
    cut_off  the text did not come to its end, so that more parameters might have followed.
    """

    def __init__(self, tools: Mapping[str, Tool], *, at: int, wrapped: bool, strict: bool = False) -> None:
        self.at, self.over, self.cut_off = at, True, False
        self.wrapped, self._strict, self._tools = wrapped, strict, tools
        self._tool: Tool | None = None
        self._arguments: dict[str, Any] = {}
        self._parameter: str | None = None
        self._looked = 0  # of a value, or of JSON, this much has been searched
        self._json_at: int | None = None
        self._depth, self._quoted, self._closer = 0, False, 0
        self._called: Called | None = None  # it is whole; what follows it decides where it ends

    def read(self, buffer: str, *, final: bool) -> Called:
        """The call, once it is complete. `final`: nothing comes after this. Raises Wait, NotACall."""
        while self._called is None:
            if self._json_at is not None:
                self._called = self._read_json(buffer, final)
            elif self._tool is None:
                self._read_header(buffer, final)
            elif self._read_tag(buffer, final) if self._parameter is None else self._read_value(buffer, final):
                self._called = Called(self._tool.name, as_text(self._arguments))
        if self.wrapped:
            self._go_on(buffer, final)
        return self._called

    # ---- XML

    def _read_header(self, buffer: str, final: bool) -> None:
        self._skip_space(buffer, final)
        if self.wrapped and buffer[self.at] == "{":
            self._json_at = self._looked = self.at
            return
        header = _HEADER.match(buffer, self.at)
        if header is None:
            self._wait_for(buffer, (FUNCTION,), final)
            raise NotACall
        if header[1] not in self._tools:
            raise NotACall
        self._tool, self.at = self._tools[header[1]], header.end()

    def _read_tag(self, buffer: str, final: bool) -> bool:
        """The tag after the header or a closed parameter. True: it ends the call, and `at` is after it."""
        try:
            self._skip_space(buffer, final)
        except NotACall:
            if not self.cut_off and (self._arguments or self.wrapped):
                return True  # the model has ended, and left out closing tags
            raise
        if buffer.startswith(_FUNCTION_END, self.at):
            self.at += len(_FUNCTION_END)
            return True
        if buffer.startswith(CLOSERS, self.at):
            return True
        opened = _OPENED.match(buffer, self.at)
        if opened is None:
            self._wait_for(buffer, (_PARAMETER, _FUNCTION_END, *CLOSERS), final)
            raise NotACall
        self._open(opened)
        return False

    def _read_value(self, buffer: str, final: bool) -> bool:
        """The value of a parameter to its end. True: the call ends with it, and `at` is where it does."""
        while (tag := _IN_VALUE.search(buffer, self._looked)) is not None:
            word = tag[0]
            if word in CLOSERS:
                self._close(buffer, tag.start())
                self.at = tag.start()
                return True
            if word == _FUNCTION_END and (not self.wrapped or self._followed(buffer, tag.end(), _AFTER_CALL, final)):
                self._close(buffer, tag.start())
                self.at = tag.end()
                return True
            if word == _PARAMETER_END and self._followed(buffer, tag.end(), _AFTER_VALUE, final):
                self._close(buffer, tag.start())
                self.at = tag.end()
                return False
            if tag[1] is not None and self._is_next(tag[1]):
                self._close(buffer, tag.start())
                self._open(tag)
                return False
            self._looked = tag.end()
        if final:
            raise NotACall(len(buffer))  # the value may be half of one, and no other call can begin in it
        begun = buffer.rfind("<", max(self._looked, len(buffer) - LONGEST_TAG))
        self._looked = len(buffer) if begun < 0 else begun
        raise Wait

    def _is_next(self, name: str) -> bool:
        assert self._tool is not None
        properties = self._tool.parameters.get("properties")
        known = isinstance(properties, dict) and name in properties
        return known and name != self._parameter and name not in self._arguments

    def _open(self, tag: re.Match[str]) -> None:
        self._parameter = tag[1]
        self.at = self._looked = tag.end()

    def _close(self, buffer: str, end: int) -> None:
        """Take the value of the open parameter: what stands between its tags, without a line break at either end."""
        assert self._parameter is not None
        text = buffer[self.at : end].removeprefix("\n").removesuffix("\n")
        self._arguments[self._parameter] = value_of(text, types_of(self._tool, self._parameter))
        self._parameter = None

    # ---- JSON

    def _read_json(self, buffer: str, final: bool) -> Called:
        assert self._json_at is not None
        while (mark := _IN_JSON.search(buffer, self._looked)) is not None:
            self._looked = mark.end()
            match mark[0]:
                case "\\":
                    self._looked += 1  # whatever is escaped
                case '"':
                    self._quoted = not self._quoted
                case "{" if not self._quoted:
                    self._depth += 1
                case "}" if not self._quoted:
                    self._depth -= 1
                    if self._depth == 0:
                        self.at = mark.end()
                        return self._of_json(buffer[self._json_at : self.at])
                case "{" | "}":
                    pass
                case _:  # a closing tag, in a string or where no JSON can have it
                    self._closer = self._closer or mark.end()
                    if self._strict or not self._quoted:
                        raise NotACall(mark.end())
        if final:
            raise NotACall(self._closer or len(buffer))
        begun = buffer.rfind("<", max(self._looked, len(buffer) - LONGEST_TAG))
        self._looked = max(self._looked, len(buffer)) if begun < 0 else begun
        raise Wait

    def _of_json(self, text: str) -> Called:
        value = json_object(text) or {}
        arguments = value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json_object(arguments)
        name = value.get("name")
        if not isinstance(name, str) or name not in self._tools or not isinstance(arguments, dict):
            raise NotACall
        return Called(name, as_text(arguments))

    # ---- what follows

    def _go_on(self, buffer: str, final: bool) -> None:
        """Set `at` and `over` by what follows a call: another one between the same tags, the closing tag, or neither.
        Raises Wait."""
        another = FUNCTION if self._json_at is None else "{"
        at = self._after_gap(buffer, self.at, (another, *CLOSERS), final)
        if buffer.startswith(another, at):
            self.at, self.over = at, False
            return
        closer = next((tag for tag in CLOSERS if buffer.startswith(tag, at)), None)
        self.at = self.at if closer is None else at + len(closer)

    def _followed(self, buffer: str, at: int, words: Sequence[str], final: bool) -> bool:
        """Whether one of these words follows, or the end of the text. Raises Wait."""
        after = self._after_gap(buffer, at, words, final)
        return buffer.startswith(tuple(words), after) or (final and after == len(buffer))

    def _after_gap(self, buffer: str, at: int, words: Sequence[str], final: bool) -> int:
        """Where white space ends. Raises Wait where one of the words may come there and has not come whole."""
        after = _end_of_space(buffer, at, at + _GAP)
        rest = buffer[after : after + LONGEST_TAG]
        begun = not rest or any(word.startswith(rest) and word != rest for word in words)
        if begun and not final and after < at + _GAP:
            raise Wait
        return after

    def _skip_space(self, buffer: str, final: bool) -> None:
        self.at = _end_of_space(buffer, self.at, len(buffer))
        if self.at == len(buffer):
            raise NotACall(len(buffer)) if final else Wait

    def _wait_for(self, buffer: str, words: Sequence[str], final: bool) -> None:
        """Raises Wait if one of these words, or the name after it, may still come here."""
        rest = buffer[self.at : self.at + LONGEST_TAG]
        begun = any(word.startswith(rest) for word in words)
        named = any(re.fullmatch(rf"{word}[^<>\s]{{0,128}}", rest) for word in words if word.endswith("="))
        if (begun or named) and not final:
            raise Wait


_AFTER_VALUE = (_PARAMETER, _FUNCTION_END, *CLOSERS)
_AFTER_CALL = (FUNCTION, *CLOSERS)


def _end_of_space(text: str, start: int, end: int) -> int:
    found = _SPACE.match(text, start, end)
    return found.end() if found else start
