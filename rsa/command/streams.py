"""Standard input, output and error of a command: closed, full, of few characters, or a pipe that nobody reads.

Work that is done must not be lost to a display that cannot be written, and an answer that cannot be written is an
error of one line.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_PIPE = 141
"""The exit code of a program whose reader went away (`head`, say), as a shell reports it."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_ESCAPED = "rsa.escaped"
"""The name of `_escaped` among the handlers of what cannot be encoded."""


class OutputError(OSError):
    """Standard output cannot be written; `cause` is why."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write to standard output: {cause.strerror}")
        self.cause = cause


@contextmanager
def standard_streams(trouble_code: int) -> Iterator[None]:
    """Run a command with streams that can be used whatever they are; to be entered once in a process.

    What cannot be written to standard error is dropped. Where standard output cannot be written, what writes raises
    OutputError, and the process ends with a line on standard error and `trouble_code`, or with `EXIT_PIPE` and no
    word if the reader went away.
    """
    _use(closed=_opened())
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        if error.cause.errno == errno.EPIPE:
            raise SystemExit(EXIT_PIPE) from None
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(trouble_code) from None


def _opened() -> set[int]:
    """The descriptors that were closed; they lead nowhere now, and are not given to the next file that is opened."""
    closed = set()
    for descriptor in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    return closed


def _use(*, closed: set[int]) -> None:
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115 - for as long as the process lives
    codecs.register_error(_ESCAPED, _escaped)
    error = _Forgiving(_STDERR, "w", closefd=False)
    sys.stderr = _text(error, sys.stderr, line_buffering=True)
    output = _Output(_STDOUT, "w", closefd=False)
    if _STDOUT in closed:
        output.trouble = OSError(errno.EBADF, "it is closed")
    sys.stdout = _text(output, sys.stdout, line_buffering=output.isatty())


def _text(raw: io.FileIO, instead_of: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = "utf-8"
    if instead_of is not None:
        instead_of.flush()
        encoding = instead_of.encoding
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, _ESCAPED, line_buffering=line_buffering)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What the encoding of a stream lacks, as JSON spells it: lines of JSON stay what they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)), error.end


class _Forgiving(io.FileIO):
    """A file that takes everything, and drops what cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _Output(io.FileIO):
    """A file that raises OutputError once, where it cannot be written, and takes no more from then on."""

    trouble: OSError | None = None
    told = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self.trouble is None:
            try:
                return super().write(data)
            except OSError as error:
                self.trouble = error
        if not self.told:
            self.told = True
            raise OutputError(self.trouble)
        return memoryview(data).nbytes
