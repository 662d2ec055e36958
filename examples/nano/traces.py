"""From a problem to the texts nano is trained on: prompts, reasoning, answers, and what a tail is worth.

Reasoning is what a person would jot down. Countdown, one attempt a line: `7*5=35, 35-9=26, 26-2=24, yes`.
Chain and sums, one step a line, numbered: `12 add 5: 48`.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from random import Random

import jinja2

from evals.tasks.chain import ChainProblem
from evals.tasks.countdown import MAX_VALUE, CountdownProblem, Play, Step, apply, expression_of, random_play
from evals.tasks.sums import SumsProblem

ListProblem = ChainProblem | SumsProblem
"""Problems that are worked off step by step."""
Piece = tuple[str, bool]
"""A piece of a completion: its text, and whether its tokens carry loss."""

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"
CLOSE = f"{END_THINK}\n\n"
UNSOLVED = "Not solved yet."
"""The honest answer of a rollout whose budget ended before it had one: no box, so no vote."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)

PROMPTS_FILE = Path(__file__).resolve().parents[2] / "configs" / "prompts" / "math.toml"


class PromptBook:
    """The framework's own prompt templates, rendered as the framework does."""

    def __init__(self, path: Path = PROMPTS_FILE) -> None:
        templates = tomllib.loads(path.read_text(encoding="utf-8"))
        environment = jinja2.Environment()
        self._templates = {
            name: environment.from_string(templates[name]) for name in ("initial", "aggregate", "refine")
        }

    def user(self, problem: str, tails: list[str] | None = None) -> str:
        """The user message: `initial` without tails, `refine` with one, `aggregate` with more."""
        if not tails:
            return self._templates["initial"].render(problem=problem)
        name = "refine" if len(tails) == 1 else "aggregate"
        return self._templates[name].render(problem=problem, tails=tails)


def chat(user: str, thinking: bool = True, system: str | None = None) -> str:
    """What the chat template renders, with the generation prompt and without BOS (the tokenizer adds it)."""
    head = f"{IM_START}system\n{system}{IM_END}\n" if system is not None else ""
    tail = f"{THINK}\n" if thinking else f"{THINK}\n\n{CLOSE}"
    return f"{head}{IM_START}user\n{user}{IM_END}\n{IM_START}assistant\n{tail}"


def answer(text: str) -> str:
    """The answer sentence, its end token included."""
    return f"The answer is \\boxed{{{text}}}.{IM_END}"


# ---------------------------------------------------------------- countdown


def attempt(play: Play, target: int) -> str:
    """One line: the steps and the verdict."""
    return f"{', '.join(map(str, play))}, {'yes' if play[-1].result == target else 'no'}\n"


def attempt_pieces(play: Play, target: int, learn_from: int | None = None) -> list[Piece]:
    """The line in pieces. What a failed attempt chose to try carries no loss before step `learn_from` (counted
    from 0; none unless given); its results and verdict always do."""
    good = play[-1].result == target
    pieces: list[Piece] = []
    for place, step in enumerate(play):
        after = ", " if place + 1 < len(play) else f", {'yes' if good else 'no'}\n"
        chosen = good or (learn_from is not None and place >= learn_from)
        pieces += [(f"{step.a}{step.op}{step.b}=", chosen), (f"{step.result}{after}", True)]
    return pieces


def missed_pieces(rng: Random, play: Play, target: int) -> list[Piece]:
    """A failed attempt, to be learned from where it could not have been saved.

    When the last two numbers cannot give the target, the model must still combine them honestly: solutions alone
    never show that, and a model trained on them alone bends the last sum until it fits.
    """
    last = play[-1]
    hopeless = all(apply(last.a, op, last.b) != target for op in "+-*/")
    if not hopeless:
        return attempt_pieces(play, target)
    return attempt_pieces(play, target, len(play) - (2 if len(play) > 2 and rng.random() < 0.15 else 1))


def failed_plays(rng: Random, problem: CountdownProblem, count: int) -> list[Play]:
    """`count` different-looking attempts that miss the target, nearer ones preferred."""
    plays: list[Play] = []
    while len(plays) < count:
        found = [random_play(rng, problem.numbers) for _ in range(rng.randint(1, 4))]
        missed = [play for play in found if play is not None and play[-1].result != problem.target]
        if missed:
            plays.append(min(missed, key=lambda play: abs(play[-1].result - problem.target)))
    return plays


_STEP = re.compile(r"(\d{1,4})([+\-*/])(\d{1,4})=(\d{1,5})")


def read_attempt(problem: CountdownProblem, line: str) -> Play | None:
    """The play that `line` writes down, when it uses the numbers rightly and each sum is right; else None."""
    parts = line.split(", ")
    if len(parts) != len(problem.numbers) or parts[-1] not in ("yes", "no"):
        return None
    left = Counter(problem.numbers)
    steps: list[Step] = []
    for part in parts[:-1]:
        match = _STEP.fullmatch(part)
        if match is None:
            return None
        a, op, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
        left[a] -= 1
        left[b] -= 1
        if left[a] < 0 or left[b] < 0 or apply(a, op, b) != result or result > 4 * MAX_VALUE:
            return None
        left[result] += 1
        steps.append(Step(a, op, b, result))
    return tuple(steps)


def attempts_in(problem: CountdownProblem, trace: str) -> list[Play]:
    """The sound attempts of a reasoning text, in order; whether one succeeds is seen from its last result."""
    plays = (read_attempt(problem, line) for line in trace.split("\n"))
    return [play for play in plays if play is not None]


def countdown_pieces(rng: Random, problem: CountdownProblem, failed: list[Play], play: Play) -> list[Piece]:
    """Reasoning (failed attempts, then the solution) and answer."""
    pieces: list[Piece] = []
    for missed in failed:
        pieces += missed_pieces(rng, missed, problem.target)
    pieces += attempt_pieces(play, problem.target)
    return [*pieces, (CLOSE + answer(expression_of(play)), True)]


# ---------------------------------------------------------------- chain and sums: one step a line


def steps_of(problem: ListProblem) -> list[tuple[str, int]]:
    """What each line does, in words, and the value after it."""
    if isinstance(problem, ChainProblem):
        return [(op.words, value) for op, value in zip(problem.ops, problem.values(), strict=True)]
    return [(said(term), total) for term, total in zip(problem.terms, problem.totals(), strict=True)]


def said(term: int) -> str:
    """A term of a sum as a step: `add 4821`, `subtract 93`."""
    return f"add {term}" if term >= 0 else f"subtract {-term}"


def list_lines(problem: ListProblem, first: int = 1, last: int | None = None) -> list[str]:
    """The lines of steps `first` to `last` (counted from 1, both included)."""
    steps = steps_of(problem)
    return [_line(k, *steps[k - 1]) for k in range(first, (last or len(steps)) + 1)]


def _line(number: int, words: str, value: int) -> str:
    return f"{number} {words}: {value}\n"


def spoiled_lines(rng: Random, problem: ListProblem, first: int, last: int) -> list[str]:
    """As `list_lines`, but one of the last few results is wrong and all later ones follow from it."""
    steps = steps_of(problem)
    wrong_at = rng.randint(max(first, last - 5), last)
    lines = list_lines(problem, first, wrong_at - 1) if wrong_at > first else []
    value = _slip(rng, problem, steps[wrong_at - 1][1])
    lines.append(_line(wrong_at, steps[wrong_at - 1][0], value))
    for k in range(wrong_at + 1, last + 1):
        value = problem.ops[k - 1].apply(value) if isinstance(problem, ChainProblem) else value + problem.terms[k - 1]
        lines.append(_line(k, steps[k - 1][0], value))
    return lines if value >= 0 else list_lines(problem, first, last)


def _slip(rng: Random, problem: ListProblem, value: int) -> int:
    """A wrong result like those that are really made: a neighbour, a carry dropped, a digit mistaken."""
    if isinstance(problem, ChainProblem):
        return (value + rng.choice((1, -1, 10, -10, rng.randint(2, 95)))) % 97
    place = 10 ** rng.randrange(len(str(value)))
    wrong = value + place * rng.choice((1, -1, 1, -1, rng.choice((2, -2, 5, -5, 9, -9))))
    return wrong if wrong > 0 else value + place


_LINE = re.compile(r"(\d{1,2}) ((?:add|subtract|multiply by) \d{1,6}): (\d{1,8})")


def furthest(problem: ListProblem, tail: str) -> int:
    """The last step that `tail` states with the right operation and value, counted from 1; 0 when there is none."""
    steps = steps_of(problem)
    best = 0
    for line in tail.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or not 1 <= (k := int(match[1])) <= len(steps):
            continue
        if (match[2], int(match[3])) == steps[k - 1]:
            best = max(best, k)
    return best


def list_pieces(problem: ListProblem, start_at: int = 1) -> list[Piece]:
    """Reasoning from step `start_at` on, and the answer."""
    return [("".join(list_lines(problem, start_at)), True), (CLOSE + answer(str(problem.answer)), True)]
