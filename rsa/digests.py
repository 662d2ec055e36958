"""Digests in the files of a folder: whoever reads one notices that it is not what was written.

A record (a file that is written at once) ends with the digest of what it says. Each line of a file of lines ends with a
digest of what it says and of the line before it, so that one that was changed, moved or taken out shows; such a chain
starts at the digest of a record, or at nothing. This is a check against accidents and quiet edits. It is no signature:
who means to deceive can compute all digests anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from rsa.errors import RSAError

CHANGED, BARE = "is not what was written there", "has no digest"
"""What can be wrong with what is read: it differs from its digest, or it has none."""
TAKEN = "taken on trust"
"""How a note begins."""
_BYTES = 8
_TAIL = re.compile(rb',\s*"digest":\s*"([^"\\]*)"\s*}\s*')


class Sealed(NamedTuple):
    """What goes into a file, and the digest at its end."""

    data: bytes
    digest: str


class Found(NamedTuple):
    """What stood in a file.

    content  the JSON without its digest.
    digest   the one that was recorded, or of what has none the one that it should have.
    fault    CHANGED or BARE; "" for what is as it was written.
    """

    content: bytes
    digest: str
    fault: str


def seal(content: bytes, before: str = "") -> Sealed:
    """A JSON object with the digest of itself, and of what it follows, as its last key."""
    digest = _digest(content, before)
    laid_out = content.endswith(b"\n}")
    tail = f',\n "digest": "{digest}"\n}}' if laid_out else f',"digest":"{digest}"}}'
    return Sealed(content[: -2 if laid_out else -1] + tail.encode(), digest)


def unseal(data: bytes, before: str = "") -> Found:
    """What `seal` was given, and whether it is still that."""
    at = data.rfind(b",")
    tail = _TAIL.fullmatch(data, at) if at >= 0 else None
    if tail is None:
        return Found(data, _digest(data, before), BARE)
    laid_out = data[at + 1 : at + 2] == b"\n"
    content = data[:at] + (b"\n}" if laid_out else b"}")
    recorded = tail[1].decode(errors="replace")
    return Found(content, recorded, "" if recorded == _digest(content, before) else CHANGED)


def unseal_lines(lines: Iterable[bytes], before: str = "") -> Iterator[tuple[int, Found]]:
    """The lines of a chain, and how many bytes each has.

    A line that was changed is followed by what was written after it: each fault is told once. Of lines without digests
    the first is told alone.
    """
    bare = False
    for line in lines:
        found = unseal(line, before)
        before = found.digest
        yield len(line), found._replace(fault="") if bare and found.fault == BARE else found
        bare = bare or found.fault == BARE


def _digest(content: bytes, before: str) -> str:
    state = blake2b(before.encode() + b"\n", digest_size=_BYTES)
    state.update(content)
    return state.hexdigest()


class Trust:
    """What becomes of things that are not as they were written: they are refused; or, where trust is `given`, they are
    taken as they are, and that is noted.

    folder  names in notes are relative to it.
    notes   a sentence for each thing that was taken on trust, to be recorded with what follows from it.
    """

    def __init__(self, folder: Path, *, given: bool = False) -> None:
        self.folder, self.given = folder, given
        self.notes: list[str] = []

    def doubt(self, path: Path, fault: str, error: type[RSAError], *, line: int | None = None) -> None:
        """Raises `error`, which names the file and its line and says what to do; or notes it."""
        at = "" if line is None else f", line {line},"
        if not self.given:
            raise error(f"{path}{at} {fault}: put it back as it was, or take it as it is with `trust`")
        name = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        note = f"{TAKEN}: {name}{at} {fault}"
        if note not in self.notes:
            self.notes.append(note)


STRICT = Trust(Path())
"""Refuses whatever is not as it was written."""
