"""Rows of a data set that is too large to fetch, read where it is.

`datasets` can stream a data set from its beginning; a sample of it lies all over. Parquet files say at their ends where
their row groups are, and a row group can be had alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.data.choice import rank
from evals.data.rows import Row, readable

ROWS_PER_GROUP = 8
"""Rows of a sample from one row group, the whole of which is fetched for them: with one row from each, a sample of 500
would cost half of VQAv2. Rows of a group are neighbours; what makes neighbours alike there, their image, is what their
cluster is."""
THREADS = 8
"""Threads that fetch the files' ends: one or two requests each, for dozens of files."""


@dataclass(frozen=True)
class _Group:
    """A row group: the unit that is fetched. `number` counts all groups of all files."""

    number: int
    file: int
    index: int
    rows: int


class RemoteRows:
    """Parquet files by their addresses (`hf://...`, or paths). Made, it has read their ends only.

    rows     of all files.
    columns  of the first file.

    What reads raises DataError.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        with ThreadPoolExecutor(THREADS) as pool:
            self._footers = list(pool.map(_footer, self._files))
        places = [(file, index) for file, footer in enumerate(self._footers) for index in range(footer.num_row_groups)]
        self._groups = [
            _Group(number, file, index, self._footers[file].row_group(index).num_rows)
            for number, (file, index) in enumerate(places)
        ]
        self.rows = sum(group.rows for group in self._groups)
        self.columns: list[str] = self._footers[0].schema.to_arrow_schema().names if self._footers else []

    def all(self) -> Iterator[Row]:
        """Every row in order: fetches everything."""
        for group in self._groups:
            yield from self._read(group, range(group.rows))

    def sample(self, count: int, seed: int) -> Iterator[Row]:
        """`count` rows drawn by the seed, or all if there are fewer; a smaller count draws some of them.

        Fetches one row group for ROWS_PER_GROUP rows, as long as there are so many groups.
        """
        order = sorted(self._groups, key=lambda group: rank(seed, group.number))
        takes = dict.fromkeys(range(len(self._groups)), 0)
        left = min(count, self.rows)
        while left:
            for group in order:
                more = min(ROWS_PER_GROUP, left, group.rows - takes[group.number])
                takes[group.number] += more
                left -= more
        for group in self._groups:
            if takes[group.number]:
                yield from self._read(group, _draw(group, takes[group.number], seed))

    def where(self, column: str, values: Collection[str], value: Callable[[Row], str | None]) -> Iterator[Row]:
        """Rows whose `value`, which is in `column`, is among `values`, in order. Fetches that column until all are
        found, and the row groups they are in."""
        left = set(values)
        for group in self._groups:
            if not left:
                return
            found = [value(row) for row in self._read(group, range(group.rows), [column])]
            places = [place for place, value in enumerate(found) if value in left]
            left -= {str(found[place]) for place in places}
            if places:
                yield from self._read(group, places)

    def _read(self, group: _Group, places: Sequence[int], columns: list[str] | None = None) -> list[Row]:
        import pyarrow.parquet

        address = self._files[group.file]
        with readable(address), _opened(address) as file:
            parquet = pyarrow.parquet.ParquetFile(file, metadata=self._footers[group.file], pre_buffer=True)
            rows: list[Row] = parquet.read_row_group(group.index, columns).take(list(places)).to_pylist()
        return rows


def _draw(group: _Group, count: int, seed: int) -> list[int]:
    return sorted(heapq.nsmallest(count, range(group.rows), key=lambda place: rank(seed, f"{group.number}:{place}")))


def _footer(address: str) -> Any:
    import pyarrow.parquet

    with readable(address), _opened(address) as file:
        return pyarrow.parquet.ParquetFile(file).metadata


def _opened(address: str) -> Any:
    """A file, on the Hub or here, that reads nothing ahead: each read is one request for just these bytes."""
    if not address.startswith("hf://"):
        return Path(address).open("rb")
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(address, "rb", cache_type="none")
