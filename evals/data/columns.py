"""Columns of a data file by name: of a row, or of what is nested in one, `prompt[0].content`.

A name is read with the row at hand. At each step the longest key with which the rest of the name begins is taken, so
that a key with dots or brackets of its own is found before a path that looks the same. Capitals matter only where two
keys differ in nothing else. `[0]` is the first element of a list, `[-1]` the last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.errors import DataError
from rsa.words import listed, shown

Mapped = Mapping[str, str | Sequence[str]]
"""The columns of data that a benchmark has under other names: see `evals.data.benchmarks.Benchmark.with_columns`."""
_INDEX = re.compile(r"\[(-?\d{1,9})\]")
_IMAGE = frozenset({"bytes", "path"})
"""The fields of an image in a parquet file: one column to people."""
MAX_DEPTH = 8
"""How deep nested columns are that a message names."""
MAX_NAMED = 24
"""Columns that a message names."""
_USUAL = {
    "problem": ("problem", "question", "content", "query", "text", "input", "instruction", "prompt", "value"),
    "gold": ("gold", "answer", "ground_truth", "final_answer", "target", "solution", "label", "output"),
    "images": ("image", "images", "bytes"),
}
"""The names that our columns have in other data; the first are the surest."""


@dataclass(frozen=True, slots=True)
class Found:
    """A column that is there, as the row spells it; `value` may be None."""

    name: str
    value: Any


def find(row: Mapping[str, Any], names: Sequence[str]) -> Found | None:
    """The first of the alternatives that the row has; None if it has none of them.

    What is inside something empty is there, and empty.
    """
    for name in names:
        found = _found_in(row, name) if name else None
        if found is not None:
            return found
    return None


def top(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Which of a table's columns holds what `find` would find in its rows; None: none of them."""
    for name in names:
        fitting = [column for column in columns if find({column: None}, [name])]
        if fitting:
            return max(fitting, key=lambda column: (len(column), name.startswith(column)))
    return None


def paths(row: Mapping[str, Any]) -> list[str]:
    """Names for everything in a row that is no object and no list of objects; of a list its first element."""
    return [path for key in row for path in _paths(row[key], key, MAX_DEPTH)]


def names_of(mapped: Mapped) -> dict[str, tuple[str, ...]]:
    """The names of each column as they are kept. Raises DataError for what is no name."""
    if not isinstance(mapped, Mapping):
        raise DataError(f"columns is {shown(mapped)}: should be a mapping from what is needed to names of columns")
    listed = {key: names if isinstance(names, list | tuple) else (names,) for key, names in mapped.items()}
    kept = {key: tuple(names) for key, names in listed.items()}
    for key, names in kept.items():
        if not names or not all(isinstance(name, str) and name for name in names):
            raise DataError(f"columns: {key} should be the name of a column, or several")
    return kept


def from_flags(flags: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What `--column NAME=COLUMN` says, however often; a name that comes again has alternatives. Raises DataError."""
    mapped: dict[str, tuple[str, ...]] = {}
    for flag in flags:
        key, _, name = (part.strip() for part in flag.partition("="))
        if not key or not name:
            raise DataError(f"--column {flag!r}: should be NAME=COLUMN, like problem=question")
        mapped[key] = (*mapped.get(key, ()), name)
    return mapped


def as_flags(mapped: Mapped) -> str:
    """As one types them."""
    pairs = [f"{key}={name}" for key, names in names_of(mapped).items() for name in names]
    return " ".join(f"--column {shlex.quote(pair)}" for pair in pairs)


def where_else(row: Mapping[str, Any], wanted: Sequence[str]) -> str:
    """What a row has, and how to say which of it holds the columns that are wanted."""
    there = sorted(paths(row))
    example = as_flags({key: _likely(there, key) for key in wanted})
    return (
        f"there are {listed(there, MAX_NAMED) or 'none'}. Say where it is, like {example}, "
        "or under [columns] in a TOML file of your own"
    )


def _likely(there: Sequence[str], key: str) -> str:
    """Which of these paths may be meant; a placeholder if none looks like it."""
    usual = _USUAL.get(key, (key,))
    last = {path: re.sub(r"\[\d+\]", "", path).rpartition(".")[2].casefold() for path in there}
    known = [path for path in there if last[path] in usual]
    return min(known, key=lambda path: usual.index(last[path]), default="COLUMN")


def _paths(value: Any, path: str, depth: int) -> Iterator[str]:
    if depth and isinstance(value, Mapping) and value and set(value) != _IMAGE:
        for key in value:
            yield from _paths(value[key], f"{path}.{key}", depth - 1)
    elif depth and isinstance(value, list) and value and isinstance(value[0], Mapping | list):
        yield from _paths(value[0], f"{path}[0]", depth - 1)
    else:
        yield path


def _found_in(value: Any, path: str) -> Found | None:
    """What `path` leads to from `value`. The name found is as long as the path: only capitals can differ."""
    if not path:
        return Found("", value)
    if value is None:
        return Found(path, None)
    if isinstance(value, Mapping):
        return _in_object(value, path)
    if isinstance(value, list):
        return _in_list(value, path)
    return None


def _in_object(value: Mapping[str, Any], path: str) -> Found | None:
    starts = [key for key in value if key and path[: len(key)].casefold() == key.casefold()]
    for key in sorted(starts, key=lambda key: (-len(key), not path.startswith(key))):
        found = _beyond(value[key], key, path[len(key) :])
        if found is not None:
            return found
    return None


def _in_list(value: list[Any], path: str) -> Found | None:
    index = _INDEX.match(path)
    if index is None or not -len(value) <= (place := int(index[1])) < len(value):
        return None
    return _beyond(value[place], index[0], path[index.end() :])


def _beyond(value: Any, begun: str, rest: str) -> Found | None:
    """From `value`, to which the name `begun` led, on to the rest of the path."""
    if rest == "." or (rest and rest[0] not in ".["):
        return None
    further = rest.removeprefix(".")
    found = _found_in(value, further)
    return None if found is None else Found(begun + rest[: len(rest) - len(further)] + found.name, found.value)
