"""Text of a tokenizer that falls back on bytes: no character is lost, however the tokens come.

Its decoder makes U+FFFD of a whole run of bytes in which one is amiss, so that a piece that begins or ends inside a
character breaks the characters beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import pairwise

import pytest
from byte_fallback import ByteFallbackTokenizer
from hypothesis import example, given
from hypothesis import strategies as st

import engine.sequence
from engine.api import GenerationRequest, Message, SamplingParams
from engine.detokenizer import REPLACEMENT, Detokenizer, decode_cut

STRIPPING, PLAIN = ByteFallbackTokenizer(strips=True), ByteFallbackTokenizer(strips=False)
tokenizers = st.sampled_from([STRIPPING, PLAIN])
# Words, spaces, and characters of one to four bytes; U+FFFD is left to broken bytes.
texts = st.text(st.sampled_from("ab é") | st.characters(exclude_characters=REPLACEMENT, exclude_categories=["Cs"]))
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def chunked(ids: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in pairwise(edges)]


def streamed(tokenizer: ByteFallbackTokenizer, chunks: Sequence[Sequence[int]]) -> list[str]:
    detokenizer = Detokenizer(tokenizer.decode_exactly)
    return [detokenizer.add(chunk) for chunk in chunks] + [detokenizer.finish()]


@given(tokenizer=tokenizers, text=texts, cuts=cuts)
@example(tokenizer=PLAIN, text="ሀሁሂ a", cuts=list(range(20)))
@example(tokenizer=PLAIN, text="𝑥𝑦𝑧 = a", cuts=list(range(20)))
def test_any_chunks_of_a_text_are_the_decoded_whole(
    tokenizer: ByteFallbackTokenizer, text: str, cuts: list[int]
) -> None:
    ids = tokenizer.encode(text)
    pieces = streamed(tokenizer, chunked(ids, cuts))
    assert "".join(pieces) == tokenizer.decode_exactly(ids) == (text.removeprefix(" ") if tokenizer.strips else text)
    assert not any(REPLACEMENT in piece for piece in pieces)


@given(tokenizer=tokenizers, ids=st.lists(st.integers(3, 263)), cuts=cuts)
@example(tokenizer=STRIPPING, ids=[136, 8, 8, 40], cuts=[182])
def test_chunks_of_any_tokens_say_the_same_as_one_by_one(
    tokenizer: ByteFallbackTokenizer, ids: list[int], cuts: list[int]
) -> None:
    assert "".join(streamed(tokenizer, chunked(ids, cuts))) == "".join(streamed(tokenizer, [[i] for i in ids]))


@given(tokenizer=tokenizers, before=texts, broken=st.binary(max_size=6), after=texts)
def test_broken_bytes_cost_no_character_beside_them(
    tokenizer: ByteFallbackTokenizer, before: str, broken: bytes, after: str
) -> None:
    """Bytes that continue characters, and so are broken wherever they stand."""
    strays = [tokenizer.byte(0x80 | byte & 0x3F) for byte in broken]
    ids = [*tokenizer.encode("a" + before), *strays, *tokenizer.encode(after + "b")]
    assert "".join(streamed(tokenizer, [[i] for i in ids])).replace(REPLACEMENT, "") == f"a{before}{after}b"


@given(tokenizer=tokenizers, reasoning=texts, answer=texts, flushes=st.sets(st.integers(0, 60)))
def test_reasoning_and_answer_are_whole(
    tokenizer: ByteFallbackTokenizer, reasoning: str, answer: str, flushes: set[int]
) -> None:
    request = GenerationRequest(id="r", messages=(Message(role="user", text="?"),), sampling=SamplingParams())
    sequence = engine.sequence.Sequence(request, tokenizer, prompt_tokens=1, opened=True)
    chunks = []
    ids = [*tokenizer.encode("a" + reasoning), *tokenizer.think_close, *tokenizer.encode("a" + answer), 0]
    for number, token in enumerate(ids):
        sequence.accept(token)
        if number in flushes:
            chunks += sequence.chunks()
    chunks += sequence.chunks()
    completion = sequence.completion()
    assert (completion.reasoning, completion.text) == (f"a{reasoning}", f"a{answer}")
    for section in ("reasoning", "answer"):
        shown = "".join(chunk.text for chunk in chunks if chunk.section == section)
        assert shown == (completion.reasoning if section == "reasoning" else completion.text)


@given(tokenizer=tokenizers, text=texts, first=st.integers(0, 40), last=st.integers(0, 40))
@example(tokenizer=PLAIN, text="ሀሁሂ", first=1, last=1)
def test_a_cut_costs_the_characters_that_it_goes_through(
    tokenizer: ByteFallbackTokenizer, text: str, first: int, last: int
) -> None:
    """Of the whole characters between two cuts, none is lost; a stripping decoder takes a space from the beginning."""
    ids = tokenizer.encode(text)
    last = max(len(ids) - last, first)
    ends = list(itertools.accumulate(len(tokenizer.encode(character)) for character in text))
    whole = [c for c, end in zip(text, ends, strict=True) if end - len(tokenizer.encode(c)) >= first and end <= last]
    expected = "".join(whole)
    found = decode_cut(tokenizer.decode_exactly, ids[first:last])
    assert found == expected or (tokenizer.strips and found == expected.removeprefix(" "))


@pytest.mark.parametrize("tokenizer", [STRIPPING, PLAIN], ids=["strips", "plain"])
def test_a_space_after_broken_bytes_stays(tokenizer: ByteFallbackTokenizer) -> None:
    ids = [*[tokenizer.byte(0xFF)] * 4, *tokenizer.encode(" a")]
    assert "".join(streamed(tokenizer, [[i] for i in ids])) == 4 * REPLACEMENT + " a"
