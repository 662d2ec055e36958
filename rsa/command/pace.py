"""How fast a run goes, and when it will end: prompts are read at one speed and candidates written at another.

While prompts are read, those that already write go on slowly, and nobody's tokens tell how much there is to do. So
both speeds are measured apart, and what is left of both is added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.api import Section
from rsa.results import Check, Status

_MEMORY_S = 10.0
"""Seconds after which a measured speed of writing counts half: rows that ended leave the others faster."""
_ENOUGH_READ = 256
"""Tokens of prompts before their speed is believed; of fewer the time is that of a step and of the next report."""
_ENOUGH_WRITTEN_S = 1.0
"""Seconds of candidates that write, added up, before their speed is believed."""
_READS_AS_FAST = 2.0
"""How much faster prompts are read than all candidates write, as long as nobody knows."""
_GOES_ON = 1 / 6
"""A candidate that nearly all others are shorter than is taken to go on for this share of its length."""
_AFTER_TAILS = 0.6
"""How much of the length of round 0 a candidate that has read tails is taken to write, until some have ended: of `nano`
it was a quarter where the tails held the answer, and all of it where they did not."""


@dataclass(slots=True)
class Row:
    """One candidate of the current round. `status` is None while it runs; `text` is the newest of what it writes.

    asked    of one that ended: whether an answer was wanted of it.
    began    the moment when the first of its tokens were seen, and how many they were.
    replayed   a resumed run found it in its log: it is no measure of its speed.
    """

    index: int
    parents: tuple[int, ...] = ()
    prompt_tokens: int = 0
    tokens: int = 0
    section: Section = "reasoning"
    text: str = ""
    status: Status | None = None
    answer: str | None = None
    check: Check | None = None
    asked: bool = True
    started_s: float | None = None
    began: tuple[float, int] | None = None
    finished_s: float | None = None
    replayed: bool = False

    @property
    def waits(self) -> bool:
        """Its prompt is not read yet."""
        return self.status is None and self.tokens == 0

    def tokens_per_s(self, now_s: float) -> float:
        """Since it began to write; of one that was not seen to go on, over its whole life."""
        since_s, before = self.began if self.began and self.tokens > self.began[1] else (self.started_s, 0)
        if since_s is None:
            return 0.0
        seconds = (now_s if self.finished_s is None else self.finished_s) - since_s
        return (self.tokens - before) / seconds if seconds > 0 else 0.0


@dataclass(slots=True)
class Plan:
    """What is known beforehand. `rounds_left`: after the one that is played."""

    rounds_left: int = 0
    n: int = 1
    c: int = 1
    beta: int = 0
    tail_tokens: int = 0


@dataclass(slots=True)
class _Moment:
    """What rows were at a moment, all of its events taken in. Tokens are those of this round that this process saw."""

    at_s: float = 0.0
    written: int = 0
    writing: int = 0
    reading: bool = False


@dataclass(slots=True)
class Pace:
    """Measures a run whose rows it is shown after every event."""

    lengths: list[int] = field(default_factory=list)  # of the candidates of this round that ended
    lengths_before: list[int] = field(default_factory=list)  # of those of the round before
    _rounds: int = 0
    _began_s: float = 0.0  # this round
    _places: int = 0  # rows that write together at most, as far as seen: others wait for them
    _since: _Moment = field(default_factory=_Moment)
    _now: _Moment = field(default_factory=_Moment)
    _row_seconds: float = 0.0
    _row_tokens: float = 0.0
    _read_tokens: float = 0.0
    _read_s: float = 0.0
    _read_per_s: float | None = None  # in an earlier round
    _first_prompt: int = 0

    def begin_round(self, at_s: float) -> None:
        """A round begins: what is known of the one before is kept."""
        self._close_interval()
        self._read_per_s = self.read_per_s()
        self._read_tokens = self._read_s = 0.0
        self.lengths_before, self.lengths = self.lengths or self.lengths_before, []
        self._rounds += 1
        self._began_s = max(at_s, self._now.at_s)
        self._since = self._now = _Moment(self._began_s, reading=True)

    def update(self, at_s: float, rows: Sequence[Row]) -> None:
        """Take in what an event has changed."""
        if at_s > self._now.at_s:
            self._close_interval()
        self._see_beginnings(max(at_s, self._now.at_s), rows)
        writing = sum(row.status is None and row.tokens > 0 for row in rows)
        shared = not any(row.parents for row in rows)
        # A resumed run may begin with prompts of their own: nobody knows then, and all of them may have a place.
        self._places = max(self._places or (0 if shared else len(rows)), writing)
        full = writing > 0 if shared else writing >= self._places
        self._now = _Moment(
            at_s=max(at_s, self._now.at_s),
            written=sum(row.tokens for row in rows if not row.replayed),
            writing=writing,
            reading=not full and any(row.waits for row in rows),
        )

    def _close_interval(self) -> None:
        """All events of the newest moment are in: what was written up to it counts, if no prompt was read meanwhile."""
        passed = self._now.at_s - self._since.at_s
        if self._since.writing and not self._since.reading:
            kept = 0.5 ** (passed / _MEMORY_S)
            self._row_seconds = self._row_seconds * kept + self._since.writing * passed
            self._row_tokens = self._row_tokens * kept + self._now.written - self._since.written
        self._since = self._now

    def _see_beginnings(self, at_s: float, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.began is None and row.tokens and not row.replayed:
                row.began = (at_s, row.tokens)
                # A prompt that all share is read once.
                self._read_tokens += row.prompt_tokens if row.parents else row.prompt_tokens / len(rows)
                self._read_s = at_s - self._began_s
                self._first_prompt = self._first_prompt or row.prompt_tokens

    def row_per_s(self) -> float | None:
        """Tokens that one candidate writes in a second while no prompt is read; None: unknown."""
        enough = self._row_seconds >= _ENOUGH_WRITTEN_S and self._row_tokens > 0
        return self._row_tokens / self._row_seconds if enough else None

    def read_per_s(self) -> float | None:
        """Tokens of prompts that are read in a second; None: unknown."""
        if self._read_tokens >= _ENOUGH_READ and self._read_s > 0:
            return self._read_tokens / self._read_s
        return self._read_per_s

    def eta_s(self, rows: Sequence[Row], plan: Plan) -> float | None:
        """Seconds to the end, if rounds to come are like the last one; None while nothing says how long they are."""
        writes = self.row_per_s()
        settled = 2 * len(self.lengths) >= plan.n
        known = self.lengths if settled else [*self.lengths_before, *self.lengths]
        if writes is None or not rows or not (self._enough(known, plan) or self._near_beta(rows, plan)):
            return None
        known = known or [plan.beta]
        scale = _AFTER_TAILS if self._rounds == 2 and not settled else 1.0
        typical = scale * sum(known) / len(known)
        longest = (typical + scale * max(known)) / 2  # between what is likely and what has been
        prompt = self._first_prompt + plan.c * min(plan.tail_tokens, typical)
        reads = self.read_per_s() or _READS_AS_FAST * writes * plan.n

        running = [row for row in rows if row.status is None]
        unread = sum(row.prompt_tokens or prompt for row in running if row.waits and row.parents)
        seen = [*self.lengths_before, *self.lengths] or known
        left = [typical if row.waits else _tokens_left(row.tokens, seen, plan.beta) for row in running]
        places = max(self._places, 1)
        furthest = max((row.tokens for row in running), default=0)
        here = max([*left, 0.0 if settled else longest - furthest, sum(left) / places])
        ahead = plan.n * prompt / reads + max(longest, plan.n * typical / places) / writes
        return unread / reads + here / writes + plan.rounds_left * ahead

    @staticmethod
    def _enough(known: Sequence[int], plan: Plan) -> bool:
        """The first that end are the shortest: they say little of the others."""
        return 4 * len(known) >= plan.n

    @staticmethod
    def _near_beta(rows: Sequence[Row], plan: Plan) -> bool:
        return plan.beta > 0 and 4 * max(row.tokens for row in rows) >= plan.beta


def _tokens_left(tokens: int, known: Sequence[int], beta: int) -> float:
    """Tokens to come of a candidate that has written so many: up to the length of those that got further, or on."""
    further = [length for length in known if length > tokens]
    to_them = sum(further) / len(further) - tokens if further else 0.0
    return max(to_them, min(tokens * _GOES_ON, beta - tokens), 0.0)
