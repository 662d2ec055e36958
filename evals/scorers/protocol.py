"""What a scorer is, and what it says: what the answer of a candidate is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self

from pydantic import Field, JsonValue, model_validator

from rsa.results import Record

ScoreStatus = Literal["scored", "no_answer", "truncated", "degenerate", "too_hard", "failed", "cut"]
"""Why a score is what it is.

scored      the answer was read and compared
no_answer   it ran its course, but no answer of the kind asked for is in its text: worth 0
truncated   a budget or limit cut it off before it answered: worth 0
degenerate  it was cut off because it kept repeating itself: worth 0
too_hard    nobody can tell within the limits whether the answer is right: no value
failed      the engine failed on the candidate: no value
cut         a policy of `stop` did not wait for its answer: no value
"""
UNSCORED: frozenset[ScoreStatus] = frozenset({"too_hard", "failed", "cut"})
"""Statuses left out of means, and counted: a failure, or an answer that nobody waited for, is not a wrong answer."""


class Score(Record):
    """What an answer is worth: 0 to 1, or no value where `status` is in `UNSCORED`.

    extracted  the answer as the metric read it; None if it found none.
    reason     in words, for people; may be empty.
    """

    value: float | None = Field(ge=0.0, le=1.0)
    status: ScoreStatus = "scored"
    extracted: str | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _value_fits_status(self) -> Self:
        if (self.value is None) != (self.status in UNSCORED):
            raise ValueError(f"a score of status {self.status!r} cannot have the value {self.value}")
        if self.status in ("no_answer", "truncated", "degenerate") and self.value != 0.0:
            raise ValueError(f"a score of status {self.status!r} is worth 0, not {self.value}")
        return self


class Scorer(Protocol):
    """A metric. Use within `async with`: one may keep a worker process."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def check(self, gold: JsonValue, fields: Mapping[str, JsonValue]) -> None:
        """Raises evals.errors.GoldError if `gold` or `fields` are not what the metric needs."""

    async def score(self, answer: str, gold: JsonValue, fields: Mapping[str, JsonValue]) -> Score:
        """What `answer`, the text of an answer section, is worth. Never raises for a text, however hostile.

        Raises GoldError as `check` does.
        """

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Indices of equivalent extracted answers (`Score.extracted`), None left out; larger groups first, ties
        to the earliest member."""
