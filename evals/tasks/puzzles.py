"""The checker of the built-in model's answers (entry point `puzzles` of `rsa.checkers`; see `rsa.answers.checking`)."""

from __future__ import annotations

from evals.tasks.readers import read_puzzle
from evals.tasks.registry import TASKS
from rsa.results import Check


def check(problem: str, answer: str) -> Check:
    """Whether `answer` solves the puzzle that the text `problem` puts: exactly, or `unchecked`. Never raises."""
    puzzle = read_puzzle(problem)
    if puzzle is None:
        return Check(mark="unchecked", reason="the problem is not read as one of the puzzles that can be checked")
    task = next(task for task in TASKS.values() if isinstance(puzzle, task.kind))
    verdict = task.check(puzzle, answer)
    return Check(mark="verified" if verdict else "wrong", reason=verdict.reason)
