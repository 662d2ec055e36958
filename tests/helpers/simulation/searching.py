"""Stories told and judged; of one that breaks a rule, the shortest that does, in words."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simulation.choices import Choices, shortest
from simulation.clock import Backend
from simulation.invariants import BrokenError, check
from simulation.play import Story, play

MEMORY = Path("/dev/shm")
"""Where run folders cost nothing, on Linux."""


def judged(choices: Choices, backend: Backend = "asyncio") -> tuple[Story | None, BrokenError | None]:
    """A story, and the rule that it breaks if it breaks one; no story if it could not be told to its end."""
    with _folder() as folder:
        try:
            story = play(choices, folder, backend)
        except (Exception, BaseExceptionGroup) as error:
            return None, BrokenError("nothing_unforeseen_is_raised", _in_words(error))
        try:
            check(story)
        except BrokenError as broken:
            return story, broken
        return story, None


def complaint(broken: BrokenError, numbers: Sequence[int], backend: Backend = "asyncio") -> str:
    """What is wrong, in the shortest story that breaks the same rule, and how to see it again."""

    def breaks(numbers: Sequence[int]) -> bool:
        found = judged(Choices(numbers), backend)[1]
        return found is not None and found.rule == broken.rule

    short = shortest(numbers, breaks)
    choices = Choices(short)
    story, found = judged(choices, backend)
    words = ",".join(map(str, short))
    lines = in_words(story) if story is not None else ["the story could not be told to its end"]
    return "\n".join(
        [str(found or broken), *lines, f"python benchmarks/simulate.py --backend {backend} --story {words}"]
    )


def in_words(story: Story) -> list[str]:
    """The world of a story, and what happens in it, a line each."""
    settings = ", ".join(f"{name} {value}" for name, value in story.world.settings.items())
    model = ", ".join(f"{name} {value}" for name, value in story.world.model.items())
    return [settings, model, *(" ".join(map(str, told)).strip() for told in story.stage.told)]


def _in_words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
