"""Whose tails each candidate reads: a subset of the round before, drawn by a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsa import seeds
from rsa.policies import registry
from rsa.policies.parents import Subset
from rsa.results import Round
from rsa.settings.config import RSAConfig


@dataclass(frozen=True, slots=True)
class Subsets:
    """Draws the subsets of one run; each follows from its settings, its place in the run, and the round before."""

    config: RSAConfig
    problem_id: str

    def of_round(self, before: Sequence[Round]) -> tuple[Subset, ...]:
        """Of each candidate of the round that follows these: C members of the last one, without replacement; nobody in
        round 0."""
        if not before:
            return ((),) * self.config.n
        return tuple(self._drawn(len(before), index, before[-1]) for index in range(self.config.n))

    def of_selection(self, before: Sequence[Round]) -> tuple[Subset]:
        """Of the one more aggregation of `select="aggregate"`, which follows these rounds."""
        return (self._drawn(len(before), 0, before[-1]),)

    def _drawn(self, number: int, index: int, before: Round) -> Subset:
        config = self.config
        if config.c == 1 and number <= config.t and index in before.parents:
            return (index,)  # Markovian continuation: its own tail
        seed = seeds.derive(config.seed, self.problem_id, number, index, "subset")
        return registry.parents_policy(config.parents).draw(before, config.c, seed)
