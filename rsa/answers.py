"""Finding the answer in what a candidate wrote after its reasoning."""

from __future__ import annotations

import re
from typing import Literal

from engine.api import Completion

AnswerRule = Literal["boxed", "choice", "code", "text"]
"""What counts as the answer; a prompts file declares it.

boxed   the content of the last balanced \\boxed{...}
choice  the letter of the last \\boxed{...}, or of the last "answer: X"
code    the last fenced code block
text    the whole answer section
"""
MAX_BOXES = 64
"""How many boxes are looked at from the end; more are a loop, and each look may scan the rest of the text."""
_BOX = re.compile(r"\\f?boxed\s*\{")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?\s*(?:[.:)\-].*)?", re.DOTALL)
_ANSWER_LINE = re.compile(r"(?i:\banswer\b\s*(?:is\s*)?:?)[\s*_]*\(?([A-Z])\b\)?")
_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{...} whose braces balance; None without one, or if it is blank."""
    for match in reversed(list(_BOX.finditer(text))[-MAX_BOXES:]):
        content = _balanced(text, match.end())
        if content is not None:
            return content.strip() or None
    return None


def _balanced(text: str, start: int) -> str | None:
    """Text from `start` to the brace that closes the one before it. Escaped braces do not count."""
    depth, position = 1, start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return text[start:position]
        position += 1
    return None


def choice_letter(text: str) -> str | None:
    """The letter chosen, upper case: from the last box, else from the last "answer: X"."""
    boxed = last_boxed(text)
    if boxed is not None:
        match = _LETTER.fullmatch(_WRAPPED.sub(r"\1", boxed).strip())
        return match.group(1).upper() if match else None
    lines = _ANSWER_LINE.findall(text)
    return str(lines[-1]) if lines else None


def extract(text: str, rule: AnswerRule) -> str | None:
    """The answer in an answer section, by the rule; None if there is none."""
    match rule:
        case "boxed":
            return last_boxed(text)
        case "choice":
            return choice_letter(text)
        case "code":
            blocks = _FENCE.findall(text)
            return (str(blocks[-1]).strip("\n") or None) if blocks else None
        case "text":
            return text.strip() or None


def answer_of(completion: Completion, rule: AnswerRule, *, thinks: bool) -> str | None:
    """The answer a completion gives.

    A thinking model that never closed its reasoning gave none, whatever stands in the reasoning. Of a
    completion that was cut off by the caller only a marked answer counts, not the beginning of a free text.
    """
    if thinks and not completion.closed:
        return None
    if completion.finish_reason == "cancelled" and rule == "text":
        return None
    return extract(completion.text, rule)
