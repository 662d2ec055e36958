"""What scorers share: the order of events, reading gold answers, and reading text out of LaTeX."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from string import ascii_uppercase
from typing import Generic, Self, TypeVar

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.protocol import Score
from rsa.answers.extract import answer_section, last_boxed
from rsa.words import shortened
from rsa.words import shown as in_words

G = TypeVar("G")
Fields = Mapping[str, JsonValue]
MAX_GOLD_BITS = 14_000
"""Bits of a whole number as a gold answer: Python spells out no more than 4,300 digits."""
MAX_EXTRACTED = 2048
"""Characters of an extracted answer that are kept: what is longer is a loop, and would fill the results."""


class BaseScorer(ABC, Generic[G]):
    """A `Scorer` without a worker process. `G` is what the gold answer and its fields are read into."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing to end."""

    def check(self, gold: JsonValue, fields: Fields) -> None:
        """Raises GoldError if gold or fields are not what is needed."""
        self.read_gold(gold, fields)

    async def score(self, answer: str, gold: JsonValue, fields: Fields) -> Score:
        """What `answer` is worth. Never raises for a text; GoldError if gold or fields are not what is needed."""
        wanted = self.read_gold(gold, fields)
        section = answer_section(whole_characters(answer))
        if section is None:
            return Score(value=0.0, status="truncated", reason="its reasoning is not closed")
        return await self.mark(section, wanted)

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Indices of equivalent extracted answers, None left out; larger groups first, ties to the earliest member."""
        groups: dict[Hashable, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                groups.setdefault(self.key(answer), []).append(index)
        return sorted((tuple(group) for group in groups.values()), key=lambda group: (-len(group), group[0]))

    @abstractmethod
    def read_gold(self, gold: JsonValue, fields: Fields) -> G:
        """What answers are compared with. Raises GoldError."""

    @abstractmethod
    async def mark(self, section: str, gold: G) -> Score:
        """What an answer section is worth."""

    def key(self, extracted: str) -> Hashable:
        """Equal for equivalent extracted answers."""
        return extracted


def no_answer(reason: str) -> Score:
    return Score(value=0.0, status="no_answer", reason=reason)


def scored(value: float, extracted: str, reason: str = "") -> Score:
    return Score(value=float(value), extracted=kept(extracted), reason=reason)


def kept(extracted: str) -> str:
    """An extracted answer as it goes into results."""
    return shortened(extracted, MAX_EXTRACTED)


# ---- gold answers and fields


def gold_text(gold: JsonValue) -> str:
    """A gold answer that is a text or a number, as text."""
    if isinstance(gold, str) and gold.strip():
        return whole_characters(gold.strip())
    if isinstance(gold, int) and not isinstance(gold, bool) and gold.bit_length() <= MAX_GOLD_BITS:
        return str(gold)
    if isinstance(gold, float) and math.isfinite(gold):
        return str(gold)
    raise GoldError(f"gold: should be a text or a number, not {shown(gold)}")


def gold_texts(gold: JsonValue) -> list[str]:
    """A gold answer that is one text or a list of them."""
    golds = [gold_text(one) for one in gold] if isinstance(gold, list) else [gold_text(gold)]
    if not golds:
        raise GoldError("gold: the list of answers is empty")
    return golds


def text_field(fields: Fields, name: str, known: Sequence[str] = ()) -> str:
    """A field that is one of several words, or any text."""
    value = fields.get(name)
    if not isinstance(value, str) or (known and value not in known):
        wanted = f"one of {', '.join(known)}" if known else "a text"
        raise GoldError(f"field {name}: should be {wanted}, not {shown(value)}")
    return value


def options_field(fields: Fields, name: str) -> list[str]:
    """A field that lists options, as texts."""
    value = fields.get(name)
    if not isinstance(value, list) or not 1 <= len(value) <= len(ascii_uppercase):
        raise GoldError(f"field {name}: should be a list of 1 to {len(ascii_uppercase)} options, not {shown(value)}")
    return [whole_characters(str(option)) for option in value]


def shown(value: JsonValue) -> str:
    """A value in a message. NaN is what pandas writes where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    return in_words(value)


# ---- text

_SURROGATES = re.compile("[\ud800-\udfff]")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mbox|operatorname)\s*+\{([^{}]*+)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*+\{([^{}]*+)\}\s*+\{([^{}]*+)\}")
_ESCAPED = re.compile(r"\\([%$&#_{}])")
_SPACE = re.compile(r"(?:\\[,;:! ]|\\q?quad(?![a-zA-Z])|~|\s)+")
MAX_WRAPPERS = 8
"""The most wrappers, such as `text{...}`, that are taken off an answer, one inside the other."""


def whole_characters(text: str) -> str:
    """`text` without halves of characters, which JSON can spell but no file can hold."""
    return _SURROGATES.sub("\ufffd", text)


def plain_text(latex: str) -> str:
    r"""The text that stands in a box: `\text{red and 50\%}` is `red and 50%`, `\frac{1}{2}` is `1/2`."""
    for _ in range(MAX_WRAPPERS):
        unwrapped = _WRAPPER.sub(r"\1", latex)
        if unwrapped == latex:
            break
        latex = unwrapped
    text = _ESCAPED.sub(r"\1", _FRACTION.sub(r"\1/\2", latex))
    text = _SPACE.sub(" ", text).strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    return text


def short_answer(section: str) -> str | None:
    """What stands in the last box, as plain text; without a box the whole section, as the metrics for short answers
    have it. None if it is blank."""
    boxed = last_boxed(section)
    return (plain_text(boxed) if boxed is not None else section.strip()) or None
