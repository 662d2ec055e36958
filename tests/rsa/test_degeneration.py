"""The canary for candidates that repeat themselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsa.degenerate import CHECK_EVERY_TOKENS, DegenerationMonitor, compression_ratio


def caught_after(ids: list[int]) -> int | None:
    monitor = DegenerationMonitor()
    return next((at for at, token in enumerate(ids, 1) if monitor.feed([token])), None)


def test_loops_are_caught_soon() -> None:
    rng = random.Random(1)
    sound = [rng.randrange(200_000) for _ in range(1000)]
    assert caught_after([7] * 2000) == 512
    at = caught_after(sound + [1, 2, 3] * 1000)
    assert at is not None
    assert 1512 <= at <= 1512 + CHECK_EVERY_TOKENS
    # A loop of a sentence: too long for the short window, caught by the long one.
    sentence = [rng.randrange(200_000) for _ in range(60)]
    at = caught_after(sound + sentence * 200)
    assert at is not None
    assert at <= 1000 + 4096 + CHECK_EVERY_TOKENS


def test_sound_text_is_let_be() -> None:
    rng = random.Random(2)
    words = [[rng.randrange(96) for _ in range(rng.randrange(2, 9))] for _ in range(300)]
    prose = [token for _ in range(4000) for token in rng.choice(words)]
    assert caught_after(prose) is None
    counting = [ord(char) for number in range(4000) for char in f"{number} + 1 = {number + 1}\n"]
    assert caught_after(counting) is None


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 300), min_size=1, max_size=30), loop=st.integers(1, 5))
def test_the_verdict_does_not_depend_on_chunks(cuts: list[int], loop: int) -> None:
    ids = [*range(300), *(list(range(loop)) * 400)]
    whole, pieces = DegenerationMonitor(), DegenerationMonitor()
    whole.feed(ids[: sum(cuts)])
    at = 0
    for cut in cuts:
        pieces.feed(ids[at : at + cut])
        at += cut
    assert whole.degenerate == pieces.degenerate


def test_ratio() -> None:
    assert compression_ratio([5] * 4096) < 0.01
    assert compression_ratio(random.Random(0).sample(range(1 << 30), 512)) > 0.9
    with pytest.raises(ValueError, match="no tokens"):
        compression_ratio([])


def test_ids_that_are_larger_than_any_vocabulary_are_watched_as_well() -> None:
    rng = random.Random(3)
    sound = [rng.randrange(2**53) for _ in range(1000)]
    assert caught_after(sound) is None
    at = caught_after(sound + [2**52 + 1, 2**49] * 1000)
    assert at is not None
    assert 1512 <= at <= 1512 + CHECK_EVERY_TOKENS
