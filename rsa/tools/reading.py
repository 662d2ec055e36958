"""Reads calls of tools in what a model writes, as it comes or whole: both give the same.

Two forms, each between `<tool_call>` and `</tool_call>`, or ZAYA1's `<zyphra_tool_call>`:

    {"name": "add", "arguments": {"a": 1}}                              Hermes, Qwen and many others
    <function=add> <parameter=a> 1 </parameter> </function>             ZAYA1's `zaya_xml`, Qwen Coder

each tag and each value on a line of its own. The second is read without the tags around it, too, for servers that leave
special tokens out of a text. A call is one only if it names a tool that there is, and only when it is complete: what is
cut off, or spelled otherwise, is text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.api import Tool, ToolCall
from rsa.tools.blocks import FUNCTION, LONGEST_TAG, NAME, OPENERS, Block, Called, NotACall, Wait

Part = str | Called
_BEGINS = re.compile("|".join([*OPENERS, FUNCTION + NAME]))
_BEGUN = re.compile(rf"{FUNCTION}[^<>\s]{{0,128}}")
_MOST_RETRIES = 16
"""Broken JSON is read to the end of the text before it is given up, so often; then a closing tag ends it at once."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote: its text, and the calls that stood in it."""

    text: str
    calls: tuple[ToolCall, ...] = ()


def read_calls(text: str, tools: Sequence[Tool], *, whole: bool = True, salt: str = "") -> Written:
    """Take the calls of tools out of a text, with the white space around them.

    whole  the text came to its end; otherwise it was cut off, maybe within a call.
    salt   what the ids of the calls follow from, with their numbers: it should be another one for every text.
    """
    reader = CallReader(tools)
    parts = [*reader.feed(text), *reader.finish(whole=whole)]
    called = [part for part in parts if isinstance(part, Called)]
    said = "".join(part for part in parts if isinstance(part, str))
    return Written(said, tuple(as_call(each, salt, number) for number, each in enumerate(called)))


def as_call(called: Called, salt: str, number: int) -> ToolCall:
    """A call with an id, which follows from the two: a run that is resumed gives its calls the same ids."""
    digest = hashlib.blake2b(f"{number} {salt}".encode(errors="replace"), digest_size=12).hexdigest()
    return ToolCall(id=f"call_{digest}", name=called.name, arguments=called.arguments)


class CallReader:
    """Reads one text, in pieces of whatever length.

    tools  there are; without any, all is text.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._buffer = ""
        self._block: Block | None = None
        self._began = 0  # length of the tag with which the block began
        self._space = ""  # said only if no call follows
        self._said = self._after_call = False
        self._joint = ""  # between a text before calls and one after them
        self._retries = 0
        self._whole = True

    def feed(self, text: str) -> list[Part]:
        """What is certain after the next piece: texts, and calls that are complete."""
        self._buffer += text
        return self._read(final=False)

    def finish(self, *, whole: bool = True) -> list[Part]:
        """What is left at the end of the text. `whole`: as of `read_calls`."""
        self._whole = whole
        if self._block is not None:
            self._block.cut_off = not whole
        parts = self._read(final=True)
        if self._space:
            parts.append(self._space)
        return parts

    def _read(self, *, final: bool) -> list[Part]:
        parts: list[Part] = []
        if not self._tools:
            parts, self._buffer = [self._buffer] if self._buffer else [], ""
        try:
            while self._buffer:
                if self._block is None:
                    self._seek(parts, final)
                else:
                    self._call(self._block, parts, final)
        except Wait:
            pass
        return parts

    def _seek(self, parts: list[Part], final: bool) -> None:
        """Say what stands before the next tag that may begin a call, and begin to read that."""
        for match in _BEGINS.finditer(self._buffer):
            wrapped = match[1] is None
            if wrapped or match[1] in self._tools:
                self._say(match.start(), parts)
                self._began = len(match[0])
                self._begin(wrapped=wrapped, at=self._began if wrapped else 0)
                return
        self._say(len(self._buffer) if final else len(self._buffer) - _may_begin(self._buffer), parts)
        if self._buffer:
            raise Wait

    def _begin(self, *, wrapped: bool, at: int) -> None:
        self._block = Block(self._tools, at=at, wrapped=wrapped, strict=self._retries >= _MOST_RETRIES)
        self._block.cut_off = not self._whole

    def _call(self, block: Block, parts: list[Part], final: bool) -> None:
        try:
            called = block.read(self._buffer, final=final)
        except NotACall as why:
            self._retries += why.upto is not None
            self._block = None
            self._say(max(1, self._began if why.upto is None else why.upto), parts)
            return
        if self._said and not self._after_call:
            self._joint = self._space or "\n"
        self._space, self._after_call = "", True
        parts.append(called)
        self._buffer = self._buffer[block.at :]
        self._block = None
        if not block.over:
            self._began = 0
            self._begin(wrapped=True, at=0)

    def _say(self, length: int, parts: list[Part]) -> None:
        """Say so much of the buffer, but for white space before a call and after one."""
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        text = self._space + (text.lstrip() if self._after_call else text)
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            parts.append(self._joint + said)
            self._said, self._after_call, self._joint = True, False, ""


def _may_begin(text: str) -> int:
    """How much of the end of a text may be the beginning of a tag with which calls begin."""
    at = text.rfind("<", max(0, len(text) - LONGEST_TAG))
    begun = text[at:] if at >= 0 else ""
    possible = bool(begun) and (any(tag.startswith(begun) for tag in (*OPENERS, FUNCTION)) or _BEGUN.fullmatch(begun))
    return len(begun) if possible else 0
