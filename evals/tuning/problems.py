"""Which problems a tuning is about: a benchmark's, or the rows of a file, which become one."""

from __future__ import annotations

import json
from pathlib import Path

from engine.paths import path_named
from evals.data.benchmarks import Benchmark, Columns, load_benchmark
from evals.data.open import Data
from evals.errors import DataError, ResultsError
from evals.eval_record import DataSource
from evals.job import open_source
from evals.tuning.records import Asked
from rsa.folders import write_atomically

METRIC = "math"
"""The metric of rows that come without a benchmark."""
_COLUMNS = Columns(problem=("problem", "question", "prompt"), gold=("answer", "gold", "target"), id=("id",))


def open_problems(asked: Asked) -> tuple[Benchmark, Data]:
    """The benchmark and all its problems. Raises BenchmarkError, DataError."""
    benchmark = _benchmark(asked)
    return benchmark, open_source(benchmark, asked.source, None)


def source_of(asked: Asked, folder: Path) -> DataSource:
    """What evaluations of these problems are asked for by. For rows without a benchmark its file is written into the
    folder, so that each evaluation can go on by itself. Raises DataError, ResultsError."""
    if asked.source.benchmark is not None:
        return asked.source
    benchmark = _benchmark(asked)
    columns = _COLUMNS.model_dump(include={"problem", "gold", "id"})
    lines = [
        f"metric = {json.dumps(benchmark.metric)}",
        f"data = {json.dumps(str(benchmark.data))}",
        "",
        "[columns]",
        *(f"{name} = {json.dumps(names)}" for name, names in columns.items()),
        "",
    ]
    path = folder.resolve() / f"{benchmark.name}.toml"
    try:
        write_atomically(path, "\n".join(lines).encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from None
    return asked.source.model_copy(update={"benchmark": str(path), "data": None})


def _benchmark(asked: Asked) -> Benchmark:
    if asked.source.benchmark is not None:
        return load_benchmark(asked.source.benchmark)
    data = path_named(asked.source.data or "", DataError)
    if not data.is_file():
        raise DataError(f"there is no file {data}")
    return Benchmark(name=data.stem, metric=asked.metric or METRIC, columns=_COLUMNS, data=data)
