"""Benchmarks made from a seed: the test split of the synthetic tasks, which no model of this project was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from evals.data.declared import Declared, Numbers
from evals.data.question import Question
from evals.errors import BenchmarkError, DataError
from evals.tasks.registry import TASKS
from evals.tasks.task import Puzzle, Task

Phrasings = Literal["seen", "unseen", "all"]
MOST_PROBLEMS = 10**6
"""The most problems of a seed: those that were made are kept in mind, since all are different."""
MAX_DRAWS = 1000
"""Draws in vain for one problem that did not occur before: then there are hardly any others with these options."""


class Generate(Declared):
    """Which problems are made. The i-th depends on the options, the seed and i alone, so that more of them only
    extend a shorter list; all are different.

    task       its name in `evals.tasks.registry`.
    count      how many there are; `--limit` may ask for more.
    sizes      countdown: how many numbers (3 to 6); one of those given, drawn anew for each problem. By default the
               task's own mix.
    lengths    chain: how many operations (1 to 1,000); sums: how many terms (2 to 40); likewise.
    phrasings  wordings that nano was trained on (`seen`), others (`unseen`), or both.
    """

    task: str
    count: int = Field(500, ge=1, le=MOST_PROBLEMS)
    sizes: Numbers = ()
    lengths: Numbers = ()
    phrasings: Phrasings = "seen"

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.task not in TASKS:
            raise BenchmarkError(f"task: no task is called {self.task!r}; there are {', '.join(TASKS)}")
        task = TASKS[self.task]
        for option, sizes in (("sizes", self.sizes), ("lengths", self.lengths)):
            if sizes and option != task.option:
                raise BenchmarkError(f"{option}: no option of {self.task}")
            for size in sizes:
                if not task.smallest <= size <= task.largest:
                    raise BenchmarkError(f"{option}: {size} should be {task.smallest} to {task.largest}")
        return self

    def as_recorded(self) -> dict[str, str | list[int]]:
        """What decides the problems, besides the seed: for the record of a run."""
        sizes = {"sizes": self.sizes, "lengths": self.lengths}
        return {"phrasings": self.phrasings, **{name: list(given) for name, given in sizes.items() if given}}


def question_id(name: str, seed: int, index: int) -> str:
    """Of the problem at `index` (from 0), e.g. `countdown-0-0042`."""
    return f"{name}-{seed}-{index:04d}"


def generated_questions(name: str, options: Generate, seed: int, count: int) -> Iterator[Question]:
    """The first `count` problems of the seed, all of the test split.

    Raises DataError if the options do not allow that many different ones.
    """
    task = TASKS[options.task]
    wordings = [
        index
        for index, (_, seen) in enumerate(task.phrasings)
        if options.phrasings == "all" or seen == (options.phrasings == "seen")
    ]
    sizes, known = options.sizes or options.lengths, set[str]()
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
            gold=task.to_gold(problem),
            fields={task.option[:-1]: task.size_of(problem), "wording": wording},
        )


def _new_problem(task: Task[Any], key: str, sizes: Sequence[int], known: set[str]) -> tuple[Any, Random]:
    """A problem that is not among `known`, to which it is added, and the generator that drew it; None in vain."""
    rng = Random(key)  # a string seeds alike on every machine and Python version
    for _ in range(MAX_DRAWS):
        problem: Puzzle = task.generate(rng, "test", rng.choice(sizes) if sizes else None)
        if problem.key not in known:
            known.add(problem.key)
            return problem, rng
    return None, rng
