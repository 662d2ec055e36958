"""The runs of an evaluation that has a budget of its own, handed out in laps: see `evals.allotment`.

Between two rounds nothing is in memory of a run but its headway, and the text of its problem: images are read again
from its folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import anyio
import anyio.to_thread

from engine.api import ImagePart
from evals.allotment import Allotment
from evals.budget import SetBudget
from evals.data.question import Question
from evals.errors import ResultsError
from evals.events import LapStarted
from evals.folder import ResultsFolder
from evals.queue import checked
from evals.scorers.protocol import Scorer
from evals.stints import Outcome, Stint
from rsa.limits import FREE, Hit, Leave
from rsa.news import News
from rsa.run_record import IMAGES


class Laps:
    """Problems times epochs, round by round as far as the budget reaches; what it does not reach is ended where it
    stands: see `evals.queue.Supply`.

    tell  is told of each lap.
    """

    def __init__(
        self,
        questions: Iterable[Question],
        folder: ResultsFolder,
        budget: SetBudget,
        scorer: Scorer,
        tell: Callable[[LapStarted], None],
    ) -> None:
        self.runs: list[tuple[str, int]] = []
        self._folder = folder
        self._epochs = folder.record.epochs
        self._budget = budget
        self._tell = tell
        self._allotment = Allotment(budget, folder.record.config)
        self._texts: list[tuple[Question, tuple[str, ...]]] = []  # of each problem, and the names of its images
        self._round = 0
        self._lap = self._from_data(checked(questions, scorer))
        self._next: Stint | None = None  # of the lap, where it is not known yet whether the budget reaches it
        self._returned: deque[Stint] = deque()
        self._taken = 0
        self._ending = False
        self._spent: Hit | None = None
        self._lock = anyio.Lock()
        self._news = News()

    async def next(self) -> Stint | None:
        while True:
            async with self._lock:
                stint = self._returned.popleft() if self._returned else await self._draw()
                self._taken += stint is not None
            if stint is not None:
                return self._with_leave(stint)
            if not self._taken:
                return None
            await self._news.wait()

    def done(self, stint: Stint, outcome: Outcome) -> None:
        self._allotment.tell(stint.number, outcome.headway)
        self._allotment.count(stint.number)
        self._taken -= 1
        self._news.tell()

    def put_back(self, stint: Stint) -> None:
        self._returned.append(stint)
        self._taken -= 1
        self._news.tell()

    async def _draw(self) -> Stint | None:
        """The next stint; None if there is none, or what is taken must be done before it is known."""
        if not self.runs:
            self._announce(self._folder.record.data.selected * self._epochs)
        while True:
            if not self._ending and self._in_time().no_time:
                if self._taken:
                    return None
                self._end()
            stint = await self._peek()
            if self._ending or (stint is not None and self._allotment.suffices(self._taken)):
                self._next = None
                return stint
            if self._taken:
                return None
            if stint is None:
                self._begin_lap()
            else:
                self._spent = Hit("set_tokens", self._allotment.spent, self._budget.total_tokens or 0)
                self._end()

    async def _peek(self) -> Stint | None:
        """The next stint of the lap. Of one that was resumed, what is known of its round already is counted."""
        while self._next is None:
            # In a thread: it may come from a file or the network.
            stint = self._next = await anyio.to_thread.run_sync(next, self._lap, None)
            if stint is None or self._ending:
                break
            if self._allotment.knows(stint.number):
                self._allotment.count(stint.number)
                self._next = None
        return self._next

    def _begin_lap(self) -> None:
        self._round += 1
        runs = self._allotment.lap()
        self._lap = self._again(runs)
        self._ending = not runs
        if runs:
            self._announce(len(runs))

    def _end(self) -> None:
        """The last lap ends all runs that are not at their end."""
        waiting, self._next = self._next, None
        rest = [] if self._round else [self._lap] if waiting is None else [iter((waiting,)), self._lap]
        begun = [run for run in self._allotment.open() if self._round or waiting is None or run != waiting.number]
        self._lap = chain(self._again(begun), *rest)
        self._ending = True

    def _announce(self, runs: int) -> None:
        self._tell(LapStarted(self._round, runs, self._allotment.left))

    # ---- where stints come from

    def _from_data(self, questions: Iterator[Question]) -> Iterator[Stint]:
        """Of the first lap, in order of the data."""
        for question in questions:
            self.runs.extend((question.id, epoch) for epoch in range(self._epochs))
            text = question.model_copy(update={"images": ()})
            self._texts.append((text, tuple(image.sha256 for image in question.images)))
            for epoch in range(self._epochs):
                yield Stint(self._allotment.add(), question, epoch)

    def _again(self, runs: Sequence[int]) -> Iterator[Stint]:
        """Of runs that have begun."""
        for run in runs:
            (text, names), epoch = self._texts[run // self._epochs], run % self._epochs
            folder = self._folder.run_folder(text.id, epoch) / IMAGES
            try:
                images = tuple(ImagePart(data=(folder / name).read_bytes()) for name in names)
            except OSError as error:
                raise ResultsError(f"cannot read an image of the run: {error.filename}: {error.strerror}") from None
            yield Stint(run, text.model_copy(update={"images": images}), epoch)

    # ---- how far they may go

    def _with_leave(self, stint: Stint) -> Stint:
        given, leave = self._allotment.rounds(stint.number), self._in_time()
        if not self._ending:
            return replace(stint, leave=replace(leave, rounds=given + 1))
        if not given and not self._folder.has_begun(stint.question.id, stint.epoch):
            return replace(stint, unbegun=self._why_unbegun())
        return replace(stint, leave=leave if self._spent is None else replace(leave, rounds=given, over=self._spent))

    def _in_time(self) -> Leave:
        """Leave until the deadline."""
        allowed_s = self._budget.deadline_s
        return FREE if allowed_s is None else Leave(left_s=allowed_s - self._folder.elapsed_s(), allowed_s=allowed_s)

    def _why_unbegun(self) -> str:
        tokens, seconds = self._budget.total_tokens, self._budget.deadline_s
        given = f"{seconds:g} s" if self._spent is None else f"{tokens:,} tokens"
        return f"it was not begun: the budget of the whole evaluation, {given}, did not reach it"
