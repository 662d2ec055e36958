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


@dataclass(frozen=True, slots=True)
class Leave:
    """How far a run may go for now, as somebody says who shares out a budget to a set of runs. Where a run pauses, and
    how often, changes nothing in what it generates.

    rounds     after so many it pauses, unless it ends with them; None: it does not pause.
    over       the limit of the set that ends it then, instead of a pause.
    left_s     seconds until the deadline of the set; None: it has none. Near it a run does what it does near its own.
    allowed_s  seconds that the set was given.
    """

    rounds: int | None = None
    over: Hit | None = None
    left_s: float | None = None
    allowed_s: float = 0.0

    @property
    def no_time(self) -> bool:
        """It is time for answers: no round is begun any more."""
        return self.left_s is not None and self.left_s <= answer_time_s(self.allowed_s)


FREE = Leave()
"""Leave of a run that shares nothing."""


def answer_time_s(allowed_s: float) -> float:
    """The time that is kept back for answers before a deadline."""
    return min(MAX_ANSWER_TIME_S, allowed_s * ANSWER_TIME_SHARE)


@dataclass(frozen=True, slots=True)
class _Deadline:
    """When candidates are cut off, on anyio's clock."""

    limit: LimitName
    at: float
    allowed_s: float

    @property
    def conclude_at(self) -> float:
        """When they are asked for their answers."""
        return self.at - answer_time_s(self.allowed_s)


class Meter:
    """What a run has used so far, measured against its limits, and against those that it shares."""

    def __init__(
        self, limits: Limits, *, n: int, answer_budget: int, spent_s: float = 0.0, leave: Leave = FREE
    ) -> None:
        self._limits = limits
        self._started = anyio.current_time() - spent_s
        self._deadline = self._first_deadline(leave)
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
        return None if self._deadline is None else self._deadline.at

    def conclude_at(self) -> float | None:
        """When candidates are asked for their answers, on anyio's clock."""
        return None if self._deadline is None else self._deadline.conclude_at

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
        """The time limit, as used by now; there is one."""
        deadline = self._deadline
        assert deadline is not None
        used_s = deadline.allowed_s - (deadline.at - anyio.current_time())
        return Hit(deadline.limit, round(used_s, 3), deadline.allowed_s)

    def _first_deadline(self, leave: Leave) -> _Deadline | None:
        """Of the run's and the set's that which comes first."""
        found: list[_Deadline] = []
        if (allowed_s := self._limits.deadline_s) is not None:
            found.append(_Deadline("deadline_s", self._started + allowed_s, allowed_s))
        if leave.left_s is not None:
            found.append(_Deadline("set_deadline_s", anyio.current_time() + leave.left_s, leave.allowed_s))
        return min(found, key=lambda deadline: deadline.at, default=None)

    def _tokens_within(self, reserve: int) -> Hit | None:
        allowed = self._limits.total_tokens
        if allowed is None or allowed - self.tokens > reserve:
            return None
        return Hit("total_tokens", self.tokens, allowed)
