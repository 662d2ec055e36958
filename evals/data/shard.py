"""A part of an evaluation that runs by itself: every n-th problem, so that n machines share the work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from evals.errors import DataError
from rsa.words import as_given

T = TypeVar("T")
_FORM = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `index` (counted from 1) of `of`: of the list of problems it has those at index, index + of, ...

    What it has depends on the places in the list alone: not on seeds, settings, clocks or machines.
    """

    index: int
    of: int

    @classmethod
    def read(cls, text: str) -> Self:
        """A shard from its form `2/4`. Raises DataError for what is none."""
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise DataError(f"`shard` {as_given(text)}: should be like 2/4, the second of four")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def holds(self, place: int) -> bool:
        """Whether the problem at a place of the list, counted from 0, belongs to this shard."""
        return place % self.of == self.index - 1

    def part(self, problems: Sequence[T]) -> Sequence[T]:
        """The part of a list that belongs to this shard. Raises DataError if not every shard has a problem."""
        self.check(len(problems))
        return problems[self.index - 1 :: self.of]

    def check(self, problems: int) -> None:
        """Raises DataError if there are fewer problems than shards."""
        if problems < self.of:
            raise DataError(f"`shard` {self}: there are only {problems} problems, make as many shards at most")


def interleaved(parts: Sequence[Sequence[T]]) -> list[T]:
    """The list that all its shards together came from, in order; `parts[i]` is that of shard i + 1.

    Raises ValueError if they are not the parts of one list.
    """
    total = sum(map(len, parts))
    if any(len(part) != len(range(place, total, len(parts))) for place, part in enumerate(parts)):
        raise ValueError(f"no list has parts of {', '.join(str(len(part)) for part in parts)}")
    return [parts[place % len(parts)][place // len(parts)] for place in range(total)]
