"""Countdown: reach a target from given numbers, each used exactly once, with + - * /.

Problems are drawn by playing at random, so each has a solution whose intermediate results are natural numbers.
Answers are checked exactly and safely, with fractions and without `eval`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from evals.errors import GoldError
from evals.tasks.splits import Split, split_of_key
from evals.tasks.task import Task
from evals.tasks.verdict import UnreadableError, Verdict, answer_in, braced, members_of
from rsa.answers.arithmetic import exact_value
from rsa.words import shown

MIN_SIZE, MAX_SIZE = 3, 6
MAX_NUMBER = 25
MAX_VALUE = 500
"""The largest intermediate result of a generated problem: a person can still work it out in the head."""
MIN_TARGET, MAX_TARGET = 6, 200

MAX_ANSWER_CHARS = 400
"""The longest answer read, in characters: an honest one with six numbers has under 60."""
MAX_DEPTH = 24
"""The deepest nesting read in an answer: far above what six numbers need, far below the parser's own limit."""


@dataclass(frozen=True)
class CountdownProblem:
    """`numbers` in the order shown to the reader, and the `target` to reach."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> str:
        """Canonical form: the order of the numbers does not matter."""
        return f"countdown:{','.join(map(str, sorted(self.numbers)))}={self.target}"


@dataclass(frozen=True)
class Step:
    """One operation `a op b = result`; for + and * the larger operand comes first."""

    a: int
    op: str
    b: int
    result: int

    def __str__(self) -> str:
        return f"{self.a}{self.op}{self.b}={self.result}"


Play = tuple[Step, ...]
"""All numbers combined into one: `len(numbers) - 1` steps."""


def to_gold(problem: CountdownProblem) -> dict[str, Any]:
    """The problem as a gold answer: `{"numbers": [7, 5, 9, 2], "target": 24}`."""
    return {"numbers": list(problem.numbers), "target": problem.target}


def from_gold(gold: object) -> CountdownProblem:
    """The problem that `to_gold` wrote. Raises GoldError."""
    numbers, target = members_of(gold, {"numbers": list, "target": int})
    if not numbers or not all(type(number) is int and number > 0 for number in numbers):
        raise GoldError(f"gold: numbers should be whole numbers above 0, not {shown(numbers)}")
    return CountdownProblem(tuple(numbers), target)


def split_of(problem: CountdownProblem) -> Split:
    """`train` or `test`, by the hash of the sorted numbers and the target."""
    return split_of_key(problem.key)


# ---------------------------------------------------------------- playing and generating


def apply(a: int, op: str, b: int) -> int | None:
    """`a op b`, or None unless the result is a natural number (1 or more) reached by exact division."""
    if op == "+":
        return a + b
    if op == "*":
        return a * b
    if op == "-":
        return a - b if a > b else None
    return a // b if a % b == 0 else None


def random_play(rng: Random, numbers: tuple[int, ...]) -> Play | None:
    """Combine the numbers at random; None when a draw leaves no pair that may be combined within MAX_VALUE."""
    values = list(numbers)
    steps: list[Step] = []
    while len(values) > 1:
        for _ in range(12):
            i, j = rng.sample(range(len(values)), 2)
            a, b = max(values[i], values[j]), min(values[i], values[j])
            # Division seldom fits: prefer it whenever it does, or it would hardly ever be seen.
            op = "/" if b > 1 and a % b == 0 and rng.random() < 0.5 else rng.choice("++---***")
            if op == "*" and b == 1 and rng.random() < 0.8:
                continue  # multiplying by one is allowed, but dull
            result = apply(a, op, b)
            if result is not None and result <= MAX_VALUE:
                break
        else:
            return None
        for index in sorted((i, j), reverse=True):
            del values[index]
        values.append(result)
        steps.append(Step(a, op, b, result))
    return tuple(steps)


def generate_with_play(
    rng: Random, split: Split, size: int | None = None, target: int | None = None
) -> tuple[CountdownProblem, Play]:
    """A problem of `split` and one solution of it. `size` numbers (3 to 6), random unless given."""
    if size is None:
        size = rng.choices((3, 4, 5, 6), (10, 45, 25, 20))[0]
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size is {size}; it must be {MIN_SIZE} to {MAX_SIZE}")
    while True:
        largest = 13 if rng.random() < 0.5 else MAX_NUMBER
        numbers = tuple(rng.randint(1, largest) for _ in range(size))
        play = random_play(rng, numbers)
        if play is None:
            continue
        reached = play[-1].result
        if reached != target if target is not None else not MIN_TARGET <= reached <= MAX_TARGET:
            continue
        problem = CountdownProblem(numbers, reached)
        if split_of(problem) == split:
            return problem, play


def generate(
    rng: Random, split: Split = "test", size: int | None = None, target: int | None = None
) -> CountdownProblem:
    """A solvable problem of `split`; the same generator state gives the same problem."""
    return generate_with_play(rng, split, size, target)[0]


def expression_of(play: Play) -> str:
    """The play as one expression with the fewest parentheses, e.g. `7*5-9-2`."""
    made: dict[int, list[tuple[str, int]]] = {}  # value -> expressions made so far, with their precedence
    text = ""
    for step in play:
        left, left_rank = _take(made, step.a)
        right, right_rank = _take(made, step.b)
        rank = 1 if step.op in "+-" else 2
        if left_rank < rank:
            left = f"({left})"
        if right_rank < rank or (right_rank == rank and step.op in "-/"):
            right = f"({right})"
        text = f"{left}{step.op}{right}"
        made.setdefault(step.result, []).append((text, rank))
    return text


def _take(made: dict[int, list[tuple[str, int]]], value: int) -> tuple[str, int]:
    """The latest unused expression of `value`, else the number itself (it binds tightest)."""
    expressions = made.get(value)
    return expressions.pop() if expressions else (str(value), 3)


def solve(problem: CountdownProblem) -> str | None:
    """Some solution with natural intermediate results, or None when there is none. Exhaustive; for tests."""
    seen: set[tuple[int, ...]] = set()

    def search(values: tuple[int, ...]) -> Play | None:
        if len(values) == 1:
            return () if values[0] == problem.target else None
        if values in seen:
            return None
        seen.add(values)
        for i in range(len(values)):
            for j in range(i):
                a, b = values[i], values[j]  # sorted upwards, so a >= b
                rest = values[:j] + values[j + 1 : i] + values[i + 1 :]
                for op in "+-*/":
                    result = apply(a, op, b)
                    if result is None:
                        continue
                    found = search(tuple(sorted((*rest, result))))
                    if found is not None:
                        return (Step(a, op, b, result), *found)
        return None

    play = search(tuple(sorted(problem.numbers)))
    return None if play is None else expression_of(play)


# ---------------------------------------------------------------- wording


def _commas(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _and(numbers: tuple[int, ...]) -> str:
    return f"{_commas(numbers[:-1])} and {numbers[-1]}"


def _spaces(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))


PHRASINGS = (
    ("Use {and_} once each to make {target}.", True),
    ("Make {target} from the numbers {commas}.", True),
    ("Using each of {spaces} exactly once with + - * /, reach {target}", True),
    ("Using the numbers {commas} exactly once each, find an expression that equals {target}.", True),
    ("Numbers: {commas}\nTarget: {target}", True),
    ("Combine {and_} with +, -, * and / to get {target}. Use every number exactly once.", True),
    ("How can I get {target} from {commas}?", True),
    ("Countdown: {spaces}, target {target}", True),
    ("Find a way to make {target} using {commas}. Each number must be used once.", True),
    ("Use the numbers [{commas}] to create an equation that equals {target}. Each number can only be used once.", True),
    ("{commas} -> {target}", True),
    ("I have the numbers {and_}. Can you make {target} with them?", True),
    ("Reach {target} with {and_}, using each number once and only + - * /.", True),
    ("Write {target} with the numbers {spaces}, each exactly once.", True),
    ("Get {target} out of {commas}, please.", True),
    ("Which expression with {and_} equals {target}?", True),
    ("Play Countdown with me: the numbers are {and_}, and the target is {target}.", False),
    ("With {commas} and the four basic operations, can you reach {target}?", False),
    ("Please make {target} using {and_}, each number one time.", False),
    ("Target {target}, numbers {commas}.", False),
)
"""The wordings of a problem: (template, used in training). The held-out ones measure whether new wordings are
understood."""


def phrase(problem: CountdownProblem, index: int) -> str:
    """The problem in the words of PHRASINGS[index]."""
    numbers = problem.numbers
    return PHRASINGS[index][0].format(
        target=problem.target, commas=_commas(numbers), and_=_and(numbers), spaces=_spaces(numbers)
    )


# ---------------------------------------------------------------- checking


def check(problem: CountdownProblem, answer_text: str) -> Verdict:
    r"""Whether the answer reaches the target with each number used exactly once.

    Reads the last `\boxed{...}` if there is one, else the whole text; LaTeX products, quotients and fractions
    are understood, and a trailing `= target`. Fractional or negative intermediate results are allowed.
    Hostile text (too long, too deep, names, powers) is refused without being evaluated. Never raises.
    """
    try:
        expression = _plain(answer_text)
        value, used = _evaluate(expression, problem.target)
    except UnreadableError as error:
        return Verdict(False, str(error))
    misused = _misuse(Counter(used), Counter(problem.numbers))
    if misused:
        return Verdict(False, misused, expression)
    if value != problem.target:
        return Verdict(False, f"gives {value}, not {problem.target}", expression)
    return Verdict(True, f"{expression} = {problem.target}, each number used once", expression)


def _misuse(used: Counter[int], given: Counter[int]) -> str:
    """Which numbers an answer uses that are not there, too often, or not at all; empty if it uses each once."""
    faults = [f"uses {number}, which is not given" for number in used if number not in given]
    faults += [f"uses {number} too often" for number in used if number in given and used[number] > given[number]]
    faults += [f"does not use {number}" for number in given if number not in used]
    faults += [f"does not use each {number}" for number in given if 0 < used[number] < given[number]]
    return "; ".join(faults)


_LATEX = (
    (re.compile(r"\\(?:left|right|[,;:! ]|quad\b|displaystyle\b)"), ""),
    (re.compile(r"\\(?:times|cdot|ast)\b|[×·⋅∗]"), "*"),
    (re.compile(r"\\div\b|[÷∕]"), "/"),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"\\[()\[\]]|\$"), ""),
)


def _plain(text: str) -> str:
    """The expression in `text` in ASCII with + - * / ( ) only; UnreadableError when that is not what it holds."""
    text = answer_in(text, MAX_ANSWER_CHARS)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    for _ in range(MAX_DEPTH):
        match = re.search(r"\\[dt]?frac(?=\{)", text)
        if match is None:
            break
        above, end = braced(text, match.end())
        below, end = braced(text, end)
        text = f"{text[: match.start()]}(({above})/({below})){text[end:]}"
    text = text.strip().rstrip(".").strip()
    if not text:
        raise UnreadableError("there is no answer")
    if not re.fullmatch(r"[0-9+\-*/()=\s]+", text):
        raise UnreadableError("the answer is not an arithmetic expression")
    return re.sub(r"\s+", " ", text)


def _evaluate(expression: str, target: int) -> tuple[Fraction, list[int]]:
    """Value of the expression and the numbers in it, in order."""
    left, equals, right = expression.partition("=")
    if equals and right.strip() != str(target):
        raise UnreadableError(f"the answer claims to equal {right.strip()}, not {target}")
    depth = 0
    for character in left:
        depth += (character == "(") - (character == ")")
        if depth > MAX_DEPTH:
            raise UnreadableError(f"the answer nests deeper than {MAX_DEPTH} parentheses")
    try:
        tree = ast.parse(left.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UnreadableError("the answer is not an arithmetic expression") from None
    used: list[int] = []
    return _value(tree.body, used), used


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        if len(used) > MAX_SIZE + 2 or node.value > 10**6:
            raise UnreadableError("the answer has too many or too large numbers")
        return Fraction(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, used), _value(node.right, used)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            if right == 0:
                raise UnreadableError("the answer divides by zero")
            return left / right
    raise UnreadableError("only numbers, + - * / and parentheses are allowed")


def answer_key(expression: str) -> Hashable:
    """Equal for answers that have the same value and use the same numbers."""
    left = expression.partition("=")[0]
    value = exact_value(left)
    return expression if value is None else (value, tuple(sorted(map(int, re.findall(r"\d+", left)))))


TASK = Task(
    kind=CountdownProblem,
    option="sizes",
    smallest=MIN_SIZE,
    largest=MAX_SIZE,
    phrasings=PHRASINGS,
    generate=generate,
    phrase=phrase,
    size_of=lambda problem: len(problem.numbers),
    to_gold=to_gold,
    from_gold=from_gold,
    check=check,
    answer_key=answer_key,
)
