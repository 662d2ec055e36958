"""One budget for all runs of an evaluation: which of them play another round, decided by their rounds alone.

Runs are played in laps, of a round each. A lap is of the runs that are not at their end, those first whose candidates
agree least. In this order each plays its round if what those before it have left suffices for all that a round may take
at most; the first for which it does not ends the budget. It may play while those before it still do, if what they may
take at most leaves enough. So nothing depends on who ends first, on how many run at once or on where an evaluation was
interrupted; the budget is never exceeded; and what is left in the end is less than a round of one problem may take.
"""

from __future__ import annotations

from evals.budget import SetBudget, most_tokens
from evals.stints import Headway
from rsa.settings.config import RSAConfig


class Allotment:
    """Shares out a budget to runs, which go by their numbers.

    spent  tokens of all rounds that were played in their turn.
    """

    def __init__(self, budget: SetBudget, config: RSAConfig) -> None:
        self.spent = 0
        self._total = budget.total_tokens
        self._most = most_tokens(config)
        self._headway: list[Headway] = []
        self._given: list[int] = []

    @property
    def left(self) -> int | None:
        """Tokens that are not spent; None: there is no limit."""
        return None if self._total is None else self._total - self.spent

    def add(self) -> int:
        """One more run, of which nothing is known; its number."""
        self._headway.append(Headway())
        self._given.append(0)
        return len(self._given) - 1

    def lap(self) -> list[int]:
        """The runs that would play another round, in order."""
        return sorted(self.open(), key=lambda run: (self._leader(run), run))

    def open(self) -> list[int]:
        """The runs that are not at their end."""
        return [
            run
            for run, headway in enumerate(self._headway)
            if not headway.ended or self._given[run] < len(headway.rounds)
        ]

    def rounds(self, run: int) -> int:
        """How many rounds a run has played in its turn."""
        return self._given[run]

    def suffices(self, playing: int) -> bool:
        """Whether another run may play a round now, beside so many that do."""
        return self.left is None or self.left >= (playing + 1) * self._most

    def knows(self, run: int) -> bool:
        """Whether what becomes of the run's next round was told before: one that was resumed may be further."""
        headway = self._headway[run]
        return headway.ended or len(headway.rounds) > self._given[run]

    def tell(self, run: int, headway: Headway) -> None:
        """How a run stands, as far as it has ever got."""
        self._headway[run] = headway

    def count(self, run: int) -> None:
        """A run has played its next round, if it had one: what that took is spent."""
        rounds = self._headway[run].rounds
        if len(rounds) > self._given[run]:
            self.spent += rounds[self._given[run]].tokens
            self._given[run] += 1

    def _leader(self, run: int) -> int:
        """How many candidates agree on the leading answer of the last round."""
        given = self._given[run]
        return self._headway[run].rounds[given - 1].leader if given else 0
