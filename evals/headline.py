"""Which number speaks for a method."""

from __future__ import annotations

from typing import Literal

from rsa.settings.methods import Method

Headline = Literal["candidates", "vote", "answer"]
"""The basis of the headline number: all candidates of the final round, their majority vote, or the one answer that a
run gave."""


def headline_of(method: Method) -> Headline:
    """What the headline number of a method is of."""
    basis: dict[Method, Headline] = {"vote": "vote", "auto": "answer"}
    return basis.get(method, "candidates")
