"""Reading Sums: an expression of + and -, or a list to be added up."""

from __future__ import annotations

import re

from evals.tasks.readers.phrases import NUMBER, SIGNED_LIST, either, numbers_in
from evals.tasks.sums import SumsProblem

_SIGN = r"(?:\+|[-−–]|\bplus\b|\bminus\b)"
_EXPRESSION = re.compile(
    rf"""
    (?P<asked>(?:please\s+|can\s+you\s+)?{
        either((
            "what is", "what's", "what does", "compute", "calculate", "work out", "evaluate", "how much is", "find",
            "solve", "give me the value of", "tell me", "i need", "sum:", "add:", "the value of",
        ))
    })?\s*
    (?P<expression>{NUMBER}(?:\s*{_SIGN}\s*{NUMBER})+)
    (?:\s+(?:give|is))?\s*(?P<equals>=)?\s*[?.]?\s*
    """,
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip
_LISTED = re.compile(
    rf"""
    (?:please\s+)?(?:{
        either((
            "add", "add up", "add up these numbers", "add these", "add these numbers", "sum", "sum up", "sum of",
            "the sum of", "find the sum of", "what is the sum of", "compute the sum of", "compute the sum",
            "sum of the following numbers", "sum these numbers", "total", "total of", "the total of",
            "find the total of", "what is the total of", "grand total of", "calculate the total", "add all of",
            "total this list for me", "my bill has these amounts", "amounts", "i paid", "together", "count together",
            "what do",
        ))
    })\s*:?\s*
    (?P<numbers>(?:-\s+)?{SIGNED_LIST}(?:\s*\n-\s+{NUMBER})*)
    (?:\s+add\s+up\s+to)?\s*[.?]?(?:\s*(?:what\s+is\s+the\s+total|how\s+much\s+in\s+(?:all|total))\?|,\s+please\.?)?\s*
    """,
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip


def read_sums(text: str) -> SumsProblem | None:
    """The problem in a tidy text; None if it is no sum in known words.

    An expression without a plus counts only where it is asked for: `2024-11-24` alone is a date.
    """
    if (match := _EXPRESSION.fullmatch(text)) is not None:
        return _terms(match["expression"], asked=bool(match["asked"] or match["equals"]))
    if (match := _LISTED.fullmatch(text)) is not None:
        numbers = numbers_in(re.sub(r"^-\s+|\s*\n-\s+", "\n", match["numbers"]).strip())
        return SumsProblem(numbers) if numbers is not None and len(numbers) > 1 else None
    return None


def _terms(expression: str, *, asked: bool) -> SumsProblem | None:
    """The terms with their signs, the first one positive."""
    signs = ["+", *re.findall(_SIGN, expression, re.IGNORECASE)]
    plus = [sign.lower() in ("+", "plus") for sign in signs]
    if not asked and not any(plus[1:]):
        return None
    numbers = [int(number) for number in re.findall(r"\d+", expression)]
    return SumsProblem(tuple(number if added else -number for number, added in zip(numbers, plus, strict=True)))
