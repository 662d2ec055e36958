"""MathVista: an option, an integer, a decimal or a list, normalised as its authors do (calculate_score.py).

Their extraction asks a language model; here the answer is the last box, else what "the answer is ..." names, else the
section if it is nothing but an answer: a choice or its letter, or a number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from string import ascii_uppercase
from typing import Literal, cast

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.base import (
    BaseScorer,
    Fields,
    gold_text,
    no_answer,
    options_field,
    plain_text,
    scored,
    shown,
    text_field,
)
from evals.scorers.edit_distance import levenshtein
from evals.scorers.protocol import Score
from rsa.answers.arithmetic import exact_value
from rsa.answers.equivalence import tidy
from rsa.answers.extract import last_boxed, letter_of, marked_answer

AnswerType = Literal["text", "integer", "float", "list"]
MAX_CHARACTERS = 400
"""The longest answer read, in characters: what is longer is no option, number or list."""
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])(?:\^\{?[23]\}?|[23])(?![\w.])")
_NUMBER = re.compile(r"[-−]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?!\d))?")


@dataclass(frozen=True)
class _Gold:
    """What answers are compared with: `text` is in the normal form of its type."""

    text: str
    kind: AnswerType
    choices: tuple[str, ...] = ()
    precision: int = 0


class MathVistaScorer(BaseScorer[_Gold]):
    """Right or wrong by comparing normal forms.

    multi_choice  the choice whose letter is named, else the nearest one by edit distance
    integer       cut off towards zero, as `int(float(x))`
    float         rounded to `precision` digits
    list          written as Python does
    text          as it stands

    Fields: `question_type` (multi_choice or free_form), `choices` for the first; `answer_type` (integer, float, list or
    text) for the other, and `precision` for decimals. Gold is the text of a choice, or the value.
    """

    def read_gold(self, gold: JsonValue, fields: Fields) -> _Gold:
        text = gold_text(gold)
        if text_field(fields, "question_type", ("multi_choice", "free_form")) == "multi_choice":
            choices = tuple(choice.strip() for choice in options_field(fields, "choices"))
            if text not in choices:
                raise GoldError(f"gold: {shown(gold)} is not among the choices")
            return _Gold(text, "text", choices)
        kind = cast(AnswerType, text_field(fields, "answer_type", ("integer", "float", "list", "text")))
        precision = _precision(fields) if kind == "float" else 0
        normal = _normal(text, kind, precision)
        if normal is None:
            raise GoldError(f"gold: should be of type {kind}, not {shown(gold)}")
        return _Gold(normal, kind, (), precision)

    async def mark(self, section: str, gold: _Gold) -> Score:
        boxed = last_boxed(section)
        marked = plain_text(boxed) if boxed is not None else marked_answer(section)
        text = section.strip() if marked is None else marked
        if not text or len(text) > MAX_CHARACTERS:
            return no_answer("there is neither a box nor a marked answer" if text else "there is no text")
        if gold.choices:
            answer, how = _choice(text, gold.choices, guess=marked is not None)
        elif gold.kind in ("list", "text") and marked is None:
            answer, how = None, "there is neither a box nor a marked answer"
        else:
            answer, how = _normal(text, gold.kind, gold.precision), f"{text!r} is not of type {gold.kind}"
        if answer is None:
            return no_answer(how)
        return scored(float(answer == gold.text), answer, how if gold.choices else "")


def _precision(fields: Fields) -> int:
    value = fields.get("precision")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 0 <= value <= 15:
        raise GoldError(f"field precision: should be a number of digits, 0 to 15, not {shown(value)}")
    return int(value)


def _choice(text: str, choices: tuple[str, ...], *, guess: bool) -> tuple[str | None, str]:
    """The choice that a text names, and how it was found; `guess`: the nearest one if it names none."""
    letters = ascii_uppercase[: len(choices)]
    bracketed = _BRACKETED.search(text)
    named = bracketed[1].upper() if bracketed else text
    if len(named) == 1 and named in letters:
        return choices[letters.index(named)], f"option {named}"
    if text in choices:
        return text, "the text of an option"
    letter = letter_of(text)
    if letter is not None and letter in letters:
        return choices[letters.index(letter)], f"option {letter}"
    if not guess:
        return None, "there is neither a box nor a marked answer"
    return min(choices, key=lambda choice: levenshtein(text, choice)), f"the option nearest to {text!r}"


def _normal(text: str, kind: AnswerType, precision: int) -> str | None:
    """The normal form of a value; None if the text is not of its type."""
    if kind == "list":
        return _list(text)
    if kind == "text":
        return text
    value = number_in(text)
    if value is None:
        return None
    try:
        return str(int(value)) if kind == "integer" else str(round(float(value), precision) + 0.0)
    except OverflowError:
        return None


def number_in(text: str) -> Fraction | None:
    """The number that a text stands for, or the only one in it: `12 cm^2`, `x = 3`, `\\frac{1}{2}`, `1,200`."""
    value = exact_value(tidy(text)) if len(text) <= MAX_CHARACTERS else None
    if value is not None:
        return value
    found = _NUMBER.findall(_UNIT_POWER.sub("", text[:MAX_CHARACTERS]))
    return exact_value(found[0].replace(",", "")) if len(found) == 1 else None


def _list(text: str) -> str | None:
    """A list as `str` writes it; brackets may be missing, and strings may have any quotes."""
    inside = text.strip().removeprefix("[").removesuffix("]").replace("'", '"')
    try:
        return str(json.loads(f"[{inside}]"))
    except (ValueError, RecursionError):
        return str([part.strip().strip('"') for part in inside.split(",")]) if inside.strip() else None
