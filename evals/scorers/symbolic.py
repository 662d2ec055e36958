"""Symbolic equivalence: the answer in the box means the same as the gold answer.

The answer is what `rsa.answers.extract.final_answer` finds, as for `rsa solve`. What means the same is in
`rsa.answers.equivalence`, policies included. Beyond its limits nobody can tell: such an answer is `too_hard` and has no
value, unless it is the gold answer to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import JsonValue

from evals.errors import GoldError
from evals.scorers.base import BaseScorer, Fields, gold_text, kept, no_answer, scored, shown
from evals.scorers.protocol import Score
from rsa.answers.equivalence import AnswerMatcher, compare
from rsa.answers.extract import final_answer, last_boxed
from rsa.answers.math_pool import MathWorkers

_AFTER_A_SOLUTION = "####"
"""What stands between a solution and its answer in GSM8K, and in data made like it."""
_INTEGER = re.compile(r"[+-]?\d{1,4000}")


class MathScorer(BaseScorer[str]):
    """Compares with the processes of `math`, which stay the caller's to close, or with its own."""

    def __init__(self, *, math: MathWorkers | None = None) -> None:
        self._owned = math is None
        self._math = math if math is not None else MathWorkers()

    async def __aexit__(self, *exc: object) -> None:
        if self._owned:
            await self._math.aclose()

    def read_gold(self, gold: JsonValue, fields: Fields) -> str:
        text = gold_text(gold)
        return last_boxed(text) or text.rpartition(_AFTER_A_SOLUTION)[2].strip() or text

    async def mark(self, section: str, gold: str) -> Score:
        answer = final_answer(section)
        if answer is None:
            return no_answer("there is neither a box nor a marked answer")
        verdict = await compare(answer, gold, self._math)
        if verdict.outcome == "undecided":
            return Score(value=None, status="too_hard", extracted=kept(answer), reason=verdict.why)
        return scored(float(verdict.same), answer, "" if verdict.same else f"it is not {gold[:200]}")

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """By verified equivalence; what cannot be decided counts as different."""
        async with AnswerMatcher(workers=self._math) as matcher:
            return await matcher.group(answers)


class IntegerScorer(MathScorer):
    """The same for gold answers that are integers, such as `025`."""

    def read_gold(self, gold: JsonValue, fields: Fields) -> str:
        text = super().read_gold(gold, fields)
        if _INTEGER.fullmatch(text) is None:
            raise GoldError(f"gold: should be an integer, not {shown(gold)}")
        return text
