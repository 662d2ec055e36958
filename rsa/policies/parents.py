"""Whose tails a candidate reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsa import seeds

if TYPE_CHECKING:
    from rsa.results import Round

Subset = tuple[int, ...]


class ParentsPolicy:
    """Draws the parents of each candidate of a round. The base draws them uniformly.

    confidence  it needs to know how likely the candidates' tokens were.
    answers     it needs answers of every round.
    """

    confidence = False
    answers = False

    def draw(self, before: Round, size: int, seed: int) -> Subset:
        """`size` different members of `before.parents` in the order of the prompt, all of them if they are fewer; the
        same whenever it is asked."""
        return seeds.draw(before.parents, size, seed)


class Uniform(ParentsPolicy):
    """C members of the round before, each as likely as the others, without replacement: the paper's."""
