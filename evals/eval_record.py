"""What eval.json holds: all that makes an evaluation this one, and how its problems are opened again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, JsonValue, ValidationError

from engine.api import ModelInfo
from engine.paths import path_named
from evals.budget import SetBudget
from evals.data.choice import SHARD
from evals.data.columns import Mapped, names_of
from evals.data.shard import Shard
from evals.errors import DataError
from evals.results import FORMAT, DataInfo
from rsa.errors import ConfigError
from rsa.folders import this_machine
from rsa.results import Record
from rsa.settings.config import RSAConfig, in_plain_words
from rsa.settings.methods import Method

if TYPE_CHECKING:
    from evals.data.benchmarks import Benchmark


class DataSource(Record):
    """How the problems were asked for, to open them again: arguments of `evals.data.open.open_data`, but for the shard,
    which `EvalRecord.shard` knows.

    benchmark  a name or the path of a file; None: a program gave the problems.
    columns    names by what they hold; empty: as the benchmark says.

    Paths are absolute: an evaluation may go on from another folder.
    """

    benchmark: str | None = None
    data: str | None = None
    columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    limit: int | None = None
    ids: tuple[str, ...] | None = None
    data_seed: int = 0
    revision: str | None = None

    @classmethod
    def of(
        cls,
        benchmark: Benchmark | str | Path | None,
        *,
        data: str | Path | None = None,
        columns: Mapped | None = None,
        limit: int | None = None,
        ids: Sequence[str] | None = None,
        data_seed: int = 0,
        revision: str | None = None,
    ) -> Self:
        """From what people give; a program's own `Benchmark` is not kept. Raises ConfigError, DataError."""
        try:
            return cls(
                benchmark=benchmark_source(benchmark) if isinstance(benchmark, str | Path) else None,
                data=None if data is None else absolute(data),
                columns=names_of({} if columns is None else columns),
                limit=limit,
                ids=None if ids is None else tuple(ids),
                data_seed=data_seed,
                revision=revision,
            )
        except ValidationError as error:
            raise ConfigError(in_plain_words(error)) from None


def absolute(path: str | Path) -> str:
    """A path as it is kept; a name that is none stays as it is."""
    path = path_named(path, DataError)
    return str(path.resolve()) if path.exists() else str(path)


def benchmark_source(benchmark: str | Path) -> str:
    """What to keep of a benchmark that was given by its name or its file."""
    return absolute(benchmark) if str(benchmark).endswith(".toml") else str(benchmark)


class EvalRecord(Record):
    """The content of eval.json."""

    format: int = FORMAT
    created_at: str
    benchmark: str
    metric: str
    metric_settings: dict[str, JsonValue] = Field(default_factory=dict)
    method: Method
    config: RSAConfig
    epochs: int
    model: ModelInfo
    prompt_sha256: str
    data: DataInfo
    data_warnings: tuple[str, ...] = ()
    source: DataSource
    budget: SetBudget | None = None
    versions: dict[str, str]
    machine: dict[str, str | int | None]

    @classmethod
    def now(cls, **fields: Any) -> Self:
        """The record of an evaluation that starts now, on this machine."""
        return cls(created_at=datetime.now(UTC).isoformat(timespec="seconds"), machine=this_machine(), **fields)

    @property
    def shard(self) -> Shard | None:
        """The part of the problems that is evaluated here; None: all of them."""
        text = self.data.options.get(SHARD)
        return None if text is None else Shard.read(str(text))

    def identity(self) -> dict[str, object]:
        """What must be the same for an evaluation to be continued."""
        return {
            "benchmark": self.benchmark,
            "metric": self.metric,
            "metric settings": self.metric_settings,
            "method": self.method,
            "epochs": self.epochs,
            "model fingerprint": self.model.fingerprint or self.model.name,
            "prompts": self.prompt_sha256,
            **{f"config.{key}": value for key, value in self.config.values().items()},
            "budget": None if self.budget is None else self.budget.model_dump(),
            **data_identity(self.data),
        }


def data_identity(data: DataInfo) -> dict[str, object]:
    """What must be the same for problems to be the same ones, each option by its own name."""
    fields = data.model_dump()
    return {f"data.{key}": value for key, value in {**fields.pop("options"), **fields}.items()}
