"""The hard limits of a run: how much is spent, when to ask for answers, when to cut off."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from rsa.results import LimitName
from rsa.settings.config import Limits

ANSWER_RESERVE_TOKENS = 512
"""Tokens kept back for the answer of each candidate still reasoning: a boxed answer with a few sentences fits."""
MAX_RESERVE_SHARE = 0.25
"""The largest share of the token limit that the reserves of all candidates may take together."""
ANSWER_TIME_SHARE = 0.15
MAX_ANSWER_TIME_S = 120.0
"""The time kept back for answers before the deadline: a share of it, and at most so many seconds."""
CANCEL_GRACE_S = 5.0
"""How long after the deadline an engine may take to hand over what it cancelled."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A limit that was reached."""

    limit: LimitName
    used: float
    allowed: float


class Meter:
    """What a run has used so far, measured against its limits."""

    def __init__(self, limits: Limits, *, n: int, answer_budget: int, spent_s: float = 0.0) -> None:
        self._limits = limits
        self._started = anyio.current_time() - spent_s
        self.tokens = 0
        self.reserve = min(answer_budget, ANSWER_RESERVE_TOKENS)
        if limits.total_tokens is not None:
            self.reserve = max(1, min(self.reserve, int(limits.total_tokens * MAX_RESERVE_SHARE / n)))

    def spend(self, tokens: int) -> None:
        """Count tokens that were generated."""
        self.tokens += tokens

    def elapsed_s(self) -> float:
        """Seconds since the run started."""
        return anyio.current_time() - self._started

    @property
    def limits_tokens(self) -> bool:
        """There is a limit on all tokens."""
        return self._limits.total_tokens is not None

    def deadline(self) -> float | None:
        """When candidates are cut off, on anyio's clock."""
        return None if self._limits.deadline_s is None else self._started + self._limits.deadline_s

    def conclude_at(self) -> float | None:
        """When candidates are asked for their answers, on anyio's clock."""
        deadline, allowed = self.deadline(), self._limits.deadline_s
        if deadline is None or allowed is None:
            return None
        return deadline - min(MAX_ANSWER_TIME_S, allowed * ANSWER_TIME_SHARE)

    def tokens_hit(self) -> Hit | None:
        """The token limit, if nothing of it is left."""
        return self._tokens_within(0)

    def tokens_near(self, unfinished: int) -> Hit | None:
        """The token limit, if no more is left of it than these candidates need for their answers."""
        return self._tokens_within(self.reserve * unfinished)

    def too_little_for_a_round(self, n: int) -> Hit | None:
        """The limit that forbids another round: one must hold as much reasoning as answers at least."""
        return self._tokens_within(2 * self.reserve * n) or self.time_near()

    def time_near(self) -> Hit | None:
        """The time limit, if it is time for answers."""
        conclude_at = self.conclude_at()
        return None if conclude_at is None or anyio.current_time() < conclude_at else self.time_hit()

    def time_hit(self) -> Hit:
        """The time limit, as used by now."""
        return Hit("deadline_s", round(self.elapsed_s(), 3), self._limits.deadline_s or 0.0)

    def _tokens_within(self, reserve: int) -> Hit | None:
        allowed = self._limits.total_tokens
        if allowed is None or allowed - self.tokens > reserve:
            return None
        return Hit("total_tokens", self.tokens, allowed)
