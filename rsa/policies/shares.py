"""Shares and probabilities as people write them."""

from __future__ import annotations

from fractions import Fraction


def share_of(given: float) -> Fraction:
    """As it is written: .95 is 95 of 100, not the float nearest to it. Raises ValueError for what is no share."""
    if not 0 < given <= 1:
        raise ValueError(f"{given:g} is no share: more than 0, at most 1")
    return Fraction(repr(given))
