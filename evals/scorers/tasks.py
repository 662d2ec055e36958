"""The generated tasks: their own exact checkers decide. Gold is the problem itself."""

from __future__ import annotations

from collections.abc import Hashable

from pydantic import JsonValue

from evals.scorers.base import BaseScorer, Fields, no_answer, scored
from evals.scorers.protocol import Score
from evals.tasks.task import P, Task
from rsa.answers.extract import last_boxed


class TaskScorer(BaseScorer[P]):
    """Asks a task's checker. The answer is the last box, else the whole section; what cannot be read is none."""

    def __init__(self, task: Task[P]) -> None:
        self._task = task

    def read_gold(self, gold: JsonValue, fields: Fields) -> P:
        return self._task.from_gold(gold)

    async def mark(self, section: str, gold: P) -> Score:
        verdict = self._task.check(gold, last_boxed(section) or section)
        if not verdict.expression:
            return no_answer(verdict.reason)
        return scored(float(verdict.correct), verdict.expression, verdict.reason)

    def key(self, extracted: str) -> Hashable:
        return self._task.answer_key(extracted)
