"""Sums: a long list of whole numbers, added and subtracted one after the other.

Each step is easy but not safe: a small model drops a carry now and then. A wrong total can be told by working the
step out again, or by looking at what others got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Any

from evals.errors import GoldError
from evals.tasks.splits import Split, split_of_key
from evals.tasks.task import Task
from evals.tasks.verdict import UnreadableError, Verdict, answer_in, members_of
from rsa.words import shown

MIN_TERMS, MAX_TERMS = 2, 40
MAX_DIGITS = 5
"""Digits of the longest term; a total may have two more."""
MAX_ANSWER_CHARS = 400


@dataclass(frozen=True)
class SumsProblem:
    """The terms in order; the first is positive, and so is every total."""

    terms: tuple[int, ...]

    @property
    def key(self) -> str:
        """Canonical form."""
        return f"sums:{','.join(map(str, self.terms))}"

    def totals(self) -> list[int]:
        """The total after each term, the first one included."""
        out, total = [], 0
        for term in self.terms:
            total += term
            out.append(total)
        return out

    @property
    def answer(self) -> int:
        """The total of all terms."""
        return sum(self.terms)


def to_gold(problem: SumsProblem) -> dict[str, Any]:
    """The problem as a gold answer: `{"terms": [4821, -93]}`."""
    return {"terms": list(problem.terms)}


def from_gold(gold: object) -> SumsProblem:
    """The problem that `to_gold` wrote. Raises GoldError."""
    (terms,) = members_of(gold, {"terms": list})
    if not terms or any(type(term) is not int for term in terms):
        raise GoldError(f"gold: terms should be a list of whole numbers, but it is {shown(terms)}")
    return SumsProblem(tuple(terms))


def split_of(problem: SumsProblem) -> Split:
    """`train` or `test`, by the hash of the terms."""
    return split_of_key(problem.key)


def generate(rng: Random, split: Split = "test", length: int | None = None) -> SumsProblem:
    """A sum of `length` terms (2 to 40, random unless given) of `split`; a third of the sums subtract too."""
    if length is None:
        length = rng.randint(MIN_TERMS, MAX_TERMS)
    if not MIN_TERMS <= length <= MAX_TERMS:
        raise ValueError(f"length is {length}; it must be {MIN_TERMS} to {MAX_TERMS}")
    while True:
        minus = rng.choice((0.0, 0.0, 0.35))
        digits = rng.randint(2, MAX_DIGITS)
        terms = [_random_term(rng, digits)]
        total = terms[0]
        while len(terms) < length:
            term = _random_term(rng, digits)
            if rng.random() < minus and term < total:
                term = -term
            terms.append(term)
            total += term
        problem = SumsProblem(tuple(terms))
        if split_of(problem) == split:
            return problem


def _random_term(rng: Random, digits: int) -> int:
    """Numbers of up to `digits` digits, short ones as likely as long ones but for the longest."""
    most = digits if rng.random() < 0.6 else rng.randint(1, digits)
    return rng.randint(10 ** (most - 1), 10**most - 1)


PHRASINGS = (
    ("What is {expression}?", True),
    ("Compute {expression}.", True),
    ("Add up these numbers: {commas}.", True),
    ("Find the sum of {commas}.", True),
    ("{expression} = ?", True),
    ("My bill has these amounts: {commas}. What is the total?", True),
    ("Calculate the total:\n{lines}", True),
    ("Sum of the following numbers: {semicolons}", True),
    ("Grand total of {commas}, please.", False),
    ("Please total this list for me: {commas}", False),
)
"""The wordings of a problem: (template, used in training). The held-out ones measure whether new wordings are
understood."""


def phrase(problem: SumsProblem, index: int) -> str:
    """The problem in the words of PHRASINGS[index]."""
    words = [str(term) for term in problem.terms]
    return PHRASINGS[index][0].format(
        expression=expression_of(problem),
        commas=", ".join(words),
        semicolons="; ".join(words),
        lines="\n".join(words),
    )


def expression_of(problem: SumsProblem, plus: str = " + ", minus: str = " - ") -> str:
    """The sum as people write it: `4821 + 93 - 120`."""
    first, *others = problem.terms
    return str(first) + "".join(f"{plus}{term}" if term >= 0 else f"{minus}{-term}" for term in others)


_ANSWER = re.compile(r"-?\d{1,12}")
_GROUPED = re.compile(r"(?<=\d)(?:,|\\,|\{,\}|[ \u2009\u202f])(?=\d{3}(?!\d))")


def check(problem: SumsProblem, answer_text: str) -> Verdict:
    r"""Whether the answer is the total.

    Reads the last `\boxed{...}` if there is one, else the whole text, which must be the number alone, with or
    without separators between groups of three digits. Never raises.
    """
    try:
        text = answer_in(answer_text, MAX_ANSWER_CHARS)
    except UnreadableError as error:
        return Verdict(False, str(error))
    number = _GROUPED.sub("", text.strip().strip("$").strip().removesuffix(".").replace("−", "-"))
    if _ANSWER.fullmatch(number) is None:
        return Verdict(False, "there is no number as the answer")
    found, answer = int(number), problem.answer
    if found != answer:
        return Verdict(False, f"{found} is not {answer}", str(found))
    return Verdict(True, f"{answer} is the total", str(found))


TASK = Task(
    kind=SumsProblem,
    option="lengths",
    smallest=MIN_TERMS,
    largest=MAX_TERMS,
    phrasings=PHRASINGS,
    generate=generate,
    phrase=phrase,
    size_of=lambda problem: len(problem.terms),
    to_gold=to_gold,
    from_gold=from_gold,
    check=check,
)
