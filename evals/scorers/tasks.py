"""The generated tasks: their own exact checkers decide. Gold is the problem itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import TypeVar

from pydantic import JsonValue

from evals.scorers.base import BaseScorer, Fields, no_answer, scored
from evals.scorers.protocol import Score
from evals.tasks import chain, countdown, sums
from evals.tasks.verdict import Verdict
from rsa.answers.arithmetic import exact_value
from rsa.answers.extract import last_boxed

P = TypeVar("P")


class TaskScorer(BaseScorer[P]):
    """Asks a checker. The answer is the last box, else the whole section; what the checker cannot read is none."""

    def __init__(self, from_gold: Callable[[object], P], check: Callable[[P, str], Verdict]) -> None:
        self._from_gold, self._check = from_gold, check

    def read_gold(self, gold: JsonValue, fields: Fields) -> P:
        return self._from_gold(gold)

    async def mark(self, section: str, gold: P) -> Score:
        verdict = self._check(gold, last_boxed(section) or section)
        if not verdict.expression:
            return no_answer(verdict.reason)
        return scored(float(verdict.correct), verdict.expression, verdict.reason)


class CountdownScorer(TaskScorer[countdown.CountdownProblem]):
    """Any expression that reaches the target is right. Two are equivalent if they have the same value and use the same
    numbers."""

    def __init__(self) -> None:
        super().__init__(countdown.from_gold, countdown.check)

    def key(self, extracted: str) -> Hashable:
        left = extracted.partition("=")[0]
        value = exact_value(left)
        return extracted if value is None else (value, tuple(sorted(map(int, re.findall(r"\d+", left)))))


class ChainScorer(TaskScorer[chain.ChainProblem]):
    """The final value is right."""

    def __init__(self) -> None:
        super().__init__(chain.from_gold, chain.check)


class SumsScorer(TaskScorer[sums.SumsProblem]):
    """The total is right."""

    def __init__(self) -> None:
        super().__init__(sums.from_gold, sums.check)
