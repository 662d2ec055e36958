"""Turns a growing list of token ids into text that never ends inside a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no UTF-8, such as the first bytes of an unfinished character."""
_CONTEXT_TOKENS = 4
"""Earlier tokens decoded with each window: decoders join a token to what stands before it (spaces of SentencePiece,
bytes of one character), and this gives the same text as decoding all at once."""
_MAX_HELD_TOKENS = 3
"""Tokens that may wait for the end of a character, which has at most four bytes."""


class Detokenizer:
    """Incremental decoding of one section of one completion.

    `decode` maps token ids to text. The concatenation of all that `add` and `finish` return is the text of all
    ids, less the bytes of a character left unfinished at the very end.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []  # the last tokens shown
        self._pending: list[int] = []  # tokens not shown yet

    def add(self, token_ids: Sequence[int]) -> str:
        """Text that these tokens complete; empty while a character is unfinished."""
        self._pending.extend(token_ids)
        for held in range(min(_MAX_HELD_TOKENS, len(self._pending) - 1) + 1):
            text = self._text(len(self._pending) - held)
            if not text.endswith(REPLACEMENT):
                return self._show(text, held)
        if len(self._pending) <= _MAX_HELD_TOKENS:
            return ""
        return self._show(self._text(len(self._pending)), 0)  # no UTF-8, and never will be

    def finish(self) -> str:
        """What is left at the end, without the bytes of an unfinished character."""
        text = self._text(len(self._pending)).rstrip(REPLACEMENT)
        self._context, self._pending = [], []
        return text

    def _text(self, count: int) -> str:
        """What the first `count` pending tokens add to the text."""
        if count == 0:
            return ""
        before = self._decode(self._context) if self._context else ""
        return self._decode([*self._context, *self._pending[:count]])[len(before) :]

    def _show(self, text: str, held: int) -> str:
        shown = len(self._pending) - held
        self._context = [*self._context, *self._pending[:shown]][-_CONTEXT_TOKENS:]
        self._pending = self._pending[shown:]
        return text
