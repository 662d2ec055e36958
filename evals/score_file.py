"""Scoring answers that are already there: JSON lines of answers in, JSON lines of scores out, in the same order."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from array import array
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from math import fsum
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import JsonValue

from engine.documents import DocumentError, json_value
from engine.paths import path_named
from evals.errors import DataError, GoldError
from evals.scorers import make
from evals.scorers.base import whole_characters
from evals.scorers.protocol import Score, Scorer, ScoreStatus
from rsa.results import Record
from rsa.words import in_one_line

IN_FLIGHT = 64
"""Lines read ahead of the one that is written next: the processes of a metric never wait for the file."""
CHUNK_BYTES = 65_536
MAX_LINE_BYTES = 1 << 26
"""A line may have so many; a longer one is no answer, but a file without lines, or without an end."""
KEYS = ("id", "gold", "candidate")


class ScoredLine(Record):
    """What is written for a line. `id` is as it was given."""

    id: str | int
    value: float | None
    status: ScoreStatus
    extracted: str | None
    reason: str


class FileScores(Record):
    """Over the lines of a file.

    n         lines; `scored` of them have a value, and `mean` is over those (None if there are none).
    statuses  lines by status.
    """

    metric: str
    n: int
    scored: int
    mean: float | None
    statuses: dict[ScoreStatus, int]

    @property
    def line(self) -> str:
        """`math: 30 answers, mean 0.5333 over 28 with a value (scored 27, truncated 1, too_hard 2)`."""
        statuses = ", ".join(f"{status} {count}" for status, count in self.statuses.items())
        mean = "no mean" if self.mean is None else f"mean {self.mean:.4f} over {self.scored} with a value"
        return f"{self.metric}: {self.n} answers, {mean} ({statuses or 'none'})"


class _Line:
    """A line on its way: it has a score, or an error, once it is done."""

    def __init__(
        self, place: str, id_: str | int, gold: JsonValue, candidate: str, fields: Mapping[str, JsonValue]
    ) -> None:
        self.place, self.id, self.gold, self.candidate, self.fields = place, id_, gold, candidate, fields
        self.score: Score | None = None
        self.error: DataError | None = None
        self.done = anyio.Event()


class _Tally:
    """What the summary needs of the lines that were written."""

    def __init__(self) -> None:
        self.values = array("d")
        self.statuses: Counter[ScoreStatus] = Counter()

    def take(self, score: Score) -> None:
        self.statuses[score.status] += 1
        if score.value is not None:
            self.values.append(score.value)


Sender = MemoryObjectSendStream[_Line | DataError]
Receiver = MemoryObjectReceiveStream[_Line | DataError]


async def score_file(path: str | Path, metric: str, write: Callable[[str], object]) -> FileScores:
    """Score every line of a JSON lines file by a metric; `-` is standard input.

    A line has `id`, `gold`, `candidate` (what a model wrote, with or without its reasoning) and beside them the fields
    that the metric needs (see `evals.scorers`). `write` is given a `ScoredLine` as a line of JSON for each, in the
    order of the file and as soon as possible. Blank lines are passed over.

    Raises BenchmarkError for an unknown metric; DataError for a file that cannot be read, and for the first line that
    is wrong, by its number: the lines before it have been written then; and what `write` raises (OSError).
    """
    scorer = make(metric)
    tally = _Tally()
    with _opened(path) as file:
        async with scorer:
            send, receive = anyio.create_memory_object_stream[_Line | DataError](IN_FLIGHT)
            async with anyio.create_task_group() as group:
                group.start_soon(_read, file, _name(path), scorer, send)
                error = await _write(receive, write, tally)
                group.cancel_scope.cancel()
    if error is not None:
        raise error
    return FileScores(
        metric=metric,
        n=tally.statuses.total(),
        scored=len(tally.values),
        mean=fsum(tally.values) / len(tally.values) if tally.values else None,
        statuses=dict(tally.statuses.most_common()),
    )


# ---- reading


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path_named(path, DataError).open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    with file:
        yield file


async def _read(file: BinaryIO, name: str, scorer: Scorer, send: Sender) -> None:
    """Send the lines in order, each on its way to a score, until the end or the first that is wrong."""
    async with send, aclosing(_lines(file, name)) as lines, anyio.create_task_group() as group:
        number = 0
        try:
            async for text in lines:
                number += 1
                line = _parsed(f"{name}, line {number}", text)
                if line is not None:
                    group.start_soon(_score, line, scorer)
                    await send.send(line)
        except DataError as error:
            await send.send(error)
        except OSError as error:
            await send.send(DataError(f"cannot read {name}: {error.strerror}"))


async def _lines(file: BinaryIO, name: str) -> AsyncGenerator[bytes]:
    """Lines of a file. Of a pipe or a terminal they are waited for without holding up those that are being scored.

    Raises DataError for one that is too long.
    """
    if not _keeps_waiting(file):
        while line := file.readline(MAX_LINE_BYTES + 1):
            _check_length([line], name)
            yield line
        return
    parts: list[bytes] = []  # of a line whose end has not come yet
    while True:
        await anyio.wait_readable(file.fileno())
        chunk = os.read(file.fileno(), CHUNK_BYTES)
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        parts.append(first)
        _check_length(parts, name)
        for part in others:
            yield b"".join(parts)
            parts = [part]
    yield b"".join(parts)


def _check_length(parts: Sequence[bytes], name: str) -> None:
    if sum(map(len, parts)) > MAX_LINE_BYTES:
        raise DataError(f"{name} has a line of more than {MAX_LINE_BYTES >> 20} MB: give a file of JSON lines")


def _keeps_waiting(file: BinaryIO) -> bool:
    """Whether a read may take until somebody writes."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except io.UnsupportedOperation:
        return False  # an object in memory
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()


def _parsed(place: str, text: bytes) -> _Line | None:
    """A line; None if it is blank. Raises DataError."""
    try:
        decoded = text.decode("utf-8-sig").strip()
        row = json_value(decoded) if decoded else None
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: no UTF-8 text (byte {error.start + 1})") from None
    except DocumentError as error:
        raise DataError(f"{place}: {error}") from None
    if not decoded:
        return None
    if not isinstance(row, dict):
        raise DataError(f"{place}: should be an object with {', '.join(KEYS)}")
    for key in KEYS:
        if key not in row:
            raise DataError(f"{place}: {key} is missing; there are {', '.join(row) or 'no keys'}")
    id_, gold, candidate = (row.pop(key) for key in KEYS)
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        raise DataError(f"{place}: id should be a text or a number, not {json.dumps(id_)[:60]}")
    if not isinstance(candidate, str):
        raise DataError(
            f"{place} ({in_one_line(str(id_))}): candidate should be a text, not {json.dumps(candidate)[:60]}"
        )
    return _Line(place, whole_characters(id_) if isinstance(id_, str) else id_, gold, candidate, row)


# ---- scoring and writing


async def _score(line: _Line, scorer: Scorer) -> None:
    try:
        line.score = await scorer.score(line.candidate, line.gold, line.fields)
    except GoldError as error:
        line.error = GoldError(in_one_line(f"{line.place} ({line.id}): {error}"))
    line.done.set()


async def _write(receive: Receiver, write: Callable[[str], object], tally: _Tally) -> Exception | None:
    """Write the scores in order and count them. Returns what ended it early."""
    async with receive:
        async for line in receive:
            if isinstance(line, DataError):
                return line
            await line.done.wait()
            if line.score is None:
                return line.error
            tally.take(line.score)
            try:
                write(ScoredLine(id=line.id, **line.score.model_dump()).model_dump_json() + "\n")
            except OSError as error:
                return error  # raised from here it would come wrapped in an ExceptionGroup
    return None
