"""Choice: the letter of an option."""

from __future__ import annotations

from string import ascii_uppercase

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.base import BaseScorer, Fields, gold_text, no_answer, options_field, plain_text, scored, shown
from evals.scorers.protocol import Score
from rsa.answers.extract import choice_letter, last_boxed


class ChoiceScorer(BaseScorer[tuple[str, list[str]]]):
    """The letter in the last box, else of the last "answer: X". A box that holds no letter of an option may hold the
    text of exactly one.

    Gold is the letter, or the index of the option from 0. Field `options`, where there is one, lists their texts.
    """

    def read_gold(self, gold: JsonValue, fields: Fields) -> tuple[str, list[str]]:
        """The right letter, and the options (none: not known)."""
        options = options_field(fields, "options") if fields.get("options") is not None else []
        text = gold_text(gold)
        letters = ascii_uppercase[: len(options)] or ascii_uppercase
        letter = letters[int(text) : int(text) + 1] if text.isascii() and text.isdecimal() else text.upper()
        if len(letter) != 1 or letter not in letters:
            raise GoldError(f"gold: should be a letter up to {letters[-1]} or an index from 0, not {shown(gold)}")
        return letter, options

    async def mark(self, section: str, gold: tuple[str, list[str]]) -> Score:
        right, options = gold
        letter = choice_letter(section)
        if letter is None or (options and letter not in ascii_uppercase[: len(options)]):
            letter = option_in_box(section, options) or letter
        if letter is None:
            return no_answer("there is no letter in a box or after an answer mark")
        return scored(float(letter == right), letter)


def option_in_box(section: str, options: list[str]) -> str | None:
    """The letter of the option whose text the last box holds; None unless it is the text of exactly one."""
    boxed = last_boxed(section)
    if boxed is None:
        return None
    wanted = plain_text(boxed).casefold()
    found = [index for index, text in enumerate(options) if text.strip().casefold() == wanted]
    return ascii_uppercase[found[0]] if len(found) == 1 else None
