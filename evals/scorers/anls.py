"""ANLS: average normalised Levenshtein similarity, the metric of DocVQA."""

from __future__ import annotations

from pydantic import JsonValue

from evals.errors import BenchmarkError
from evals.scorers.base import BaseScorer, Fields, gold_texts, no_answer, scored, short_answer
from evals.scorers.edit_distance import similarity
from evals.scorers.protocol import Score

MAX_CHARACTERS = 10_000
"""The longest answer compared, in characters: a longer one resembles nothing that could be asked for."""


class AnlsScorer(BaseScorer[list[str]]):
    """1 - the least, over all golds, of distance / length of the longer text; 0 if that is below `threshold`.

    Both in small letters, with single spaces. A similarity of exactly the threshold counts, as in the harnesses in
    use; Biten et al. (arXiv 1905.13648) would make it 0. The answer is the last box, else the whole section.
    """

    def __init__(self, *, threshold: float = 0.5) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise BenchmarkError(f"metric anls: threshold should be a number from 0 to 1, not {threshold!r}")
        self.threshold = float(threshold)

    def read_gold(self, gold: JsonValue, fields: Fields) -> list[str]:
        return [self.key(text) for text in gold_texts(gold)]

    async def mark(self, section: str, gold: list[str]) -> Score:
        answer = short_answer(section)
        if answer is None:
            return no_answer("there is no text")
        if len(answer) > MAX_CHARACTERS:
            return scored(0.0, answer, f"longer than {MAX_CHARACTERS:,} characters")
        read = self.key(answer)
        return scored(max(similarity(read, text, self.threshold) for text in gold), answer)

    def key(self, extracted: str) -> str:
        """Small letters, single spaces."""
        return " ".join(extracted.lower().split())
