"""MMMU: questions with options and open ones, read as the benchmark's own parser does (eval_utils.py).

One thing is different: where that parser finds no option it guesses one at random; here there is no answer. And where
the candidate put its answer in a box, the box is read instead of the whole section.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.base import (
    BaseScorer,
    Fields,
    gold_text,
    gold_texts,
    no_answer,
    options_field,
    plain_text,
    scored,
    shown,
    text_field,
)
from evals.scorers.choice import option_in_box
from evals.scorers.protocol import Score
from rsa.answers.arithmetic import exact_value
from rsa.answers.equivalence import tidy
from rsa.answers.extract import last_boxed, letter_of

MAX_CHARACTERS = 20_000
"""Characters read of a section, from its end: the parser looks at all of it many times."""
MAX_VALUE = 10**300
"""The largest number read: larger ones are no floats."""
CONTENT_WORDS = 5
"""Words beyond which a text may name an option by its content alone."""
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
"""What stands before the answer in a sentence; in the last line also an equals sign."""
_TRIVIAL = frozenset(":,.!?;'")
# The lookbehinds let a number start where a run of digits starts: in a long run every place would be tried otherwise.
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d++"),
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),
)
Reading = str | float


@dataclass(frozen=True)
class _Gold:
    """`letter` of a question with `options`; `answers` of an open one, normalised."""

    options: tuple[str, ...] = ()
    letter: str = ""
    answers: tuple[Reading, ...] = ()


class MmmuScorer(BaseScorer[_Gold]):
    """Right if the letter read is the right one, or if one of the readings of an open answer holds one of the golds.

    Fields: `question_type` (multiple-choice or open), `options` for the former.
    """

    def read_gold(self, gold: JsonValue, fields: Fields) -> _Gold:
        if text_field(fields, "question_type", ("multiple-choice", "open")) == "open":
            return _Gold(answers=tuple(form for text in gold_texts(gold) for form in normal_forms(text)))
        options = tuple(option.strip() for option in options_field(fields, "options"))
        letter = gold_text(gold)
        if letter not in tuple(ascii_uppercase[: len(options)]):
            raise GoldError(f"gold: should be a letter of {len(options)} options, not {shown(gold)}")
        return _Gold(options=options, letter=letter)

    async def mark(self, section: str, gold: _Gold) -> Score:
        boxed = last_boxed(section)
        text = section[-MAX_CHARACTERS:].strip() if boxed is None else plain_text(boxed)[:MAX_CHARACTERS]
        if not text:
            return no_answer("there is no text")
        if not gold.options:
            readings = _exact_readings(boxed) or open_readings(text)
            return scored(float(any(_holds(reading, gold.answers) for reading in readings)), text)
        letter = _boxed_letter(section, gold.options) if boxed is not None else None
        letter = letter or named_option(text, gold.options)
        if letter is None:
            return no_answer("it names no option")
        return scored(float(letter == gold.letter), letter)

    def key(self, extracted: str) -> Reading:
        return normal_forms(extracted)[0]


def _boxed_letter(section: str, options: Sequence[str]) -> str | None:
    letter = letter_of(last_boxed(section) or "")
    if letter is not None and letter in ascii_uppercase[: len(options)]:
        return letter
    return option_in_box(section, list(options))


def named_option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option named last: as `(B)`, else as ` B `, else, in a longer text, by an option's content."""
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = ascii_uppercase[: len(options)]
    contents = options if len(text.split()) > CONTENT_WORDS else ()
    for searched, names in (
        (text, [f"({letter})" for letter in letters]),
        (text, [f" {letter} " for letter in letters]),
        (text.lower(), [option.lower() for option in contents]),
    ):
        places = [searched.rfind(name) if name else -1 for name in names]
        if max(places, default=-1) >= 0:
            return letters[places.index(max(places))]
    return None


def _exact_readings(boxed: str | None) -> list[Reading]:
    """The value of a box that holds plain arithmetic: the numbers in `\\frac{1}{2}` are no readings of it."""
    value = None if boxed is None else exact_value(tidy(boxed))
    if boxed is None or value is None or abs(value) > MAX_VALUE:
        return []
    return [plain_text(boxed).lower(), round(float(value), 2)]


def open_readings(text: str) -> list[Reading]:
    """What an open answer may be taken to say: the ends of its sentences after words like "is", and their numbers."""
    parts = _key_parts(text)
    numbers = [number for part in parts for number in numbers_in(part)]
    return [form for found in (*parts, *numbers) for form in normal_forms(found)]


def _key_parts(text: str) -> list[str]:
    """In each line, the shortest text after one of `_KEYS`; the whole text if there is none."""
    whole = text.strip().strip(".").lower()
    lines = whole.split("\n")
    parts = []
    for index, line in enumerate(lines):
        keys = (*_KEYS, "=") if index == len(lines) - 1 else _KEYS
        ends = [line.rpartition(key)[2].strip() for key in keys if key in line]
        ends = [end for end in ends if end]
        if ends and (shortest := min(ends, key=len)) not in _TRIVIAL:
            parts.append(shortest)
    return parts or [whole]


def numbers_in(text: str) -> list[str]:
    """Numbers with thousands separators, in scientific notation, and plain ones."""
    return [number for pattern in _NUMBERS for number in pattern.findall(text)]


def normal_forms(text: str) -> list[Reading]:
    """A number, rounded to two digits; else the text in small letters. A single letter only counts beside a space."""
    text = text.strip()
    try:
        return [_rounded(text.replace(",", ""))]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _rounded(text: str) -> float:
    """Raises ValueError if the text is no number."""
    return round(float(text), 2)


def _holds(reading: Reading, answers: Sequence[Reading]) -> bool:
    """A text that contains a gold text, or a number that is a gold number."""
    if isinstance(reading, str):
        return any(isinstance(answer, str) and answer in reading for answer in answers)
    return reading in answers
