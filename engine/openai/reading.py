"""From what a server sends to the tokens of a sequence, with the think tags where they belong."""

from __future__ import annotations

from collections.abc import Sequence as Row

from engine.api import Section
from engine.openai.tokens import TAGS, Piece, RemoteTokenizer
from engine.openai.wire import Delta

_OPEN, _CLOSE = TAGS


class Reader:
    """Reads one answer of a server.

    section  where the sequence stands as the answer begins.
    thinks   the model has think tags.
    fielded  the server takes the reasoning out of the text, into a field of its own.
    takes_ids  token ids are those of the text that comes with them.

    Where the server gives token ids, they are taken as they are, and its text only where no tokenizer is here to decode
    them. Else its text is encoded, each delta by itself: most servers send one for each token, and models draw tokens
    that nobody would choose who encodes a whole text. The tags are put in where reasoning changes to answer.
    """

    def __init__(
        self, tokenizer: RemoteTokenizer, *, section: Section, thinks: bool, fielded: bool, takes_ids: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._reasoning = section == "reasoning" and thinks
        self._fielded, self._takes_ids = fielded, takes_ids
        self._fresh = True  # nothing of the text has been read: an opening tag may come
        self._held = ""  # text in which a tag may have begun

    async def read(self, delta: Delta) -> list[Piece]:
        """What a delta completes."""
        if self._takes_ids and delta.token_ids is not None and self._tokenizer.kind != "estimated":
            held = await self.finish()  # of chunks that had no ids
            if self._tokenizer.kind == "local":
                return [*held, Piece(delta.token_ids, None)]
            return [*held, *await self._with_text(delta.token_ids, delta.reasoning, delta.text)]
        pieces: list[Piece] = []
        if delta.reasoning:
            self._fielded = True
            pieces += await self._encoded(delta.reasoning)
        if delta.text and self._reasoning and self._fielded:
            pieces.append(self._closed())
        if delta.text and self._reasoning:
            pieces += await self._until_closed(delta.text)
        elif delta.text:
            pieces += await self._encoded(delta.text)
        return pieces

    async def finish(self) -> list[Piece]:
        """What is still held, at the end of the answer."""
        text, self._held = self._held, ""
        return await self._encoded(text)

    async def _with_text(self, ids: Row[int], reasoning: str, text: str) -> list[Piece]:
        """Ids with the text that the server decoded, which is all of them together."""
        opening, closing = self._tokenizer.think_open, self._tokenizer.think_close
        pieces: list[Piece] = []
        if self._reasoning and opening and tuple(ids[: len(opening)]) == opening:
            pieces, ids = [Piece(opening, "")], ids[len(opening) :]
            text = text.removeprefix(_OPEN)
        at = _index(ids, closing) if self._reasoning and closing else None
        if at is None:
            return [*pieces, Piece(tuple(ids), reasoning + text)]
        self._reasoning = False
        before, after = tuple(ids[:at]), tuple(ids[at + len(closing) :])
        said, tag, answer = text.partition(_CLOSE)
        if not tag:  # the server leaves special tokens out of its text, or puts the reasoning into its field
            said = await self._tokenizer.text_of(before) if before and text and not reasoning else ""
            answer = text.removeprefix(said)
        return [*pieces, Piece(before, reasoning + said), Piece(closing, ""), Piece(after, answer)]

    async def _until_closed(self, text: str) -> list[Piece]:
        """A text in which the tags stand."""
        text, pieces = self._held + text, list[Piece]()
        self._held = ""
        if self._fresh:
            begun = text.lstrip()
            if begun.startswith(_OPEN):
                pieces, text = [Piece(self._tokenizer.think_open, "")], begun.removeprefix(_OPEN)
            elif _OPEN.startswith(begun):
                self._held = text
                return pieces
            self._fresh = False
        before, tag, after = text.partition(_CLOSE)
        if tag:
            return [*pieces, *await self._encoded(before), self._closed(), *await self._encoded(after)]
        held = next((n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0)
        self._held = text[len(text) - held :]
        return pieces + await self._encoded(text[: len(text) - held])

    def _closed(self) -> Piece:
        self._reasoning = False
        return Piece(self._tokenizer.think_close, "")

    async def _encoded(self, text: str) -> list[Piece]:
        return [await self._tokenizer.piece_of(text)] if text else []


def _index(ids: Row[int], pattern: Row[int]) -> int | None:
    """Where a pattern first begins in ids."""
    width = len(pattern)
    return next((at for at in range(len(ids) - width + 1) if tuple(ids[at : at + width]) == tuple(pattern)), None)
