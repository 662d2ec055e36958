"""Verify an answer to a Countdown problem: `rsa solve FILE | python examples/check_countdown.py FILE`.

Reads the problem as text from FILE and the answer from standard input. Prints `verified: ...` and exits 0, or says
why not and exits 1; 2 when the problem cannot be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from any folder of a checkout

from evals.tasks.countdown import CountdownProblem, check
from evals.tasks.readers import read_puzzle


def read_problem(text: str) -> CountdownProblem:
    """The numbers and the target named in the text. ValueError when it is no Countdown in known words."""
    problem = read_puzzle(text)
    if not isinstance(problem, CountdownProblem):
        raise ValueError("it should be like `Make 24 from 3, 7, 5 and 2.`")
    return problem


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(f"usage: {Path(__file__).name} FILE < ANSWER", file=sys.stderr)
        return 2
    try:
        problem = read_problem(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"cannot read the problem in {arguments[0]}: {error}", file=sys.stderr)
        return 2
    verdict = check(problem, sys.stdin.read().strip())
    print(f"verified: {verdict.reason}" if verdict else f"not verified: {verdict.reason}")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
