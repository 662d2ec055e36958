"""The simplest tokenizer there is, for the scripted engine: a token is a byte."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Message

THINK_OPEN, THINK_CLOSE, END = 256, 257, 258
"""Token ids of the tags and of the end of a turn; ids 0..255 are bytes."""
_TURN_TOKENS = 3  # role and line breaks around the text of one message
_IMAGE_TOKENS = 16


class ByteTokenizer:
    """One token per UTF-8 byte: reversible, and tails can start inside a character, as real ones do."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens. Tags are skipped; a character cut in two at either end is dropped."""
        data = bytes(token for token in token_ids if token < THINK_OPEN)
        start = 0
        while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
            start += 1
        return data[start : whole_characters(data)].decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """The bytes of `text`; tags spelled in it stay plain text."""
        return list(text.encode())

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True) -> int:
        """Bytes of all texts, a few tokens a turn and 16 an image."""
        turns = sum(
            _TURN_TOKENS + len(message.text.encode()) + _IMAGE_TOKENS * len(message.images) for message in messages
        )
        return turns + (1 if thinking else 0)


def whole_characters(data: bytes) -> int:
    """Number of bytes of `data` without a character that is cut off at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
    return len(data)
