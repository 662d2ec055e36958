"""Finding the answer in what a candidate wrote after its reasoning.

Every rule takes time linear in the text, whatever the text: candidates loop, and boxes open that never close.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Literal

from engine.api import AnswerCue, Completion

AnswerRule = Literal["boxed", "choice", "code", "text"]
"""What counts as the answer; a prompts file declares it.

boxed   the content of the last balanced \\boxed{...}, else what the last "answer is ..." or "answer: ..." names
choice  the letter of the last \\boxed{...}, or of the last "answer: X"
code    the last fenced code block
text    the whole answer section
"""
CUES: dict[AnswerRule, AnswerCue] = {
    "boxed": AnswerCue(text="\n\nThe final answer is \\boxed{", stop=("\n",)),
    "choice": AnswerCue(text="\n\nThe letter of the answer is \\boxed{", stop=("\n",)),
}
"""How each rule asks a model without think tags for its answer at beta: with the beginning of one, of which the rest
fits in a line. No words make a whole of half a program or half a text, so there are none for the other rules."""
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
MAX_MARKED = 400
"""The longest marked answer without a box, in characters: what is longer is an explanation."""
# Possessive quantifiers (`++`) never try less: two runs of spaces side by side would otherwise share them in
# quadratically many ways.
_BRACES = re.compile(r"(?P<box>\\{1,2}f?boxed\s*+\{)|\\.|(?P<brace>[{}])", re.DOTALL)
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|operatorname)\s*+\{([^{}]*+)\}")
_LETTER = re.compile(r"\(?\s*+([A-Za-z])\s*+\)?\s*+(?:[.:)\-].*+)?", re.DOTALL)
_ANSWER_LINE = re.compile(r"(?i:\banswer\b\s*+(?:is\b\s*+)?:?)[\s*_]*+\(?([A-Z])\b\)?")
_ANSWER_MARK = re.compile(r"\banswer\b[\s*_]*+(?:is\b[\s*_]*+:?|[:=])[\s*_]*+", re.IGNORECASE)
_FORMULA = re.compile(r"\$\$?([^$]++)\$|\\\(((?:[^\\]|\\[^)])*+)\\\)|\\\[((?:[^\\]|\\[^\]])*+)\\\]")
_SENTENCE_END = re.compile(r"[.;!?]?[\s*_]*\n|[.;!?](?=\s|[*_]*$)")
_SENTENCE_SURELY_OVER = re.compile(r"[.;!?]?[\s*_]*\n|[.;!?](?=\s)")
_NOTHING = re.compile(r"(?:no answer|not|unknown|unclear)\b", re.IGNORECASE)
"""The beginning of what is no answer, though it stands where one is expected: "the answer is not known", "Answer:
unknown"."""


def last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{...} whose braces balance; None without one, or if it is blank.

    Last is the one that opens last: of a box inside a box, the inner one.
    """
    opened: list[tuple[bool, int]] = []  # (it is a box, where its content starts), outermost first
    start = end = -1
    for match in _BRACES.finditer(text):
        if match["box"] or match["brace"] == "{":
            opened.append((match["box"] is not None, match.end()))
        elif match["brace"] == "}" and opened:
            is_box, begins = opened.pop()
            if is_box and begins > start:
                start, end = begins, match.start()
    return text[start:end].strip() or None if start >= 0 else None


def final_answer(text: str, *, whole: bool = True) -> str | None:
    """What the last box holds, else what the last answer mark names (see `marked_answer`); any other number is none.

    whole  the text came to its end; otherwise it was cut off, maybe in the middle of a number.
    """
    return last_boxed(text) or marked_answer(text, whole=whole)


def marked_answer(text: str, *, whole: bool = True) -> str | None:
    """What the last "answer is ..." or "answer: ..." names: a formula between dollars, or the rest of the sentence.

    For texts without a box. None if nothing follows, if it says that there is none, if it is a box that was not closed,
    if it is longer than `MAX_MARKED` characters, or if the text is not `whole` and ends before the sentence does.
    """
    last = deque(_ANSWER_MARK.finditer(text), maxlen=1)
    if not last:
        return None
    rest = text[last[0].end() : last[0].end() + MAX_MARKED + 1]
    formula = _FORMULA.match(rest)
    if formula is not None:
        found = next(group for group in formula.groups() if group is not None)
    else:
        end = (_SENTENCE_END if whole else _SENTENCE_SURELY_OVER).search(rest)
        if end is None and not whole:
            return None
        found = rest[: end.start()] if end else rest
    found = found.strip().strip("*_").strip()
    none = not found or len(found) > MAX_MARKED or "boxed" in found or _NOTHING.match(found) is not None
    return None if none else found


def letter_of(boxed: str) -> str | None:
    """The letter, upper case, that the content of a box names: `b`, `(B)`, `B. a cat`."""
    match = _LETTER.fullmatch(_WRAPPED.sub(r"\1", boxed).strip())
    return match.group(1).upper() if match else None


def choice_letter(text: str) -> str | None:
    """The letter chosen, upper case: from the last box, else from the last "answer: X"."""
    boxed = last_boxed(text)
    if boxed is not None:
        return letter_of(boxed)
    lines = _ANSWER_LINE.findall(text)
    return str(lines[-1]) if lines else None


def last_code_block(text: str) -> str | None:
    """Content of the last fenced code block that is closed; None without one, or if it is empty."""
    block: str | None = None
    lines: list[str] | None = None  # of the block that is open
    for line in text.split("\n"):
        if lines is not None and line.rstrip(" \t") == "```":
            block, lines = "\n".join(lines), None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("```"):
            lines = []
    return (block or "").strip("\n") or None


def extract(text: str, rule: AnswerRule, *, whole: bool = True) -> str | None:
    """The answer in an answer section, by the rule; None if there is none. `whole`: see `final_answer`."""
    match rule:
        case "boxed":
            return final_answer(text, whole=whole)
        case "choice":
            return choice_letter(text)
        case "code":
            return last_code_block(text)
        case "text":
            return text.strip() or None


def answer_section(text: str) -> str | None:
    """What follows the last `</think>`; the whole text if it has no think tags. None if a `<think>` stays open."""
    section = text.rpartition(THINK_CLOSE)[2]
    return None if THINK_OPEN in section else section


def answer_of(completion: Completion, rule: AnswerRule, *, thinks: bool) -> str | None:
    """The answer a completion gives.

    A thinking model that never closed its reasoning gave none, whatever stands in the reasoning. Of a
    completion that was cut off by the caller only a marked answer counts, not the beginning of a free text; and of one
    that did not end by itself, no marked answer that may have been cut short.
    """
    if thinks and not completion.closed:
        return None
    if completion.finish_reason == "cancelled" and rule == "text":
        return None
    return extract(completion.text, rule, whole=completion.finish_reason == "stop")
