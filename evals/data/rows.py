"""Rows of local data files as they are: nothing is decoded, and memory holds little more than a row group.

A row is a dict from column to value; an image is what the file has: a struct of bytes and path, or text.

Not through `datasets.load_dataset`, of which three things were measured (5.2, with pyarrow 26). Streaming Parquet, it
keeps what it has read: after 5,000 images of 200 KB the process has 1.3 GB; with what is done here, 0.15 GB. A stream
that is left before its end, as `--limit` does, can hang the interpreter at its exit, when Arrow's threads wait for the
GIL. And its JSON reader guesses a type for each column, which turns "025" into 25 where other answers are numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.documents import DocumentError, json_value
from evals.errors import DataError

Row = dict[str, Any]
PARQUET, TEXT = (".parquet",), (".jsonl", ".json")
ENCODING = "utf-8-sig"
"""The encoding of text files: UTF-8, with or without the mark that Windows programs begin files with."""
BATCH_ROWS = 16
BUFFER_BYTES = 1 << 16
"""The buffer of the stream that a column is read through; without one, a row group's whole column is read at once."""


def file_rows(files: Sequence[Path], leave_out: Collection[str] = ()) -> Iterator[Row]:
    """The rows of parquet, jsonl and json files, one file after the other. A .json file has an array of objects, or an
    object a line as a .jsonl file.

    leave_out  columns, in small letters, that are not even read from a parquet file.

    Raises DataError for a file that cannot be read, with the line where it has lines.
    """
    for file in files:
        if file.suffix in PARQUET:
            yield from _parquet_rows(file, leave_out)
        elif file.suffix in TEXT:
            yield from _array_rows(file) if _is_array(file) else _line_rows(file)
        else:
            raise DataError(f"{file} is no .jsonl, .json or .parquet file")


def _parquet_rows(file: Path, leave_out: Collection[str]) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    with readable(file), ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as parquet:
        columns = [name for name in parquet.schema_arrow.names if name.casefold() not in leave_out]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def _is_array(file: Path) -> bool:
    """Whether a file holds one array, not a line for each row."""
    if file.suffix != ".json":
        return False
    with readable(file), file.open(encoding=ENCODING) as text:
        return next((line.lstrip()[0] for line in text if line.strip()), "") == "["


def _array_rows(file: Path) -> Iterator[Row]:
    with readable(file):
        try:
            rows = json_value(file.read_text(encoding=ENCODING))
        except DocumentError as error:
            raise DataError(f"{file}: {error}") from None
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise DataError(f"{file}, row {number}: should be an object with the columns as keys")
            yield row


def _line_rows(file: Path) -> Iterator[Row]:
    with readable(file), file.open(encoding=ENCODING) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json_value(line)
            except DocumentError as error:
                raise DataError(f"{file}, line {number}: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {number}: should be an object with the columns as keys")
            yield row


@contextmanager
def readable(file: object) -> Iterator[None]:
    """Whatever goes wrong with a file as DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # pyarrow and the file systems each have their own exceptions for a broken file.
        said = str(error).partition("\n")[0]
        raise DataError(f"cannot read {file}: {said or type(error).__name__}") from None
