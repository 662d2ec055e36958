"""From what a server sends to the tokens of a sequence, with the think tags where they belong."""

from __future__ import annotations

from collections.abc import Sequence as Row
from itertools import islice

from engine.api import Section
from engine.openai.tokens import TAGS, Piece, RemoteTokenizer
from engine.openai.wire import Delta, Told

_OPEN, _CLOSE = TAGS


class Reader:
    """Reads one answer of a server.

    section  where the sequence stands as the answer begins.
    thinks   the model has think tags.
    fielded  the server takes the reasoning out of the text, into a field of its own.
    takes_ids  token ids are those of the text that comes with them.

    Where a server says how likely its tokens were, that is taken for the tokens that come with it if these are as many,
    and either the server gave their ids, or it calls them by the same ids or the same text.

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
        self._held_told: Row[Told] = ()  # of its tokens, where it is whole deltas

    async def read(self, delta: Delta) -> list[Piece]:
        """What a delta completes."""
        if self._takes_ids and delta.token_ids is not None and self._tokenizer.kind != "estimated":
            held = await self.finish()  # of chunks that had no ids
            if self._tokenizer.kind == "local":
                return [*held, *_with_likelihoods([Piece(delta.token_ids, None)], delta.logprobs)]
            pieces = await self._with_text(delta.token_ids, delta.reasoning, delta.text)
            return [*held, *_with_likelihoods(pieces, delta.logprobs)]
        pieces, put_in, held_before = list[Piece](), list[Piece](), self._held
        told, self._held_told = (*self._held_told, *delta.logprobs), ()
        if delta.reasoning:
            self._fielded = True
            pieces += await self._encoded(delta.reasoning)
        begins = len(pieces)
        if delta.text and self._reasoning and self._fielded:
            put_in.append(self._closed())
        if delta.text and self._reasoning:
            pieces += await self._until_closed(delta.text)
        elif delta.text:
            pieces += await self._encoded(delta.text)
        if self._held and not pieces:
            self._held_told = told
        elif not self._held and _speaks_of(told, held_before + delta.reasoning + delta.text, pieces):
            pieces = _with_likelihoods(pieces, told)
        return [*pieces[:begins], *put_in, *pieces[begins:]]

    async def finish(self) -> list[Piece]:
        """What is still held, at the end of the answer."""
        text, self._held, self._held_told = self._held, "", ()
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


def _speaks_of(told: Row[Told], text: str, pieces: Row[Piece]) -> bool:
    """Whether log-probabilities are those of the tokens that a text was encoded to."""
    ids = [token for piece in pieces for token in piece.ids]
    if all(each.id is not None for each in told):
        return [each.id for each in told] == ids
    return "".join(each.text or "" for each in told) == text


def _with_likelihoods(pieces: list[Piece], told: Row[Told]) -> list[Piece]:
    """Pieces with the log-probabilities of their tokens; as they are, if these are not as many."""
    if sum(len(piece.ids) for piece in pieces) != len(told):
        return pieces
    numbers = iter([each.log_probability for each in told])
    return [piece._replace(log_probabilities=tuple(islice(numbers, len(piece.ids)))) for piece in pieces]


def _index(ids: Row[int], pattern: Row[int]) -> int | None:
    """Where a pattern first begins in ids."""
    width = len(pattern)
    return next((at for at in range(len(ids) - width + 1) if tuple(ids[at : at + width]) == tuple(pattern)), None)
