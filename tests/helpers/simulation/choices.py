"""The numbers that decide a story: drawn from a seed or given; made fewer and smaller while the story still breaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
MOST_TRIES = 1000
"""Stories that shrinking plays at most; a story takes milliseconds."""


class Choices:
    """Every choice of a story is one small number, and 0 is the plainest: nothing happens, a default is taken.

    given  the numbers, in order; 0 after their end. Without them they are drawn from `seed`.
    made   those that were asked for so far: given again, they tell the same story.
    """

    def __init__(self, given: Sequence[int] | None = None, *, seed: int | str = 0) -> None:
        self.made: list[int] = []
        self._given = None if given is None else iter(given)
        self._draw = random.Random(seed)

    def pick(self, options: int) -> int:
        """A number from 0 to `options - 1`; where there is no choice, none is made."""
        if options <= 1:
            return 0
        value = self._draw.randrange(options) if self._given is None else next(self._given, 0) % options
        self.made.append(value)
        return value

    def of(self, options: Sequence[T]) -> T:
        """One of the options, the plainest first."""
        return options[self.pick(len(options))]

    def one_in(self, options: int) -> bool:
        """True in one of so many cases."""
        return self.pick(options) == options - 1


def shortest(numbers: Sequence[int], breaks: Callable[[Sequence[int]], bool]) -> list[int]:
    """A story with fewer and smaller numbers that `breaks` as well: none can be left out, halved or lowered by one any
    more, unless `MOST_TRIES` came first."""
    best, tries, going = _trimmed(numbers), 0, True
    while going:
        going = False
        for candidate in _simpler(best):
            tries += 1
            if tries > MOST_TRIES:
                return best
            if breaks(candidate):
                best, going = _trimmed(candidate), True
                break
    return best


def _trimmed(numbers: Sequence[int]) -> list[int]:
    """Without zeros at the end, which say nothing."""
    last = max((at for at, number in enumerate(numbers) if number), default=-1)
    return list(numbers[: last + 1])


def _simpler(numbers: list[int]) -> Iterator[list[int]]:
    """Stories that are a little simpler, those that leave out most first."""
    size = len(numbers)
    while size:
        for start in range(len(numbers) - size, -1, -1):
            yield numbers[:start] + numbers[start + size :]
            if any(numbers[start : start + size]):
                yield numbers[:start] + [0] * size + numbers[start + size :]
        size //= 2
    for at, number in enumerate(numbers):
        for lower in sorted({number // 2, number - 1} - {number, 0, -1}):
            yield [*numbers[:at], lower, *numbers[at + 1 :]]
