"""Streaming text: whatever the chunks, the whole is the text, and no piece ends inside a character."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.detokenizer import REPLACEMENT, Detokenizer


def decode_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def decode_words(ids: Sequence[int]) -> str:
    """Like SentencePiece: a space before every word but the first of what is decoded."""
    return " ".join(f"w{i}" for i in ids)


def chunked(ids: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in pairwise(edges)]


@given(text=st.text(), cuts=st.lists(st.integers(0, 1000)))
def test_any_chunking_of_any_text(text: str, cuts: list[int]) -> None:
    ids = text.replace(REPLACEMENT, "").encode()
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.add(chunk) for chunk in chunked(ids, cuts)] + [detokenizer.finish()]
    assert "".join(pieces) == ids.decode()
    assert not any(piece.endswith(REPLACEMENT) for piece in pieces)


@given(ids=st.binary(), cuts=st.lists(st.integers(0, 1000)))
def test_bytes_that_are_no_text_do_not_stop_the_stream(ids: bytes, cuts: list[int]) -> None:
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.add(chunk) for chunk in chunked(ids, cuts)] + [detokenizer.finish()]
    assert "".join(pieces).replace(REPLACEMENT, "") == decode_bytes(ids).replace(REPLACEMENT, "")


@given(ids=st.lists(st.integers(0, 99)), cuts=st.lists(st.integers(0, 1000)))
def test_decoders_that_look_back(ids: list[int], cuts: list[int]) -> None:
    detokenizer = Detokenizer(decode_words)
    pieces = [detokenizer.add(chunk) for chunk in chunked(ids, cuts)] + [detokenizer.finish()]
    assert "".join(pieces) == decode_words(ids)


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    detokenizer = Detokenizer(decode_bytes)
    assert detokenizer.add("né".encode()[:-1]) == "n"
    assert detokenizer.finish() == ""
