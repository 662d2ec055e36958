"""VQA accuracy: how many of ten annotators gave the same answer (VQAv2, TextVQA)."""

from __future__ import annotations

import re
from itertools import product

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.base import BaseScorer, Fields, gold_text, no_answer, scored, short_answer, shown
from evals.scorers.protocol import Score

ENOUGH = 3
"""Annotators whose agreement with an answer makes it fully right."""
MIN_ANNOTATORS = ENOUGH + 1
"""The fewest annotators of a question: with fewer, even an answer that all of them gave would not be worth 1."""


class VqaScorer(BaseScorer[list[str]]):
    """The mean, over annotators, of min(1, how many of the others gave the answer / 3).

    Of ten annotators, 1, 2, 3 or 4 who agree make 0.30, 0.60, 0.90 and 1.00. Answers and golds are always normalised
    (`normalise`), even where all annotators agree. The answer is the last box, else the whole section.
    """

    def read_gold(self, gold: JsonValue, fields: Fields) -> list[str]:
        """The normalised answers of the annotators."""
        if not isinstance(gold, list) or len(gold) < MIN_ANNOTATORS:
            raise GoldError(f"gold: should list the answers of at least {MIN_ANNOTATORS} annotators, not {shown(gold)}")
        return [normalise(_answer_of(one)) for one in gold]

    async def mark(self, section: str, gold: list[str]) -> Score:
        answer = short_answer(section)
        if answer is None:
            return no_answer("there is no text")
        matches = gold.count(normalise(answer))
        # Left out one by one: those who gave the answer have one match fewer among the others.
        worth = matches * min(ENOUGH, matches - 1) + (len(gold) - matches) * min(ENOUGH, matches)
        return scored(worth / (ENOUGH * len(gold)), answer, f"{matches} of {len(gold)} annotators agree")

    def key(self, extracted: str) -> str:
        return normalise(extracted)


def _answer_of(one: JsonValue) -> str:
    """The answer of an annotator; it may be blank."""
    if isinstance(one, dict):
        one = one.get("answer")
    return one if isinstance(one, str) else gold_text(one)


_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_SMALL)}}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_CONTRACTIONS_TEXT = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am might've mightn't mightn't've must've mustn't
needn't not've o'clock oughtn't 'ow's'at shan't she'd've she's should've shouldn't shouldn't've somebody'd
somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """Contractions by each of their spellings that lack an apostrophe: dont -> don't, couldntve -> couldn't've."""
    spellings = {}
    for word in _CONTRACTIONS_TEXT.split():
        parts = word.split("'")
        for signs in product(("'", ""), repeat=len(parts) - 1):
            spelling = parts[0] + "".join(sign + part for sign, part in zip(signs, parts[1:], strict=True))
            spellings[spelling] = word
    return spellings


_CONTRACTIONS = _contractions()


def normalise(text: str) -> str:
    """An answer as the VQA evaluation compares it: without punctuation, articles and capitals, small numbers as digits,
    contractions with their apostrophes.

    A punctuation mark becomes a space, but nothing where one of its kind stands beside a space or where the text has a
    comma between digits. A period stays only before a digit.
    """
    written = text = " ".join(text.replace("’", "'").split())
    in_number = _COMMA_IN_NUMBER.search(written) is not None
    for mark in _PUNCTUATION:
        if mark in written:
            text = text.replace(mark, "" if in_number or _beside_space(written, mark) else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", text).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _beside_space(text: str, mark: str) -> bool:
    return f"{mark} " in text or f" {mark}" in text
