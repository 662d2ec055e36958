"""A run's events for any number of followers, each at its own pace: live from memory, afterwards from the run's log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio
import anyio.lowlevel
import anyio.to_thread

from rsa.events import CandidateFinished, CandidateProgress, Event, EventKey, RunFinished, RunStarted
from rsa.news import News
from rsa.runlog import RESULT, read_events, read_result

_CHANGEABLE = ("candidate_finished", "round_finished")
"""Events of which a resumed run may tell another one of the same key: those of a round that had failed as a whole."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event and its place in the run's log, from 1; None for progress, which is not logged."""

    event: Event
    number: int | None


class Story:
    """What a run has told so far. `tell` and `end` are for the run; a run that ended is read from its folder again.

    before  of a run that goes on: what its log holds, which was told already.
    """

    def __init__(self, before: Sequence[Event] = ()) -> None:
        self._events: list[Event] = []
        self._seen: dict[EventKey, Event] = {}
        self._progress: dict[EventKey, tuple[int, CandidateProgress]] = {}
        self._stamp = 0
        self._news = News()
        self._begun = anyio.Event()
        self._folder: Path | None = None
        self._last = 0
        for event in before:
            self._add(event)

    @classmethod
    def told(cls, folder: Path) -> Self:
        """Of a run that has ended."""
        story = cls()
        story.end(folder)
        return story

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    async def begun(self) -> None:
        """Wait for the run's first event, or its end."""
        await self._begun.wait()

    async def over(self) -> None:
        """Wait for the run's end."""
        while self._folder is None:
            await self._news.wait()

    def tell(self, event: Event) -> bool:
        """The next event of the run; whether it is new. What a resumed run repeats from its log is not told again."""
        new = True
        if isinstance(event, CandidateProgress):
            self._stamp += 1
            self._progress[event.key] = (self._stamp, event)
        elif new := not self._repeats(event):
            self._add(event)
        if isinstance(event, CandidateFinished):
            self._progress.pop(("candidate_progress", *event.key[1:]), None)
        if isinstance(event, RunStarted):
            self._begun.set()
        self._news.tell()
        return new

    def end(self, folder: Path) -> None:
        """The run has ended, and its folder holds all of this."""
        self._folder = folder
        self._begun.set()
        self._news.tell()

    async def follow(self, after: int) -> AsyncIterator[Numbered]:
        """Events with a number above `after`, and progress as it comes; ends with the run. Raises RunFolderError."""
        stamp = 0
        while self._folder is None:
            news = self._news.next
            await anyio.lowlevel.checkpoint_if_cancelled()  # where events come fast, a wait would not notice it
            for number, event in self._since(after):
                after = number
                yield Numbered(event, number)
            fresh = [(mark, event) for mark, event in self._progress.values() if mark > stamp]
            for mark, event in sorted(fresh, key=lambda each: each[0]):
                stamp = max(stamp, mark)
                yield Numbered(event, None)
            await news.wait()
        for number, event in self._since(after) if self._events else await self._read(after):
            yield Numbered(event, number)

    def _since(self, after: int) -> Iterator[tuple[int, Event]]:
        """A copy: events may be added while a follower has one."""
        after = max(after, 0)
        return iter([*enumerate(self._events[after:], after + 1)])

    async def _read(self, after: int) -> list[tuple[int, Event]]:
        assert self._folder is not None
        return await anyio.to_thread.run_sync(_logged, self._folder, max(after, 0))

    def _repeats(self, event: Event) -> bool:
        told = self._seen.get(event.key)
        if told is None or event.type not in _CHANGEABLE:
            return told is not None
        return told.model_copy(update={"at_s": 0.0}) == event.model_copy(update={"at_s": 0.0})

    def _add(self, event: Event) -> None:
        if isinstance(event, CandidateFinished):  # of a round that ended before as a whole: it ends anew
            self._seen.pop(("round_finished", event.kind, event.candidate.round), None)
        self._seen[event.key] = event
        self._events.append(event)
        self._last = len(self._events)


def _logged(folder: Path, after: int) -> list[tuple[int, Event]]:
    events: list[Event] = read_events(folder)
    if (folder / RESULT).is_file():
        result = read_result(folder)
        events.append(RunFinished(at_s=result.timings.wall_s, result=result))
    return [*enumerate(events[after:], after + 1)]
