"""Exact values of plain numbers and arithmetic, as answers are written: `3/4`, `0.75`, `\\frac{3}{4}`, `2^{10}`.

A small parser over Fractions with hard limits, so that no input can make it slow. Whatever it does not know
(letters, roots, sets, percent signs, mixed numbers) it leaves to others by returning None.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_LENGTH = 512  # characters
MAX_DIGITS = 256  # of one number
MAX_DEPTH = 32  # of nested brackets
MAX_BITS = 16_384  # of any numerator or denominator on the way; longer is no contest answer

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.]))?)
    | (?P<frac>\\[dtc]?frac(?![a-zA-Z]))
    | (?P<times>\\times(?![a-zA-Z])|\\cdot(?![a-zA-Z])|\*\*?|×|·)
    | (?P<over>\\div(?![a-zA-Z])|÷|/)
    | (?P<sign>[+\-−])
    | (?P<power>\^)
    | (?P<open>[({])
    | (?P<close>[)}])
    )""",
    re.VERBOSE,
)
_GAP = r"(?:\\[,;:! ]|\{,\}|\u2009|\u202f)"
_GROUPED = re.compile(rf"(?<![\d.])\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d)")
_COMMA_GROUPED = re.compile(r"[$\s+\-−]*\d{1,3}(?:,\d{3})+(?:\.\d+)?[$\s.]*")
_SPACING = re.compile(r"\\(?:left|right|,|;|:|!|\s)|[~$]")


class _NotArithmeticError(Exception):
    """The text is not plain arithmetic, or exceeds a limit."""


def exact_value(text: str) -> Fraction | None:
    """The number that `text` stands for; None if it is not plain arithmetic or exceeds the limits."""
    if len(text) > MAX_LENGTH:
        return None
    try:
        return _Parser(_SPACING.sub(" ", join_digit_groups(text))).value()
    except (_NotArithmeticError, ZeroDivisionError):
        return None


def join_digit_groups(text: str) -> str:
    """`3\\,375`, `3{,}375` and `3,375` as `3375`: only where every group after the first has three digits.

    A bare comma joins only if the number is all there is: (1,200) is a pair.
    """
    if _COMMA_GROUPED.fullmatch(text):
        text = text.replace(",", "")
    return _GROUPED.sub(lambda match: re.sub(_GAP, "", match.group()), text)


class _Parser:
    """Recursive descent: sum of products of powers of atoms."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.position = 0
        self.depth = 0
        at, text = 0, text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise _NotArithmeticError
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()

    def value(self) -> Fraction:
        result = self._sum()
        if self.position != len(self.tokens):
            raise _NotArithmeticError
        return result

    def _peek(self) -> str:
        return self.tokens[self.position][0] if self.position < len(self.tokens) else "end"

    def _next(self) -> tuple[str, str]:
        if self.position >= len(self.tokens):
            raise _NotArithmeticError
        self.position += 1
        return self.tokens[self.position - 1]

    def _sum(self) -> Fraction:
        total = self._product()
        while self._peek() == "sign":
            minus = self._next()[1] != "+"
            term = self._product()
            total = _bounded(total - term if minus else total + term)
        return total

    def _product(self) -> Fraction:
        result = self._signed()
        while self._peek() in ("times", "over"):
            kind, symbol = self._next()
            if symbol == "**":
                raise _NotArithmeticError  # a power in disguise: rare, and binds differently
            factor = self._signed()
            result = _bounded(result * factor if kind == "times" else result / factor)
        return result

    def _signed(self) -> Fraction:
        minus = False
        while self._peek() == "sign":
            minus ^= self._next()[1] != "+"
        result = self._power()
        return -result if minus else result

    def _power(self) -> Fraction:
        base = self._atom()
        if self._peek() != "power":
            return base
        self._next()
        # `2^10` is taken as people mean it, though LaTeX would raise to the 1 alone.
        exponent = self._atom() if self._peek() == "open" else self._signed()
        if self._peek() == "power":
            raise _NotArithmeticError
        return _raise(base, exponent)

    def _atom(self) -> Fraction:
        kind, text = self._next()
        if kind == "number":
            if len(text) > MAX_DIGITS:
                raise _NotArithmeticError
            return _bounded(Fraction(text))
        if kind == "frac":
            return self._fraction()
        if kind == "open":
            return self._bracket(text)
        raise _NotArithmeticError

    def _bracket(self, opened: str) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotArithmeticError
        result = self._sum()
        if self._next()[1] != {"(": ")", "{": "}"}[opened]:
            raise _NotArithmeticError
        self.depth -= 1
        return result

    def _fraction(self) -> Fraction:
        if self._peek() == "number":  # \frac12: one digit each
            digits = self._next()[1]
            if len(digits) != 2 or not digits.isdigit():
                raise _NotArithmeticError
            return Fraction(int(digits[0]), int(digits[1]))
        parts = []
        for _ in range(2):
            kind, text = self._next()
            if (kind, text) != ("open", "{"):
                raise _NotArithmeticError
            parts.append(self._bracket(text))
        return _bounded(parts[0] / parts[1])


def _raise(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MAX_BITS:
        raise _NotArithmeticError
    size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if size * abs(int(exponent)) > 2 * MAX_BITS:
        raise _NotArithmeticError
    return _bounded(Fraction(base ** int(exponent)))


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _NotArithmeticError
    return value
