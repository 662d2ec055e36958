"""What can go wrong with one request, and plans of when it does."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

BEFORE = ("silence", "reset", "429", "500", "503", "html", "empty", "slow")
"""Instead of an answer, or before it.

silence  no answer, ever.
reset    the connection is closed without a word.
429      with Retry-After, of so many seconds.
500, 503 an error of the server.
html     a page for people, as gateways send, with status 200.
empty    status 200 and nothing.
slow     the answer comes, after so many seconds.
"""
WITHIN = ("cut", "stall", "malformed", "error", "no_end", "wrong_usage", "missing_ids")
"""Within a stream, after so many tokens; those of `SPOILING` change the whole of it.

cut          the connection breaks.
stall        nothing more comes.
malformed    a chunk that is no JSON.
error        a chunk that is an error.
no_end       the stream ends well, but without a reason and without [DONE].
wrong_usage  counts that cannot be.
missing_ids  without ids: those of the chunks, and those of the tokens.
"""
SPOILING = ("no_end", "wrong_usage", "missing_ids")
KINDS = BEFORE + WITHIN
HARMLESS = ("slow", "wrong_usage", "missing_ids")
"""Faults of an answer that is whole all the same."""


@dataclass(frozen=True)
class Fault:
    """kind   of `KINDS`.
    value  seconds, or how many tokens come before it.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def read(cls, text: str) -> Fault:
        """From KIND or KIND:VALUE."""
        kind, _, value = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"no fault is called {kind!r}: {', '.join(KINDS)}")
        return cls(kind, float(value or 0))


class FaultPlan:
    """Which of the requests for a completion come to grief, in the order of their arrival.

    Those given first; after them each with a probability of `rate`, of a kind drawn from `kinds`, by `seed`. `injected`
    counts by kind those that came true: a stream that ends before its fault would come is whole.
    """

    def __init__(
        self, first: Iterable[Fault | None] = (), *, rate: float = 0.0, kinds: Iterable[str] = KINDS, seed: int = 0
    ) -> None:
        self.first = deque(first)
        self.injected: Counter[str] = Counter()
        self._rate, self._kinds, self._draws = rate, tuple(kinds), random.Random(seed)

    def next(self) -> Fault | None:
        return self.first.popleft() if self.first else self._drawn()

    def _drawn(self) -> Fault | None:
        if self._draws.random() >= self._rate:
            return None
        kind = self._draws.choice(self._kinds)
        within = kind in WITHIN
        return Fault(kind, self._draws.randint(0, 30) if within else self._draws.choice([0.0, 0.01, 0.02]))
