"""Reading Chain: a start value, and operations one after the other modulo 97."""

from __future__ import annotations

import re

from evals.tasks.chain import ChainProblem, Op
from evals.tasks.readers.phrases import NUMBER, Scanner, Token, either

_STARTS = (
    "start at", "start with", "start from", "start", "starting at", "starting with", "starting from", "begin with",
    "begin at", "begin from", "take", "take the number", "starting number", "the start is", "initial value",
    "we start at", "i start at", "set x to", "let x be", "put down", "first write", "our number is", "my number is",
    "suppose you have", "from", "x =",
)  # fmt: skip
_ADD = ("add", "plus", "increase by", "add the number")
_SUBTRACT = ("subtract", "minus", "take away", "decrease by", "take off")
_MULTIPLY = ("multiply by", "multiply it by", "times by", "times")
_BEFORE_MODULO = (
    "all", "all taken", "always taken", "everything", "everything is", "working", "with every result", "reducing",
    "in arithmetic", "reduce", "keep it", "keep every result", "compute", "give the final value", "what is the result",
    "what is the final number",
)  # fmt: skip
_AFTER_MODULO = ("throughout", "after each step")
_INSTEAD_OF_MODULO = ("wrap around at 97", "taking remainders by 97")
_WORDS = (
    "then", "and", "steps", "do this", "do these steps", "do these steps in order", "do these steps, in order",
    "in order", "from left to right", "what is the result", "result", "what is the final number",
    "what do you end with", "what do you get", "where do you end up", "which number do i reach", "answer",
    "give the final value", "what comes out", "which number is left", "where does it end", "what number results",
    "find the end value", "compute the outcome", "tell me the last value", "work it out", "how much is it",
    "what is x now", "please calculate",
)  # fmt: skip
_SCANNER = Scanner(
    {
        "modulo": rf"(?:{either(_BEFORE_MODULO)},?\s+)?\(?\bmod(?:ulo)?\s*97\b\)?(?:\s+{either(_AFTER_MODULO)})?"
        rf"|{either(_INSTEAD_OF_MODULO)}",
        "start": rf"{either(_STARTS)}\s*:?\s*{NUMBER}",
        "add": rf"(?:{either(_ADD)}\s*|\+\s*){NUMBER}|\bput\s+{NUMBER}\s+on\s+top\b",
        "subtract": rf"(?:{either(_SUBTRACT)}\s*|[-−]\s*){NUMBER}",
        "multiply": rf"(?:{either(_MULTIPLY)}\s*|[*×]\s*|\bx\s*(?=\d))(?:(?<=x){NUMBER.partition(')')[2]}|{NUMBER})",
        "step": r"(?:\bstep\s+)?[#(]?\b\d{1,4}(?:[.):]|(?<=#\d)|(?<=#\d\d))\s+(?=\D)",
        "number": NUMBER,
        "word": either(_WORDS),
        "gap": r"[\s,.;:?!|]+|->|[-*•]\s+(?=[a-z])",
    }
)
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}


def read_chain(text: str) -> ChainProblem | None:
    """The problem in a tidy text; None if it is no chain modulo 97 in known words.

    The start comes before the operations; numbered steps are numbered from 1.
    """
    tokens = _SCANNER.scan(text)
    if tokens is None or not any(token.kind == "modulo" for token in tokens):
        return None
    start: int | None = None
    ops: list[Op] = []
    for token in tokens:
        if token.kind in ("start", "number"):
            if start is not None or ops:
                return None
            start = _number(token)
        elif token.kind in _SIGNS:
            ops.append(Op(_SIGNS[token.kind], _number(token)))
        elif token.kind == "step" and _number(token) != len(ops) + 1:
            return None
    return ChainProblem(start, tuple(ops)) if start is not None and ops else None


def _number(token: Token) -> int:
    return int(re.findall(r"\d+", token.text)[-1])
