"""What the caches of rows cost, before they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_ROOM_TOKENS = 256
"""Tokens by which caches grow, if that is more than an eighth of their length: a row takes that much more than it
uses."""


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Memory of the caches of rows that decode together.

    cache_bytes  of one row with so many tokens: `TextModel.cache_bytes`.
    """

    cache_bytes: Callable[[int], int]

    def of_rows(self, tokens: Iterable[int]) -> int:
        """Bytes of rows with so many tokens each, room to grow included. Every row takes the width of the longest."""
        lengths = list(tokens)
        longest = max(lengths, default=0)
        return len(lengths) * self.cache_bytes(longest + max(longest // 8, _ROOM_TOKENS))
