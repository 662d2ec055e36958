"""From a text to the puzzle it puts, where it is one of the three generated tasks in words that are known.

Readers are closed: a text with one word, number or sign that they do not know is read as nothing. What a text may mean
besides is never guessed, so that a checker never judges an answer to another question.
"""

from __future__ import annotations

import re
from functools import lru_cache

from evals.tasks.chain import ChainProblem
from evals.tasks.countdown import CountdownProblem
from evals.tasks.readers.chain import read_chain
from evals.tasks.readers.countdown import read_countdown
from evals.tasks.readers.sums import read_sums
from evals.tasks.sums import SumsProblem

MAX_TEXT = 20_000
"""The longest text read, in characters: a chain of a thousand steps has about 16,000."""
Puzzle = CountdownProblem | ChainProblem | SumsProblem


@lru_cache(maxsize=512)  # every candidate of a run asks about the same text
def read_puzzle(text: str) -> Puzzle | None:
    """The puzzle in `text`; None if it is none of the three, or could be two of them. Linear in the text."""
    if len(text) > MAX_TEXT:
        return None
    tidy = tidied(text)
    found = [puzzle for read in (read_countdown, read_chain, read_sums) if (puzzle := read(tidy)) is not None]
    return found[0] if len(found) == 1 else None


def tidied(text: str) -> str:
    """White space in single spaces and line breaks: patterns with several places for it stay linear."""
    return re.sub(r" ?\n[ \n]*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()
