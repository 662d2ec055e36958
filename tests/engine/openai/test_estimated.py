"""The tokenizer of a server that tells nobody about its tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.openai.estimated import EstimatedTokenizer

TOKENIZER = EstimatedTokenizer(thinks=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(texts)
def test_what_is_encoded_is_decoded(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode_exactly(ids) == text
    assert all(2**8 <= token < 2**53 for token in ids)
    assert len(ids) <= len(text)


@given(texts, st.integers(0, 80))
def test_a_tail_holds_no_broken_character(text: str, dropped: int) -> None:
    tail = TOKENIZER.decode(TOKENIZER.encode(text)[dropped:])
    assert text.replace("\ufffd", "").endswith(tail.replace("\ufffd", ""))


def test_tags_are_no_text() -> None:
    assert TOKENIZER.decode_exactly([*TOKENIZER.think_open, *TOKENIZER.encode("a"), *TOKENIZER.forced_close]) == "a\n\n"
    assert TOKENIZER.decode(TOKENIZER.encode("</think>")) == "</think>"
    assert EstimatedTokenizer(thinks=False).think_close == ()


def test_words_count_about_as_tokens_do() -> None:
    """Byte-pair encodings of large models give this 36 to 41 tokens."""
    text = "Let x = 12 and y = 345. Then x + y = 357, so the remainder of the sum modulo 97 is 66."
    assert 30 <= len(TOKENIZER.encode(text)) <= 50
