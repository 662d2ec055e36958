"""A canary for candidates that keep repeating themselves: such token ids compress to almost nothing."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

WINDOWS = (512, 4096)
"""Numbers of last tokens looked at: the short window sees a loop of a few tokens soon, the long one loops of a
sentence."""
MAX_RATIO = 0.05
"""The ratio of compressed to raw size below which a window is degenerate: sound reasoning stays above 0.2."""
CHECK_EVERY_TOKENS = 128
_LARGEST = 2**31 - 1
"""Ids of vocabularies are smaller; those that are an estimate may be larger, and are folded: the ratio is of int32."""


def compression_ratio(token_ids: Sequence[int]) -> float:
    """Compressed over raw bytes of token ids as int32 (zlib, level 1). Raises ValueError for none."""
    if not token_ids:
        raise ValueError("no tokens: nothing to compress")
    raw = array("i", [token % _LARGEST for token in token_ids]).tobytes()
    return len(zlib.compress(raw, 1)) / len(raw)


class DegenerationMonitor:
    """Watches one candidate while it writes. Once degenerate, always degenerate.

    after  how many tokens it had written when that was found; None: it is well. How many more come before it is stopped
           is chance.
    """

    def __init__(self) -> None:
        self._recent = array("i")
        self._unchecked = 0
        self._taken = 0
        self.after: int | None = None

    @property
    def degenerate(self) -> bool:
        """It repeats itself."""
        return self.after is not None

    def feed(self, token_ids: Sequence[int]) -> bool:
        """Take in new tokens; True once the candidate repeats itself. The verdict does not depend on how
        the tokens are split into calls."""
        taken = 0
        while taken < len(token_ids) and not self.degenerate:
            new = token_ids[taken : taken + CHECK_EVERY_TOKENS - self._unchecked]
            self._recent.extend([token % _LARGEST for token in new])
            taken += len(new)
            self._taken += len(new)
            self._unchecked += len(new)
            if self._unchecked == CHECK_EVERY_TOKENS:
                self._unchecked = 0
                self._check()
        return self.degenerate

    def _check(self) -> None:
        if len(self._recent) > max(WINDOWS):
            del self._recent[: -max(WINDOWS)]
        for window in WINDOWS:
            if len(self._recent) >= window and compression_ratio(self._recent[-window:]) < MAX_RATIO:
                self.after = self._taken
                return
