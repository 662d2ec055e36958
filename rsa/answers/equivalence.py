"""Which answers mean the same: for votes, consensus and scores.

In this order: equal after tidying; static limits, beyond which only equal texts count; exact values of plain arithmetic
(`rsa.answers.arithmetic`), alone or as members of a tuple, an interval or a set; what math-verify would get wrong;
math-verify in a process of its own that is killed when it hangs (`rsa.answers.math_pool`).

What is taken for the same is a policy where mathematics leaves it open:

- `m + n = 204` and `x = 204` stand for 204, a residue `204 \\pmod{1000}` for 204, `336^\\circ` for 336.
- A rounding is not the exact value, however many digits it has; a decimal is the decimal fraction that it writes.
- A list without brackets, and one joined by `and` or `or`, is the set of its members; a tuple or an interval is not.
- An inequality is not the interval it describes; `50\\%` is neither 50 nor 0.5.
- Three letters or more without anything else are a word, not a product: capitals do not matter, their order does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from rsa.answers.arithmetic import exact_value, join_digit_groups
from rsa.answers.extract import AnswerRule
from rsa.answers.math_pool import DIFFERENT, SAME, TIMEOUT_S, Equivalence, MathWorkers

MAX_HANGS = 3
"""Comparisons of one matcher that may hang: answers that hang come in groups; after so many, only what is certain
counts."""

MAX_LENGTH = 2048
MAX_NESTING = 32
MAX_DIGIT_RUN = 256
MAX_EXPONENT = 100_000
MAX_FACTORIAL = 10_000
# These run over at most MAX_LENGTH characters, in which no two spaces follow each other.
_DIGIT_RUN = re.compile(rf"\d{{{MAX_DIGIT_RUN + 1}}}")
_TOO_HARD = re.compile(r"\\(?:int|oint|iint|sum|prod|lim)(?![a-zA-Z])|\^\s*\{[^{}]*\^|\^\s*\w+\s*\^|!\s*[)}\]]*\s*!")
_EXPONENT = re.compile(r"\^\s*\{?\s*[+-]?\s*(\d+)")
_FACTORIAL = re.compile(r"(\d+)\s*\}?\)?\s*!")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|mbox)\s*\{([^{}]*)\}")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})(?![\w.])")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![a-zA-Z])|\\ |~")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])")
_DEGREES = re.compile(r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})|°")
_CONJUNCTION = re.compile(r"\s*,?\s(?:and|or)\s+")
_RESIDUE = re.compile(r"\s*(?:\\pmod\s*(?:\{[^{}]*\}|\d+)|\(\s*(?:\\bmod|\\mod|mod)\s[^()]*\))\s*$")
_EQUATION = re.compile(r"(?<![<>!\\])=(?!=)|\\equiv(?![a-zA-Z])")
_MEMBER_OF = re.compile(r"\\in(?![a-zA-Z])")
_WORD = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*|[Nn][Oo]")
_DECIMAL = re.compile(r"[+-]?\s*\d*\.\d+")
_SPACED_GROUPS = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?!\d)")
_GAP = re.compile(r"(?<!\d) | (?!\d)")
"""A space that means nothing; between digits it may: 2 3 is not 23."""
_PAIRS = ("()", "[]", "(]", "[)")


def tidy(answer: str) -> str:
    """An answer without what does not change its meaning: `$`, `\\text`, spacing, digit groups, a last period."""
    text = join_digit_groups(_CONTROL.sub("", answer).strip())
    text = _WRAPPER.sub(r"\1", text)
    text = _LAYOUT.sub(" ", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _DEGREES.sub("", text).strip().strip("$").strip()
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    if len(_PLUS_MINUS.findall(text)) == 1:
        text = ", ".join(_PLUS_MINUS.sub(sign, text) for sign in "+-")
    text = _CONJUNCTION.sub(", ", re.sub(r"\s+", " ", text))
    text = _SPACED_GROUPS.sub(lambda match: match.group().replace(" ", ""), text)
    return text.strip().rstrip(".").strip()


def too_hard(text: str) -> bool:
    """Whether a comparison of this could take very long; decided from its looks alone."""
    if _DIGIT_RUN.search(text) or _TOO_HARD.search(text):
        return True
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    return (
        deepest > MAX_NESTING
        or any(int(digits) > MAX_EXPONENT for digits in _EXPONENT.findall(text))
        or any(int(digits) > MAX_FACTORIAL for digits in _FACTORIAL.findall(text))
    )


def quick_equivalence(left: str, right: str, rule: AnswerRule = "boxed") -> Equivalence | None:
    """Whether two answers are the same, as far as that is certain at once; None: only math-verify can tell.

    Answers that are not mathematical (choice, code, text) are the same only if their texts are.
    """
    if rule != "boxed":
        return SAME if " ".join(left.split()) == " ".join(right.split()) else DIFFERENT
    if max(len(left), len(right)) > MAX_LENGTH:
        return SAME if left.strip() == right.strip() else _refused(f"longer than {MAX_LENGTH:,} characters")
    return _compare_tidied(*_alike(tidy(left), tidy(right)))


def _refused(why: str) -> Equivalence:
    return Equivalence("undecided", "looks", f"too hard to compare: {why}")


def _compare_tidied(one: str, other: str) -> Equivalence | None:
    if _GAP.sub("", one) == _GAP.sub("", other):
        return SAME
    if too_hard(one) or too_hard(other):
        return _refused("it could take very long to compute")
    values = exact_value(one), exact_value(other)
    if None not in values:
        return SAME if values[0] == values[1] else DIFFERENT
    if _WORD.fullmatch(one) or _WORD.fullmatch(other):
        return SAME if one.casefold() == other.casefold() else DIFFERENT
    ours, theirs = _members(one), _members(other)
    if ours.kind != theirs.kind or _marks(one) != _marks(other):
        return DIFFERENT
    return _compare_members(ours, theirs) if ours.kind else None


def _alike(one: str, other: str) -> tuple[str, str]:
    """Both, without a modulus, or what stands left of a sign of equality or membership, that only one of them has."""
    if bool(_RESIDUE.search(one)) != bool(_RESIDUE.search(other)):
        one, other = _RESIDUE.sub("", one), _RESIDUE.sub("", other)
    for sign in (_EQUATION, _MEMBER_OF):
        if bool(sign.search(one)) != bool(sign.search(other)):
            one, other = _right_side(one, sign), _right_side(other, sign)
    return one, other


def _right_side(text: str, sign: re.Pattern[str]) -> str:
    """What follows the last such sign; the whole text if nothing does, or if it lists several statements."""
    right = sign.split(text)[-1].strip()
    return right if right and len(_split(text)) == 1 else text


def _marks(text: str) -> tuple[bool, bool]:
    """Signs that change a value and that math-verify reads both ways: percent, and a plain decimal's exactness."""
    return "%" in text, _DECIMAL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class _Listed:
    """What an answer lists; `kind` is the brackets of a tuple, an interval or a set, or "" where it is a single one."""

    kind: str
    members: tuple[str, ...]


def _members(text: str) -> _Listed:
    """A tuple, an interval or a set of two or more; else the text as a single answer."""
    if text.startswith("\\{") and text.endswith("\\}") and _closes_last(text[1:-2] + "}"):
        kind, listed = "{}", _split(text[2:-2])
    elif len(text) > 1 and text[0] + text[-1] in _PAIRS and _closes_last(text):
        kind, listed = text[0] + text[-1], _split(text[1:-1])
    else:
        kind, listed = "{}", _split(text)
    return _Listed(kind, listed) if len(listed) > 1 else _Listed("", (text,))


def _closes_last(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "({[") - (char in ")}]")
        if depth <= 0:
            return depth == 0 and index == len(text) - 1
    return False


def _split(text: str) -> tuple[str, ...]:
    """`text` cut at the commas outside all brackets."""
    parts: list[str] = []
    depth = start = 0
    for index, char in enumerate(text):
        depth += (char in "({[") - (char in ")}]")
        if char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return (*parts, text[start:].strip())


def _compare_members(ours: _Listed, theirs: _Listed) -> Equivalence | None:
    """Two lists of one kind, as far as their members are certain at once."""
    if ours.kind == "{}":
        values, others = _exact(ours.members), _exact(theirs.members)
        if values is None or others is None:
            return None
        return SAME if values == others else DIFFERENT
    if len(ours.members) != len(theirs.members):
        return DIFFERENT
    pairs = [_compare_tidied(one, other) for one, other in zip(ours.members, theirs.members, strict=True)]
    if DIFFERENT in pairs:
        return DIFFERENT
    return SAME if all(pair == SAME for pair in pairs) else None


def _exact(members: Sequence[str]) -> set[Fraction] | None:
    """The members' values; None unless all are plain numbers."""
    values = [exact_value(member) for member in members]
    known = {value for value in values if value is not None}
    return None if None in values else known


async def compare(left: str, right: str, workers: MathWorkers) -> Equivalence:
    """Whether two mathematical answers mean the same. Never raises for an answer, however odd."""
    found = quick_equivalence(left, right)
    return found if found is not None else await _ask(left, right, workers)


async def _ask(left: str, right: str, workers: MathWorkers) -> Equivalence:
    ours, theirs = map(_members, _alike(tidy(left), tidy(right)))
    return await workers.compare(ours.members, theirs.members, ordered=ours.kind != "{}")


class AnswerMatcher:
    """Groups equivalent answers. Use within `async with`.

    workers   compare what is not certain at once; they stay the caller's to close. Without them a matcher has one
              process of its own (with `timeout_s` and `command` as of MathWorkers), ended on leaving.
    problems  says, once each, what it could not do: math-verify missing, or a comparison that hung.
    """

    def __init__(
        self,
        rule: AnswerRule = "boxed",
        *,
        workers: MathWorkers | None = None,
        timeout_s: float = TIMEOUT_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self.rule = rule
        self.problems: list[str] = []
        self._owned = workers is None
        self._workers = workers if workers is not None else MathWorkers(1, timeout_s=timeout_s, command=command)
        self._asked: dict[tuple[str, str], Equivalence] = {}  # a round's votes may be counted again and again
        self._hung = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._owned:
            await self._workers.aclose()

    async def same(self, left: str, right: str) -> bool:
        """Whether two answers mean the same. Never raises for an answer, however odd; in doubt False."""
        found = quick_equivalence(left, right, self.rule)
        if found is None:
            found = self._asked.get((left, right))
        if found is None and self._hung < MAX_HANGS:
            found = self._asked[left, right] = await _ask(left, right, self._workers)
            if found.outcome == "undecided":
                self._hung += 1
                self._note(f"two answers count as different: {found.why}")
        return found is not None and found.same

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Indices of equivalent answers, None left out; larger groups first, ties to the earliest member."""
        groups: list[list[int]] = []
        for index, answer in enumerate(answers):
            if answer is None:
                continue
            for group in groups:
                if await self.same(str(answers[group[0]]), answer):
                    group.append(index)
                    break
            else:
                groups.append([index])
        return sorted((tuple(group) for group in groups), key=lambda group: (-len(group), group[0]))

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
