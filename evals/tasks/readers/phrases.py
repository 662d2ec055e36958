"""What the readers share: known phrases as patterns, a scanner that wants to know every character, lists of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_DIGITS = 7
NUMBER = rf"(?<![\w.])(?:0|[1-9]\d{{0,{MAX_DIGITS - 1}}})(?![\w%°]|[.,]\d|\s*\^)"
"""A whole number that stands alone: not `1.5`, `007`, `3rd`, `12%`, `1,000` or `2^3`."""
_SEPARATOR = r"(?:\s*[,;]\s*(?:and\s+)?|\s+and\s+|\s*&\s*|\s+(?=[-−]?\d))"


def _list_of(number: str) -> str:
    return rf"(?<![\w.])[\[({{]?{number}(?:{_SEPARATOR}{number})*[\])}}]?(?![\w%°]|\.\d|\s*\^)"


LIST = _list_of(rf"(?:0|[1-9]\d{{0,{MAX_DIGITS - 1}}})")
SIGNED_LIST = _list_of(rf"[-−]?(?:0|[1-9]\d{{0,{MAX_DIGITS - 1}}})")
"""Whole numbers with separators; `numbers_in` takes them apart."""
_GROUPS = re.compile(r"(?<!\d)\d{1,3}[, \u2009\u202f]\d{3}(?!\d)")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text: what it is, and how it is written."""

    kind: str
    text: str


class Scanner:
    """Cuts a text into tokens of known kinds; earlier kinds are tried first. Upper and lower case are the same."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._pattern = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items()), re.IGNORECASE)

    def scan(self, text: str) -> list[Token] | None:
        """All tokens but those of the kind `gap`; None if something in the text is of no kind."""
        tokens, place = [], 0
        while place < len(text):
            match = self._pattern.match(text, place)
            if match is None or match.end() == place:
                return None
            place = match.end()
            if match.lastgroup != "gap":
                tokens.append(Token(str(match.lastgroup), match.group()))
        return tokens


def either(phrases: Iterable[str]) -> str:
    """One of these phrases, the longest that fits, as whole words; spaces may be any white space."""
    return "(?:" + "|".join(_whole_words(phrase) for phrase in sorted(set(phrases), key=len, reverse=True)) + ")"


def _whole_words(phrase: str) -> str:
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    before = r"\b" if phrase[0].isalnum() else ""
    after = r"\b" if phrase[-1].isalnum() else ""
    return f"{before}{pattern}{after}"


def numbers_in(text: str) -> tuple[int, ...] | None:
    """The numbers of a `LIST` or `SIGNED_LIST`.

    None where it can be read in two ways: `1,200, 300`, brackets that do not close, or separators of two kinds (but for
    an `and` before the last).
    """
    opened, closed = text[:1] in _BRACKETS, text[-1:] in _BRACKETS.values()
    if opened != closed or (opened and _BRACKETS[text[0]] != text[-1]):
        return None
    inside = text[1:-1] if opened else text
    separators = [" ".join(found.split()) for found in re.split(r"[-−]?\d+", inside)[1:-1]]
    if separators and separators[-1] in ("and", ", and", "&"):
        separators = separators[:-1]
    if len(set(separators)) > 1 or _GROUPS.search(inside):
        return None
    return tuple(int(number.replace("−", "-")) for number in re.findall(r"[-−]?\d+", inside))
