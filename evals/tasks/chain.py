"""Chain: carry a number through a long list of additions, subtractions and multiplications modulo 97.

Easy step by step, impossible at a glance, and as long as one likes: what a reasoner whose budget is shorter
than the chain can finish only by handing its place on.
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

MODULUS = 97
MIN_OPS, MAX_OPS = 8, 48
MAX_LENGTH = 1000
"""The longest chain: no two neighbouring operations occur twice, and there are 2,304 pairs of operations."""
MAX_TERM, MAX_FACTOR = 20, 9
MAX_ANSWER_CHARS = 400


@dataclass(frozen=True)
class Op:
    """One operation: `op` is "+", "-" or "*"."""

    op: str
    operand: int

    def apply(self, value: int) -> int:
        """The next value, reduced modulo 97."""
        if self.op == "+":
            return (value + self.operand) % MODULUS
        if self.op == "-":
            return (value - self.operand) % MODULUS
        return value * self.operand % MODULUS

    @property
    def words(self) -> str:
        """As a person writes it: `add 5`, `subtract 7`, `multiply by 3`."""
        return f"{_WORDS[self.op]} {self.operand}"

    @property
    def symbols(self) -> str:
        """In short: `+5`, `-7`, `*3`."""
        return f"{self.op}{self.operand}"


_WORDS = {"+": "add", "-": "subtract", "*": "multiply by"}


@dataclass(frozen=True)
class ChainProblem:
    """The start value (0 to 96) and the operations in order."""

    start: int
    ops: tuple[Op, ...]

    @property
    def key(self) -> str:
        """Canonical form."""
        return f"chain:{self.start}{''.join(op.symbols for op in self.ops)}"

    def values(self) -> list[int]:
        """The value after each operation."""
        out, value = [], self.start
        for op in self.ops:
            value = op.apply(value)
            out.append(value)
        return out

    @property
    def answer(self) -> int:
        """The value after the last operation."""
        return self.values()[-1]


def to_gold(problem: ChainProblem) -> dict[str, Any]:
    """The problem as a gold answer: `{"start": 43, "ops": [["+", 5], ["*", 3]]}`."""
    return {"start": problem.start, "ops": [[op.op, op.operand] for op in problem.ops]}


def from_gold(gold: object) -> ChainProblem:
    """The problem that `to_gold` wrote. Raises GoldError."""
    start, ops = members_of(gold, {"start": int, "ops": list})
    if not 0 <= start < MODULUS:
        raise GoldError(f"gold: start is {start}; it should be 0 to {MODULUS - 1}")
    for op in ops:
        if not (isinstance(op, list) and len(op) == 2 and op[0] in [*_WORDS] and type(op[1]) is int and op[1] > 0):
            raise GoldError(f'gold: ops should be like [["+", 5], ["*", 3]], but {shown(op)} is among them')
    if not ops:
        raise GoldError("gold: there are no ops")
    return ChainProblem(start, tuple(Op(op, operand) for op, operand in ops))


def split_of(problem: ChainProblem) -> Split:
    """`train` or `test`, by the hash of the start and the operations."""
    return split_of_key(problem.key)


def _random_op(rng: Random, max_term: int, max_factor: int) -> Op:
    op = rng.choice("+-*")
    return Op(op, rng.randint(2, max_factor) if op == "*" else rng.randint(1, max_term))


def generate(
    rng: Random,
    split: Split = "test",
    length: int | None = None,
    *,
    max_term: int = MAX_TERM,
    max_factor: int = MAX_FACTOR,
) -> ChainProblem:
    """A chain of `length` operations (8 to 48, random unless given) of `split`.

    No two neighbouring operations occur twice in the same order, so a place in the chain can be found from two
    of its steps.
    """
    if length is None:
        length = rng.randint(MIN_OPS, MAX_OPS)
    if length < 1:
        raise ValueError(f"length is {length}; it must be at least 1")
    while True:
        ops = [_random_op(rng, max_term, max_factor)]
        pairs: set[tuple[Op, Op]] = set()
        while len(ops) < length:
            op = _random_op(rng, max_term, max_factor)
            if (ops[-1], op) not in pairs:
                pairs.add((ops[-1], op))
                ops.append(op)
        problem = ChainProblem(rng.randrange(MODULUS), tuple(ops))
        if split_of(problem) == split:
            return problem


PHRASINGS = (
    ("Start at {start}, {commas}, all modulo 97.", True),
    ("Start with {start}. Do these steps in order, modulo 97: {semicolons}. What is the result?", True),
    ("Working modulo 97, begin at {start} and then {commas}. What do you end with?", True),
    ("Begin with {start} and keep every result modulo 97.\n{numbered}", True),
    ("Compute modulo 97, from left to right: {start}, {symbols}", True),
    ("Take {start}, then {commas}. Give the final value modulo 97.", True),
    ("Start at {start}.\n{lines}\nWhat is the final number modulo 97?", True),
    ("Everything is modulo 97. Starting from {start}: {commas}. Where do you end up?", True),
    ("I start at {start}, then {commas}, working modulo 97. Which number do I reach?", False),
    ("Modulo 97: start {start}; {semicolons}. Result?", False),
)
"""The wordings of a problem: (template, used in training). The held-out ones measure whether new wordings are
understood."""


def phrase(problem: ChainProblem, index: int) -> str:
    """The problem in the words of PHRASINGS[index]."""
    words = [op.words for op in problem.ops]
    return PHRASINGS[index][0].format(
        start=problem.start,
        commas=", ".join(words),
        semicolons="; ".join(words),
        symbols=", ".join(op.symbols for op in problem.ops),
        lines="\n".join(words),
        numbered="\n".join(f"{place}. {text}" for place, text in enumerate(words, 1)),
    )


_ANSWER = re.compile(r"(?:x\s*=\s*)?(\d{1,6})\s*(?:\(?\s*(?:\\p?mod|\\bmod|mod)\s*\{?\s*97\s*\}?\s*\)?)?\.?")


def check(problem: ChainProblem, answer_text: str) -> Verdict:
    r"""Whether the answer is the final value, 0 to 96.

    Reads the last `\boxed{...}` if there is one, else the whole text, which must be the number alone
    (a `mod 97` after it is allowed). Never raises.
    """
    try:
        text = answer_in(answer_text, MAX_ANSWER_CHARS)
    except UnreadableError as error:
        return Verdict(False, str(error))
    match = _ANSWER.fullmatch(text.strip().strip("$").strip())
    if match is None:
        return Verdict(False, "there is no number as the answer")
    found, answer = int(match[1]), problem.answer
    if found != answer:
        return Verdict(False, f"{found} is not {answer}", str(found))
    return Verdict(True, f"{answer} is the final value", str(found))


TASK = Task(
    kind=ChainProblem,
    option="lengths",
    smallest=1,
    largest=MAX_LENGTH,
    phrasings=PHRASINGS,
    generate=generate,
    phrase=phrase,
    size_of=lambda problem: len(problem.ops),
    to_gold=to_gold,
    from_gold=from_gold,
    check=check,
)
