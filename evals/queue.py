"""The runs of an evaluation, handed out in order of the data to those who work on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Protocol

import anyio
import anyio.to_thread

from evals.data.question import Question
from evals.errors import DataError, GoldError
from evals.scorers.protocol import Scorer
from evals.stints import Outcome, Stint
from rsa.news import News
from rsa.words import in_one_line


class Supply(Protocol):
    """Who says what is worked on next. `runs`: problem_id and epoch of those read so far, in order of the data."""

    runs: list[tuple[str, int]]

    async def next(self) -> Stint | None:
        """The next stint; who took it says when it is `done`, or gives it back. None when all are done: until then it
        waits.

        Raises DataError for an id that came before, and if there are no problems at all; GoldError if already the
        first gold answer is no good: then the metric is the wrong one, and there is no point in going on.
        """

    def done(self, stint: Stint, outcome: Outcome) -> None:
        """A stint that was taken is done."""

    def put_back(self, stint: Stint) -> None:
        """A stint that was taken is to be the next one."""


class Queue:
    """Problems times epochs in order of the data, each to its end: see `Supply`. They are read as they are wanted."""

    def __init__(self, questions: Iterable[Question], epochs: int, scorer: Scorer) -> None:
        self.runs: list[tuple[str, int]] = []
        self._questions = checked(questions, scorer)
        self._epochs = epochs
        self._numbers = count()
        self._waiting: deque[Stint] = deque()
        self._ended = False
        self._taken = 0
        self._lock = anyio.Lock()
        self._news = News()

    async def next(self) -> Stint | None:
        while True:
            async with self._lock:
                if not self._waiting and not self._ended:
                    # In a thread: the next problem may come from a file or the network.
                    self._read(await anyio.to_thread.run_sync(next, self._questions, None))
            if self._waiting:
                self._taken += 1
                return self._waiting.popleft()
            if self._ended and not self._taken:
                return None
            if self._ended:
                await self._news.wait()

    def done(self, stint: Stint, outcome: Outcome) -> None:
        self._taken -= 1
        self._news.tell()

    def put_back(self, stint: Stint) -> None:
        self._waiting.appendleft(stint)
        self._taken -= 1
        self._news.tell()

    def _read(self, question: Question | None) -> None:
        if question is None:
            self._ended = True
            return
        self._waiting.extend(Stint(next(self._numbers), question, epoch) for epoch in range(self._epochs))
        self.runs.extend((question.id, epoch) for epoch in range(self._epochs))


def checked(questions: Iterable[Question], scorer: Scorer) -> Iterator[Question]:
    """The questions as they come. Raises as `Supply.next`."""
    ids: set[str] = set()
    for question in questions:
        if not ids:
            check_gold(scorer, question)
        if question.id in ids:
            raise DataError(f"two problems have the id {question.id!r}: give each its own")
        ids.add(question.id)
        yield question
    if not ids:
        raise DataError("there are no problems to evaluate")


def check_gold(scorer: Scorer, question: Question) -> None:
    """Raises GoldError, naming the problem, if its gold answer is not what the metric needs."""
    try:
        scorer.check(question.gold, question.fields)
    except GoldError as error:
        raise GoldError(in_one_line(f"problem {question.id!r}: {error}")) from None
