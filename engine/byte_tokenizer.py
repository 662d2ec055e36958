"""The simplest tokenizer there is, for the scripted engine: a token is a byte."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Message, Tool

THINK_OPEN, THINK_CLOSE, END = 256, 257, 258
"""Token ids of the tags and of the end of a turn; ids 0..255 are bytes."""
_TURN_TOKENS = 3  # role and line breaks around the text of one message
_IMAGE_TOKENS = 16
_FILLER = ord("\n")  # stands for both in a prompt


class ByteTokenizer:
    """One token per UTF-8 byte: reversible, and tails can start inside a character, as real ones do.

    thinks  False: without think tags. Otherwise a prompt ends in the opening one, as many chat templates have it.

    takes_tools  as `engine.mlx.tokenizer.ChatTokenizer` says it: always.

    The other attributes are those of an `engine.sequence.SequenceTokenizer`.
    """

    def __init__(self, *, thinks: bool = True) -> None:
        self.takes_tools = True
        self.end_ids = frozenset([END])
        self.think_open = (THINK_OPEN,) if thinks else ()
        self.think_close = self.forced_close = (THINK_CLOSE,) if thinks else ()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens. Tags are skipped; a character cut in two at either end is dropped."""
        data = _bytes_of(token_ids)
        start = 0
        while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
            start += 1
        return data[start : _whole_characters(data)].decode("utf-8", errors="replace")

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, tags skipped; bytes that are no UTF-8 become U+FFFD."""
        return _bytes_of(token_ids).decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """The bytes of `text`; tags spelled in it stay plain text."""
        return list(text.encode())

    def prompt_ids(
        self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """The bytes of all texts, after a few tokens a turn and 16 an image; tools first, calls last in their turn."""
        ids = [byte for tool in tools for byte in self.encode(tool.model_dump_json())]
        for message in messages:
            ids += [_FILLER] * (_TURN_TOKENS + _IMAGE_TOKENS * len(message.images)) + self.encode(message.text)
            ids += [byte for call in message.calls for byte in self.encode(call.name + call.arguments)]
        return [*ids, *self.think_open] if thinking else ids

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()) -> int:
        """Length of the prompt that a request with these messages and tools is given."""
        return len(self.prompt_ids(messages, thinking=thinking, tools=tools))

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """True if the prompt ends in an opened think tag."""
        return bool(self.think_open) and prompt_ids[-1] == THINK_OPEN


def _bytes_of(token_ids: Sequence[int]) -> bytes:
    return bytes(token for token in token_ids if token < THINK_OPEN)


def _whole_characters(data: bytes) -> int:
    """Number of bytes of `data` without a character that is cut off at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
    return len(data)
