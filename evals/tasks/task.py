"""What a generated task is: puzzles drawn from a seed, put in words, and checked exactly."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from evals.tasks.splits import Split
from evals.tasks.verdict import Verdict


class Puzzle(Protocol):
    """A problem of a task."""

    @property
    def key(self) -> str:
        """Canonical form: two problems with one key are the same."""


P = TypeVar("P", bound=Puzzle)


@dataclass(frozen=True, slots=True)
class Task(Generic[P]):
    """One task. Its module defines it, and evals.tasks.registry lists it.

    kind       class of its problems.
    option     what a benchmark's file calls their size: `sizes` or `lengths`; `smallest` to `largest` are possible.
    phrasings  the wordings of a problem: (template, used in training).
    generate   draws a problem of a split and a size; without a size, of the task's own mix.
    phrase     the problem in the words of `phrasings[index]`.
    size_of    how large a problem is.
    to_gold    the problem as a gold answer, which `from_gold` reads back; that raises GoldError.
    check      whether a text answers the problem. Never raises.
    answer_key equal for equivalent answers, as `check` read them.
    """

    kind: type[P]
    option: str
    smallest: int
    largest: int
    phrasings: Sequence[tuple[str, bool]]
    generate: Callable[[Random, Split, int | None], P]
    phrase: Callable[[P, int], str]
    size_of: Callable[[P], int]
    to_gold: Callable[[P], dict[str, Any]]
    from_gold: Callable[[object], P]
    check: Callable[[P, str], Verdict]
    answer_key: Callable[[str], Hashable] = str
