"""The tokens of a model that runs elsewhere: its own, through a tokenizer here or there, or an estimate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import anyio
import anyio.to_thread

from engine.api import Message, Tool
from engine.detokenizer import REPLACEMENT
from engine.likelihoods import Likelihood
from engine.openai.asking import Asker
from engine.openai.connection import BrokenError
from engine.openai.estimated import EstimatedTokenizer
from engine.openai.wire import read_detokenized, read_tokens

if TYPE_CHECKING:
    from engine.mlx.tokenizer import ChatTokenizer

TAGS = ("<think>", "</think>")
BLANK = "\n\n"
"""What chat templates put after the closing tag."""
IMAGE_TOKENS = 1280
"""What an image is taken to need of a prompt. Servers do not say before they have read it; this is much for most."""
_KEPT_COUNTS = 4096
_KEPT_TEXTS = 1024
_KEPT_PIECES = 65536
"""What a server writes at once is mostly one token: with these, a vocabulary's are encoded once."""
_LONGEST_KEPT = 64
_PATIENCE_S = 30.0
_BEFORE = "a"
"""A text before another, so that this one is no beginning."""

Q = TypeVar("Q")
A = TypeVar("A")
Kind = Literal["local", "server", "estimated"]
CountPrompt = Callable[[Sequence[Message], bool, Sequence[Tool]], int]
"""Counts the tokens of messages, with thinking or without, and with tools."""


class Piece(NamedTuple):
    """Tokens that came together.

    text               of all of them; None: it is to be decoded here.
    log_probabilities  of each; none if it is not known which token the server speaks of.
    """

    ids: tuple[int, ...]
    text: str | None
    log_probabilities: tuple[float | None, ...] = ()

    def split(self, at: int, first: str) -> tuple[Piece, Piece]:
        """The tokens before a place, whose text is `first`, and the others; only where there is a text."""
        assert self.text is not None
        numbers = self.log_probabilities
        rest = self.text.removeprefix(first)
        return Piece(self.ids[:at], first, numbers[:at]), Piece(self.ids[at:], rest, numbers[at:])

    def likelihood(self, place: int) -> Likelihood | None:
        number = self.log_probabilities[place] if self.log_probabilities else None
        return None if number is None else Likelihood(number)


class ServerTokenizer:
    """The tokenizer of a server that has `/tokenize` and `/detokenize`; each question waits for its answer.

    The attributes are those of an `engine.sequence.SequenceTokenizer`. Raises EngineError where the server does.
    """

    def __init__(self, asker: Asker, model: str, *, thinks: bool) -> None:
        self._asker, self._model = asker, model
        self.encode = lru_cache(_KEPT_TEXTS)(self._encode)
        self._decoded = lru_cache(_KEPT_TEXTS)(self._decode)
        self.end_ids = frozenset[int]()
        self.think_open, self.think_close = (tuple(self.encode(tag)) if thinks else () for tag in TAGS)
        blank = self.encode(BLANK)
        self.forced_close = (*self.think_close, *blank) if thinks else ()
        self._tags = frozenset(tag[0] for tag in (self.think_open, self.think_close) if len(tag) == 1)
        self.decode_exactly(blank)  # it is kept, for whoever must not wait

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, tags skipped; bytes that are no UTF-8 are dropped at both ends."""
        return self.decode_exactly(token_ids).strip(REPLACEMENT)

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, tags skipped; bytes that are no UTF-8 become U+FFFD."""
        shown = tuple(token for token in token_ids if token not in self._tags)
        return self._decoded(shown) if shown else ""

    def _encode(self, text: str) -> list[int]:
        # vLLM and SGLang call the text `prompt`, llama.cpp `content`; each leaves alone what it does not know.
        given = {"prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        return self._asker.post_beside("/tokenize", {"model": self._model, **given}, read_tokens)

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        given = {"tokens": list(token_ids), "skip_special_tokens": True}
        return self._asker.post_beside("/detokenize", {"model": self._model, **given}, read_detokenized)


class RemoteTokenizer:
    """An `engine.api.Tokenizer`, and what a sequence wants to know.

    kind          whose tokens they are.
    codec         turns text into tokens and back.
    count_prompt  tokens of a prompt without its images, as the server will count them.
    """

    def __init__(
        self,
        kind: Kind,
        codec: ChatTokenizer | ServerTokenizer | EstimatedTokenizer,
        count_prompt: CountPrompt,
    ) -> None:
        self.kind = kind
        self._codec = codec
        self._count_prompt = count_prompt
        self._counts: OrderedDict[object, int] = OrderedDict()
        self._pieces: dict[str, Piece] = {}
        self._token_of: Callable[[str], int | None] = getattr(codec, "token_of", lambda text: None)
        # Tokenizers of the SentencePiece kind put a space before what they take for a beginning.
        self._spaces = codec.decode_exactly([*codec.encode(_BEFORE), *codec.encode(_BEFORE)]) != 2 * _BEFORE
        self.end_ids = codec.end_ids
        self.think_open, self.think_close = codec.think_open, codec.think_close
        self.forced_close = codec.forced_close

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text."""
        return list(self._codec.encode(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 are dropped at both ends."""
        return self._codec.decode(token_ids)

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 become U+FFFD."""
        return self._codec.decode_exactly(token_ids)

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()) -> int:
        """Length of the prompt that a request with these messages and tools is given; images count as `IMAGE_TOKENS`
        each."""
        texts = [message.model_copy(update={"images": ()}) for message in messages]
        key = (tuple(texts), thinking, tuple(tools))
        if key not in self._counts:
            self._counts[key] = self._count_prompt(texts, thinking, tools)
            if len(self._counts) > _KEPT_COUNTS:
                self._counts.popitem(last=False)
        return self._counts[key] + IMAGE_TOKENS * sum(len(message.images) for message in messages)

    async def piece_of(self, text: str) -> Piece:
        """Tokens of a text that a server wrote; where that takes asking, nobody else waits for it."""
        piece = self._pieces.get(text)
        if piece is None:
            if self.kind == "server":
                piece = Piece(tuple(await _asked(self._encode_within, text)), text)
            else:
                piece = Piece(tuple(self._encode_within(text)), None)
            if len(text) <= _LONGEST_KEPT and len(self._pieces) < _KEPT_PIECES:
                self._pieces[text] = piece
        return piece

    def _encode_within(self, text: str) -> list[int]:
        """Tokens of a text that stands in the midst of another: one, if there is such a one, for that is what a server
        writes at once, and models draw tokens that nobody would choose who encodes."""
        if self._spaces:
            begun, whole = self.encode(_BEFORE), self.encode(_BEFORE + text)
            if whole[: len(begun)] == begun:
                return whole[len(begun) :]
        ids = self.encode(text)
        one = self._token_of(text) if len(ids) > 1 and not self._spaces else None
        return ids if one is None else [one]

    async def text_of(self, token_ids: Sequence[int]) -> str:
        """`decode_exactly`, where nobody else waits for it."""
        if self.kind != "server":
            return self.decode_exactly(token_ids)
        return await _asked(self.decode_exactly, token_ids)


async def _asked(ask: Callable[[Q], A], question: Q) -> A:
    """Ask a server in a thread. Nobody can cancel this: who reads an answer is cancelled where it waits for more of it.

    Raises BrokenError where that takes too long.
    """
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _PATIENCE_S):
        return await anyio.to_thread.run_sync(ask, question, abandon_on_cancel=True)
    raise BrokenError(f"the server's tokenizer did not answer within {_PATIENCE_S:g} s")
