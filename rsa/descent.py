"""How an answer came about, for people to read: the reasoning of the candidate that gave it, and of its ancestors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rsa.policies import registry, selecting
from rsa.results import Candidate, RunResult


def line_of_descent(result: RunResult) -> list[Candidate]:
    """Candidates from round 0 to the one whose answer was taken; empty if there is no answer.

    Of a candidate's up to C parents the first is followed that gave the same answer, else that wrote it, else that gave
    no other. Who wrote nothing, or only the end of what the one before wrote, is left out.
    """
    line: list[Candidate] = []
    for candidate in reversed(list(_upwards(result))):
        written = reasoning(candidate)
        if written and not (line and reasoning(line[-1]).endswith(written)):
            line.append(candidate)
    return line


def reasoning(candidate: Candidate) -> str:
    """What it wrote before its answer, or, without that, its answer section."""
    completion = candidate.completion
    return (completion.reasoning.strip() or completion.text.strip()) if completion is not None else ""


def _upwards(result: RunResult) -> Iterator[Candidate]:
    """The candidate that the answer is from, a parent of it, and so on."""
    policy = registry.select_policy(result.config.select)
    choice = selecting.choose(selecting.Played.of(result), policy)
    if choice is None:
        return
    candidate, answer = choice.candidate, str(choice.candidate.answer)
    yield candidate
    while candidate.parents:
        before = [result.rounds[candidate.round - 1].candidates[parent] for parent in candidate.parents]
        candidate = max(before, key=lambda parent: _agreement(parent, answer))  # of equals the first
        yield candidate


def _agreement(candidate: Candidate, answer: str) -> int:
    if candidate.answer is not None:
        return 2 if candidate.answer == answer else -1
    return int(re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", reasoning(candidate)) is not None)
