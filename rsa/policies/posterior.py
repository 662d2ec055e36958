"""How sure one may be of a leader, from counts of votes alone, in exact arithmetic.

With a uniform prior over how likely each answer is, and counts drawn from it, the posterior is a Dirichlet distribution
with one more than each count; its coordinates compare as gamma variables of these whole shapes, for which the
integrals are finite sums.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial


def leads_one(leader: int, runner_up: int) -> Fraction:
    """Probability that the leading answer is likelier than the next one, of these two, after so many votes each (0 or
    more): the rule of Adaptive-Consistency (arXiv 2305.11860)."""
    return 1 - _overtakes(leader, runner_up)


def leads_two(leader: int, second: int, third: int) -> Fraction:
    """Probability that the leading answer is the likeliest of three, after so many votes each (0 or more): all that an
    optimal rule needs to know of the counts, nearly (arXiv 2602.05395)."""
    both = Fraction(0)
    for j in range(second + 1):
        for k in range(third + 1):
            ways = factorial(leader + j + k) // (factorial(leader) * factorial(j) * factorial(k))
            both += Fraction(ways, 3 ** (leader + j + k + 1))
    return 1 - _overtakes(leader, second) - _overtakes(leader, third) + both


def _overtakes(leader: int, other: int) -> Fraction:
    """Probability that the answer with `other` votes is likelier than the one with `leader`."""
    return sum((Fraction(comb(leader + j, j), 2 ** (leader + j + 1)) for j in range(other + 1)), Fraction(0))
