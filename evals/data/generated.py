"""Benchmarks made from a seed: the test split of the synthetic tasks, which no model of this project was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Protocol, Self

from pydantic import Field, JsonValue, model_validator

from evals.data.declared import Declared, Numbers
from evals.data.question import Question
from evals.errors import BenchmarkError, DataError
from evals.tasks import chain, countdown, sums

Phrasings = Literal["seen", "unseen", "all"]
MAX_DRAWS = 1000
"""Draws in vain for one problem that did not occur before: then there are hardly any others with these options."""
MAX_LENGTH = 1000
"""The longest chain: no two neighbouring operations occur twice, and there are 2,304 pairs of operations."""


class Generate(Declared):
    """Which problems are made. The i-th depends on the options, the seed and i alone, so that more of them only
    extend a shorter list; all are different.

    task       `countdown`, `chain` or `sums`.
    count      how many there are; `--limit` may ask for more.
    sizes      countdown: how many numbers (3 to 6); one of those given, drawn anew for each problem. By default the
               task's own mix.
    lengths    chain: how many operations (1 to 1,000); sums: how many terms (2 to 40); likewise.
    phrasings  wordings that nano was trained on (`seen`), others (`unseen`), or both.
    """

    task: Literal["countdown", "chain", "sums"]
    count: int = Field(500, ge=1)
    sizes: Numbers = ()
    lengths: Numbers = ()
    phrasings: Phrasings = "seen"

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        other = "lengths" if self.task == "countdown" else "sizes"
        if getattr(self, other):
            raise BenchmarkError(f"{other}: no option of {self.task}")
        for size in self.sizes:
            if not countdown.MIN_SIZE <= size <= countdown.MAX_SIZE:
                raise BenchmarkError(f"sizes: {size} should be {countdown.MIN_SIZE} to {countdown.MAX_SIZE}")
        least, most = (sums.MIN_TERMS, sums.MAX_TERMS) if self.task == "sums" else (1, MAX_LENGTH)
        for length in self.lengths:
            if not least <= length <= most:
                raise BenchmarkError(f"lengths: {length} should be {least} to {most}")
        return self

    def as_recorded(self) -> dict[str, str | list[int]]:
        """What decides the problems, besides the seed: for the record of a run."""
        sizes = {"sizes": self.sizes, "lengths": self.lengths}
        return {"phrasings": self.phrasings, **{name: list(given) for name, given in sizes.items() if given}}


class _Problem(Protocol):
    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class _Task:
    """What generation needs to know of a task: how to draw a problem of a size, word it, and write it as gold."""

    phrasings: Sequence[tuple[str, bool]]
    sizes: Callable[[Generate], Sequence[int]]
    draw: Callable[[Random, int | None], Any]
    phrase: Callable[[Any, int], str]
    gold: Callable[[Any], JsonValue]
    fields: Callable[[Any], dict[str, JsonValue]]


_TASKS: dict[str, _Task] = {
    "countdown": _Task(
        phrasings=countdown.PHRASINGS,
        sizes=lambda options: options.sizes,
        draw=lambda rng, size: countdown.generate(rng, "test", size),
        phrase=countdown.phrase,
        gold=countdown.to_gold,
        fields=lambda problem: {"size": len(problem.numbers)},
    ),
    "chain": _Task(
        phrasings=chain.PHRASINGS,
        sizes=lambda options: options.lengths,
        draw=lambda rng, length: chain.generate(rng, "test", length),
        phrase=chain.phrase,
        gold=chain.to_gold,
        fields=lambda problem: {"length": len(problem.ops)},
    ),
    "sums": _Task(
        phrasings=sums.PHRASINGS,
        sizes=lambda options: options.lengths,
        draw=lambda rng, length: sums.generate(rng, "test", length),
        phrase=sums.phrase,
        gold=sums.to_gold,
        fields=lambda problem: {"length": len(problem.terms)},
    ),
}


def question_id(name: str, seed: int, index: int) -> str:
    """Of the problem at `index` (from 0), e.g. `countdown-0-0042`."""
    return f"{name}-{seed}-{index:04d}"


def generated_questions(name: str, options: Generate, seed: int, count: int) -> Iterator[Question]:
    """The first `count` problems of the seed, all of the test split.

    Raises DataError if the options do not allow that many different ones.
    """
    task = _TASKS[options.task]
    wordings = [
        index
        for index, (_, seen) in enumerate(task.phrasings)
        if options.phrasings == "all" or seen == (options.phrasings == "seen")
    ]
    sizes, known = task.sizes(options), set[str]()
    for index in range(count):
        problem, rng = _new_problem(task, f"{options.task}:{seed}:{index}", sizes, known)
        if problem is None:
            raise DataError(
                f"benchmark {name}: its options allow hardly more than {index} different problems; "
                f"{count} were asked for"
            )
        wording = rng.choice(wordings)
        yield Question(
            id=question_id(name, seed, index),
            problem=task.phrase(problem, wording),
            gold=task.gold(problem),
            fields={**task.fields(problem), "wording": wording},
        )


def _new_problem(task: _Task, key: str, sizes: Sequence[int], known: set[str]) -> tuple[Any, Random]:
    """A problem that is not among `known`, to which it is added, and the generator that drew it; None in vain."""
    rng = Random(key)  # a string seeds alike on every machine and Python version
    for _ in range(MAX_DRAWS):
        problem: _Problem = task.draw(rng, rng.choice(sizes) if sizes else None)
        if problem.key not in known:
            known.add(problem.key)
            return problem, rng
    return None, rng
