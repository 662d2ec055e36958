"""What evaluation passes around: a problem with its gold answer, and what a candidate's answer is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self

from pydantic import Field, JsonValue, model_validator

from engine.api import ImagePart
from rsa.results import Record

ScoreStatus = Literal["scored", "no_answer", "truncated", "degenerate", "too_hard", "failed"]
"""Why a score is what it is.

scored      the answer was read and compared
no_answer   it ran its course, but no answer of the kind asked for is in its text: worth 0
truncated   a budget or limit cut it off before it answered: worth 0
degenerate  it was cut off because it kept repeating itself: worth 0
too_hard    nobody can tell within the limits whether the answer is right: no value
failed      the engine failed on the candidate: no value
"""
UNSCORED: frozenset[ScoreStatus] = frozenset({"too_hard", "failed"})
"""Statuses left out of means, and counted: a failure is not a wrong answer."""


class Sample(Record):
    """One problem of a benchmark.

    id       unique within the benchmark, and the same whatever part of it is loaded.
    problem  the text put to the model, before the prompts file of the benchmark's task frames it.
    images   of the problem, in order, as the bytes of their files.
    gold     what the metric compares with; what it may be depends on the metric.
    cluster  samples of one cluster are not independent (questions about one image or document); None: its own.
    fields   what the metric needs besides: options, precision, question type.
    """

    id: str = Field(min_length=1)
    problem: str
    images: tuple[ImagePart, ...] = Field((), repr=False)
    gold: JsonValue
    cluster: str | None = None
    fields: dict[str, JsonValue] = Field(default_factory=dict)


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

    async def score(self, answer: str, gold: JsonValue, fields: Mapping[str, JsonValue]) -> Score:
        """What `answer`, the text of an answer section, is worth. Never raises for a text, however hostile.

        Raises evals.errors.GoldError if `gold` or `fields` are not what the metric needs.
        """

    async def group(self, answers: Sequence[str | None]) -> list[tuple[int, ...]]:
        """Indices of equivalent extracted answers (`Score.extracted`), None left out; larger groups first, ties
        to the earliest member."""
