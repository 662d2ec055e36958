"""Whose tails a candidate reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsa import seeds
from rsa.policies.trust import confidences

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


class Confident(ParentsPolicy):
    """C members of the round before without replacement, the surer the likelier: one that is surer by `temperature`,
    in nats a token (`rsa.policies.trust.how_sure`), is drawn e times as often."""

    confidence = True

    def __init__(self, temperature: float = 0.1) -> None:
        if temperature <= 0:
            raise ValueError(f"{temperature:g} is no temperature: more than 0")
        self._temperature = temperature

    def draw(self, before: Round, size: int, seed: int) -> Subset:
        members = before.parents
        sure = confidences([before.candidates[member] for member in members])
        return seeds.weighted_draw(members, [each / self._temperature for each in sure], size, seed)


class Distinct(ParentsPolicy):
    """As many different answers as C tails can hold: of a uniform draw of all, who is the first with an answer comes
    before those who repeat one, or have none."""

    answers = True

    def draw(self, before: Round, size: int, seed: int) -> Subset:
        drawn = seeds.draw(before.parents, len(before.parents), seed)
        group = {member: number for number, vote in enumerate(before.votes) for member in vote.candidates}
        first = set({group[member]: member for member in reversed(drawn) if member in group}.values())
        return tuple(sorted(drawn, key=lambda member: member not in first))[:size]
