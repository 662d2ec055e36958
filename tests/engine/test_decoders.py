"""Random tokens through the decoders that models come with: what is streamed is what decoding all at once says.

Byte fallback, whose decoder gives up on whole runs of bytes, has tests of its own in test_byte_fallback.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

import engine.sequence
from engine.api import GenerationRequest, Message, SamplingParams
from engine.detokenizer import REPLACEMENT, Detokenizer

END = "<end>"
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that byte-level BPE spells as themselves; the others are spelled by the code points from 256 on."""
LETTERS = dict(zip(_PRINTABLE, map(chr, _PRINTABLE), strict=True))
LETTERS |= {byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in LETTERS)}


class RealTokenizer:
    """A vocabulary and a decoder of the tokenizers library; token 0 ends a completion."""

    end_ids = frozenset([0])
    think_open = think_close = forced_close = ()

    def __init__(self, words: Sequence[str], decoder: Any) -> None:
        self.words = dict.fromkeys([END, *words])
        self._tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(self.words)}, merges=[]))
        self._tokenizer.decoder = decoder

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        return False

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([i for i in token_ids if i]))


def byte_level(*pieces: bytes) -> RealTokenizer:
    """Every byte is a token, and so are these, which may begin or end inside a character."""
    words = [bytes([byte]) for byte in range(256)] + list(pieces)
    return RealTokenizer(["".join(LETTERS[byte] for byte in word) for word in words], decoders.ByteLevel())


PIECES = "▁", "▁a", "▁the", "a", "é", "ing", "▁▁", "日", ".", "▁,"
TOKENIZERS = {
    "byte-level": byte_level(
        b" the", " é".encode(), "日".encode()[:2], "日本".encode()[2:], "😀".encode()[1:], b" \xf0\x9f"
    ),
    "SentencePiece": RealTokenizer(PIECES, decoders.Metaspace(prepend_scheme="always")),
    "SentencePiece, nothing before the first word": RealTokenizer(PIECES, decoders.Metaspace(prepend_scheme="never")),
    "words with their spaces": RealTokenizer(["a", " b", "c ", "  "], decoders.Fuse()),
}
kinds = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=list(TOKENIZERS))
numbers = st.lists(st.integers(0, 10_000), max_size=30)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def tokens(tokenizer: RealTokenizer, numbers: Sequence[int]) -> list[int]:
    """Any tokens but the end; longer ones, of which there are fewer, half of the time."""
    most = len(tokenizer.words) - 1
    few = min(most, 10)
    return [most - number // 2 % few if number % 2 else 1 + number // 2 % most for number in numbers]


def streamed(tokenizer: RealTokenizer, ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer.decode_exactly)
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [detokenizer.add(ids[start:end]) for start, end in pairwise(edges)] + [detokenizer.finish()]


@kinds
@given(numbers=numbers, cuts=cuts)
def test_any_chunks_of_any_tokens_are_the_decoded_whole(
    tokenizer: RealTokenizer, numbers: list[int], cuts: list[int]
) -> None:
    """To the last character, broken ones too, but for those at the very end, which may be unfinished."""
    ids = tokens(tokenizer, numbers)
    text = "".join(streamed(tokenizer, ids, cuts))
    assert text.rstrip(REPLACEMENT) == tokenizer.decode_exactly(ids).rstrip(REPLACEMENT)
    assert tokenizer.decode_exactly(ids).startswith(text)


@kinds
@given(numbers=numbers, flushes=st.sets(st.integers(0, 30)))
def test_what_is_shown_and_the_final_text_are_one(
    tokenizer: RealTokenizer, numbers: list[int], flushes: set[int]
) -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=SamplingParams())
    sequence = engine.sequence.Sequence(request, tokenizer, prompt_tokens=1, opened=False)
    ids, chunks = tokens(tokenizer, numbers), []
    for number, token in enumerate([*ids, 0]):
        sequence.accept(token)
        if number in flushes:
            chunks += sequence.chunks()
    chunks += sequence.chunks()
    assert "".join(chunk.text for chunk in chunks) == sequence.completion().text
    assert sequence.completion().text.rstrip(REPLACEMENT) == tokenizer.decode_exactly(ids).rstrip(REPLACEMENT)
