"""What a tuning keeps: `asked.json`, written first, and `tune.json`, written last. Neither depends on a clock, but for
the date of the first."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, FiniteFloat, JsonValue, ValidationError

from evals.errors import ResultsError
from evals.eval_record import DataSource, absolute
from evals.stats import Estimate
from evals.tuning.space import AXES, Family
from rsa.errors import ConfigError
from rsa.folders import read_versioned, write_record
from rsa.results import Record
from rsa.settings.config import in_plain_words
from rsa.settings.sizes import MOST_TOKENS, Tokens

FORMAT = 2
"""The number of the format of a tuning's folder."""
ASKED, TUNED, RECORDINGS, CHECK, PROFILE, PAGE = (
    "asked.json",
    "tune.json",
    "recordings",
    "check",
    "profile.toml",
    "tune.html",
)
BUDGET = "2M"
"""Tokens of a tuning unless told otherwise."""
PROBLEMS = 128
"""Problems of a tuning unless told otherwise; half of them are for checking the choice."""
_OF_AN_AXIS = re.compile(r"(?:^|(?<=; ))axes\.(\w+)\.\d+(?= = |: )")
"""A value to be tried, as messages call its place in these records; who gave it knows the name of its setting alone."""

RecordT = TypeVar("RecordT", bound=Record)


class Asked(Record):
    """What is to be tuned, and among what; everything but the budget must stay the same when a tuning goes on.

    model     its name.
    source    where the problems come from, without a benchmark rows of a file that are scored by `metric`; `limit`:
              how many at most.
    budget    tokens that may be generated in all.
    profile, settings   of what is not tried.
    axes      values of n, c, beta and tau to be tried, by name; of an axis that is not there, the usual ones.
    stops, selects      policies to be tried; none: the usual ones.
    tokens_per_problem  the most that the chosen settings may take; None: no limit.
    """

    format: int = FORMAT
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    model: str
    source: DataSource
    metric: str | None = None
    limit: int = Field(PROBLEMS, ge=1, le=10**6)
    budget: Tokens = Field(default=BUDGET, validate_default=True, ge=1, le=MOST_TOKENS)
    profile: str | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    axes: dict[str, tuple[Tokens, ...]] = Field(default_factory=dict)
    stops: tuple[tuple[str, ...], ...] = ()
    selects: tuple[str, ...] = ()
    tokens_per_problem: Tokens | None = Field(None, ge=1, le=MOST_TOKENS)

    @classmethod
    def of(
        cls,
        model: str,
        *,
        benchmark: str | None = None,
        data: str | Path | None = None,
        columns: Any = None,
        data_seed: int = 0,
        revision: str | None = None,
        **fields: Any,
    ) -> Self:
        """From what people give; `fields` that are None are left out. Raises ConfigError."""
        if benchmark is None and data is None:
            raise ConfigError("no problems given: --data FILE, or --benchmark NAME")
        if benchmark is not None and fields.get("metric") is not None:
            raise ConfigError("`metric` goes with `data` alone: the benchmark says how its answers are scored")
        given = {name: value for name, value in fields.items() if value is not None}
        unknown = [name for name in given.get("axes", ()) if name not in AXES]
        if unknown:
            raise ConfigError(f"axes = {', '.join(unknown)}: there are {', '.join(AXES)}")
        source = DataSource.of(benchmark, data=data, columns=columns, data_seed=data_seed, revision=revision)
        try:
            if str(given.get("profile", "")).endswith(".toml"):  # it may go on from another folder
                given["profile"] = absolute(given["profile"])
            return cls(model=model, source=source, **given)
        except ValidationError as error:
            raise ConfigError(_OF_AN_AXIS.sub(r"\1", in_plain_words(error))) from None

    def with_budget(self, budget: int | str) -> Self:
        """The same with another budget. Raises ConfigError."""
        try:
            return type(self).model_validate({**self.model_dump(), "budget": budget})
        except ValidationError as error:
            raise ConfigError(in_plain_words(error)) from None

    def same_but_for_budget(self, other: Asked) -> bool:
        """Whether another one asks for the same, with more or less to spend, at another time."""
        own = {"budget": other.budget, "created_at": other.created_at}
        return self.model_copy(update=own) == other


class Trial(Record):
    """Settings that were tried.

    name      what matters of them, in words; `settings` by name.
    family    the name of the record that they were decided on.
    answer    what the runs' answers are worth, over `problems`; `tokens` and `steps` a problem.
    stands    they were on all the problems, and could be chosen.
    """

    name: str
    family: str
    settings: dict[str, JsonValue]
    answer: Estimate
    tokens: FiniteFloat
    steps: FiniteFloat
    problems: int
    stands: bool


class Entrant(Record):
    """A family in a rung: its best variant so far, what that is worth, and what the family takes to record."""

    family: str
    best: str
    answer: FiniteFloat
    tokens: FiniteFloat


class Rung(Record):
    """A rung of the halving: so many problems so far, who was recorded on them, and who goes on."""

    problems: int
    families: tuple[Entrant, ...]
    kept: tuple[str, ...]


class Checked(Record):
    """The chosen settings, run on problems that nothing was chosen by."""

    folder: str
    problems: int
    answer: Estimate
    tokens: FiniteFloat


class Tuned(Record):
    """The content of tune.json.

    start      where tuning started from: the names of trials, as of `best` and `chosen`.
    decided    False: the problems were too few to tell, and the chosen settings give the answers of the start.
    loss       of the chosen settings to the best; `gain`: over the start. Paired, by problem.
    checked    None: nothing was left to check them with, and what they are worth is told by the problems that they were
               chosen by.
    spent      tokens generated in all, of `budget`.
    profile    the settings that were chosen, by name.
    conclusion  in sentences.
    """

    format: int = FORMAT
    model: str
    benchmark: str
    metric: str
    budget: int
    spent: int
    problems: int
    families: tuple[Family, ...]
    rungs: tuple[Rung, ...]
    trials: tuple[Trial, ...]
    start: str
    best: str
    chosen: str
    decided: bool
    loss: Estimate
    gain: Estimate
    checked: Checked | None
    profile: dict[str, JsonValue]
    conclusion: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def trial(self, name: str) -> Trial:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.name == name)

    @property
    def expected(self) -> Estimate:
        """What the chosen settings are worth on other problems of the kind, as far as is known."""
        return self.checked.answer if self.checked is not None else self.trial(self.chosen).answer

    @property
    def tokens(self) -> float:
        """What they cost a problem."""
        return self.checked.tokens if self.checked is not None else self.trial(self.chosen).tokens


def read_asked(folder: Path) -> Asked:
    """What a folder tunes. Raises ResultsError if it tunes nothing, or was changed."""
    if not (folder / ASKED).is_file():
        raise ResultsError(f"{folder} holds no tuning: it has no {ASKED}")
    return _read(folder / ASKED, Asked)


def read_tuned(folder: Path) -> Tuned:
    """What came out. Raises ResultsError if it has not ended, or was changed."""
    if not (folder / TUNED).is_file():
        raise ResultsError(f"{folder} holds no finished tuning: go on with: rsa tune --resume {folder}")
    return _read(folder / TUNED, Tuned)


def _read(path: Path, kind: type[RecordT]) -> RecordT:
    return read_versioned(path, kind, ResultsError, FORMAT, instead="tune anew")


def write(folder: Path, name: str, record: Record) -> None:
    """Keep a record in the folder. Raises ResultsError."""
    try:
        write_record(folder / name, record, indent=1)
    except OSError as error:
        raise ResultsError(f"cannot write into {folder}: {error.strerror}") from None
