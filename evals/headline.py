"""Which number speaks for a method."""

from __future__ import annotations

from typing import Literal

from rsa.settings.methods import Method

Headline = Literal["candidates", "vote"]
"""The basis of the headline number: all candidates of the final round, or their majority vote."""


def headline_of(method: Method) -> Headline:
    """What the headline number of a method is of."""
    return "vote" if method == "vote" else "candidates"
