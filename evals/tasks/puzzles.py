"""The checker of the built-in model's answers (entry point `puzzles` of `rsa.checkers`; see `rsa.answers.checking`)."""

from __future__ import annotations

from evals.tasks import chain, countdown, sums
from evals.tasks.chain import ChainProblem
from evals.tasks.countdown import CountdownProblem
from evals.tasks.readers import Puzzle, read_puzzle
from evals.tasks.verdict import Verdict
from rsa.results import Check


def check(problem: str, answer: str) -> Check:
    """Whether `answer` solves the puzzle that the text `problem` puts: exactly, or `unchecked`. Never raises."""
    puzzle = read_puzzle(problem)
    if puzzle is None:
        return Check(mark="unchecked", reason="the problem is not read as one of the puzzles that can be checked")
    verdict = _verdict(puzzle, answer)
    return Check(mark="verified" if verdict else "wrong", reason=verdict.reason)


def _verdict(puzzle: Puzzle, answer: str) -> Verdict:
    match puzzle:
        case CountdownProblem():
            return countdown.check(puzzle, answer)
        case ChainProblem():
            return chain.check(puzzle, answer)
        case _:
            return sums.check(puzzle, answer)
