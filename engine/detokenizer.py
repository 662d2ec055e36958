"""Turns a growing list of token ids into text that never ends inside a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no UTF-8, such as the first bytes of an unfinished character."""
_CONTEXT_TOKENS = 4
"""Earlier tokens decoded with each window: decoders join a token to what stands before it (spaces of SentencePiece,
punctuation), and this gives the same text as decoding all at once."""
_MAX_HELD_TOKENS = 3
"""Tokens that may wait for the end of a character, which has at most four bytes."""


def decode_cut(decode: Callable[[Sequence[int]], str], token_ids: Sequence[int]) -> str:
    """Text of tokens cut out of a longer text, less the characters that the cuts go through.

    Where a cut goes through a run of bytes, decoders with byte fallback break all of the run: then the few tokens that
    are a part of a character are left out, whichever show the most of the others.
    """
    best = decode(token_ids)
    ways = [(first, last) for first in range(_MAX_HELD_TOKENS + 1) for last in range(_MAX_HELD_TOKENS + 1)]
    for first, last in sorted(ways, key=sum)[1:]:
        if REPLACEMENT not in best:
            break
        text = decode(token_ids[first : max(len(token_ids) - last, first)])
        best = max(best, text, key=lambda reading: len(reading) - reading.count(REPLACEMENT))
    return best.strip(REPLACEMENT)


class Detokenizer:
    """Incremental decoding of one section of one completion.

    `decode` maps token ids to text. The concatenation of all that `add` and `finish` return is the text of all
    ids, less the bytes of a character left unfinished at the very end. It is the same however the ids are cut
    into calls. Among bytes that are no UTF-8 it keeps whole characters, where some decoders give up on all bytes
    of such a run.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []  # the last tokens shown
        self._pending: list[int] = []  # tokens not shown yet

    def add(self, token_ids: Sequence[int]) -> str:
        """Text that these tokens complete; empty while a character is unfinished."""
        text = self._text([*self._pending, *token_ids])
        if REPLACEMENT not in text:
            self._pending.extend(token_ids)
            self._show(len(self._pending))
            return text
        return "".join(map(self._add_one, token_ids))  # where to cut must not depend on how the tokens come

    def finish(self) -> str:
        """What is left at the end, without the bytes of an unfinished character."""
        text = self._text(self._pending).rstrip(REPLACEMENT)
        self._context, self._pending = [], []
        return text

    def _add_one(self, token: int) -> str:
        self._pending.append(token)
        count, whole = len(self._pending), self._text(self._pending)
        if not whole.endswith(REPLACEMENT):
            return self._take(count)
        for start in range(1, count):
            text = self._decode(self._pending[start:])
            if text and REPLACEMENT not in text:  # what stands before a whole character will never be one
                return self._take(start) + self._take(count - start)
        first = max(count - _MAX_HELD_TOKENS, 0)
        # A token may end inside a character that the next one ends: a cut between them would break it.
        clean = (cut for cut in range(first, count) if whole.startswith(self._text(self._pending[:cut])))
        return self._take(next(clean, first))

    def _take(self, count: int) -> str:
        """Show the first pending tokens; returns their text."""
        text = self._text(self._pending[:count])
        self._show(count)
        return text

    def _show(self, count: int) -> None:
        self._context = [*self._context, *self._pending[:count]][-_CONTEXT_TOKENS:]
        self._pending = self._pending[count:]

    def _text(self, token_ids: Sequence[int]) -> str:
        """What tokens add to the text shown so far.

        They are read behind the context; where that breaks characters, behind less and less of it, and last alone, and
        the first reading with the fewest broken characters is taken. A context may begin or end inside a run of bytes,
        and where one byte of a run is amiss, decoders with byte fallback break all of it. Text always ends between two
        characters here, so that what follows can be read alone; only a space at its beginning may then be lost.
        """
        if not token_ids:
            return ""
        best = self._behind(self._context, token_ids)
        for start in range(1, len(self._context) + 1):
            if REPLACEMENT not in best:
                break
            reading = self._behind(self._context[start:], token_ids)
            best = min(best, reading, key=lambda text: text.count(REPLACEMENT))
        return best

    def _behind(self, context: Sequence[int], token_ids: Sequence[int]) -> str:
        before = self._decode(context) if context else ""
        return self._decode([*context, *token_ids])[len(before) :]
