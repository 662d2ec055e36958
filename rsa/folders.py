"""What run folders and results folders share: files that are there whole or not at all, the lock, what differs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, TypeVar

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from rsa.digests import STRICT, Trust, seal, unseal
from rsa.errors import ConfigError, RSAError, RunLockedError, UnknownPolicyError
from rsa.words import shortened

LOCK = "lock"
MAX_SHOWN = 60
"""Characters of a value that a message shows."""
_KINDS = {"run.json": "a run", "eval.json": "an evaluation", "asked.json": "a tuning"}
"""What folders of this project hold, by the file that is written first there. No folder holds two of them."""
ModelT = TypeVar("ModelT", bound=BaseModel)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    with written_aside(path) as file:
        file.write(data)


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in pieces, which takes its place when all of it is on the disk; after an error it never does."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_whole(file: IO[bytes], data: bytes) -> None:
    """Write to the end of a file that keeps nothing in a buffer: what a full disk did not take, closing the file would
    try once more. Raises OSError; a part may be in the file then."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if it is not there. Raises OSError, whose `strerror` says what is wrong."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        what = f"a link to {there.readlink()}, which is not there" if there.is_symlink() else "a file"
        raise FileExistsError(error.errno, f"{there} is {what}") from None


def check_other_kinds(folder: Path, first: str, error: type[RSAError]) -> None:
    """Raises `error` if a folder that is to hold what begins with the file `first` holds something else of ours."""
    for file, what in _KINDS.items():
        if file != first and (folder / file).exists():
            raise error(f"{folder} holds {what} ({file}): choose another folder")


def lock_folder(folder: Path) -> IO[bytes]:
    """The folder's lock file, locked; closing it lets go, and so does the end of the process, however it ends.

    Raises RunLockedError if another process holds it.
    """
    import fcntl

    lock = (folder / LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunLockedError(f"another process is working in {folder}: wait for it or stop it") from None
    return lock


def write_record(path: Path, record: BaseModel, *, indent: int | None = None, before: str = "") -> str:
    """Write a record with its digest, which is returned, as a file that is there whole or not at all.

    before  the digest of what it follows. Raises OSError.
    """
    data, digest = seal(record.model_dump_json(indent=indent).encode(), before)
    write_atomically(path, data)
    return digest


def read_record(
    path: Path, kind: type[ModelT], error: type[RSAError], *, trust: Trust = STRICT, before: str = ""
) -> ModelT:
    """The record in a JSON file, as `write_record` wrote it. Raises `error` if it is missing, cannot be understood, or
    was changed and is not taken on trust."""
    found = unseal(_bytes_of(path, error), before)
    record = _understood(path, found.content, kind, error)
    if found.fault:
        trust.doubt(path, found.fault, error)
    return record


def read_versioned(
    path: Path,
    kind: type[ModelT],
    error: type[RSAError],
    current: int,
    *,
    instead: str,
    trust: Trust = STRICT,
) -> ModelT:
    """As `read_record`, of a record whose `format` must be `current`. Raises `error`, also for what another version
    wrote: then it says what to do `instead`."""
    found = _understood(path, unseal(_bytes_of(path, error)).content, _Format, error).format
    if found > current:
        raise error(f"{path.parent} was written by a newer version (format {found}): update")
    if found < current:
        raise error(
            f"{path.parent} was written by an older version (format {found}), which this one cannot read: {instead}"
        )
    return read_record(path, kind, error, trust=trust)


def _bytes_of(path: Path, error: type[RSAError]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as trouble:
        raise error(f"cannot read {path}: {trouble.strerror}") from None


def _understood(path: Path, content: bytes, kind: type[ModelT], error: type[RSAError]) -> ModelT:
    try:
        return kind.model_validate_json(content)
    except UnknownPolicyError as missing:
        raise error(
            f"{path} has {missing.policy}, and no policy that is installed here is called so: install the package that "
            "brings it"
        ) from None
    except (ValidationError, ConfigError) as trouble:
        raise error(f"{path} cannot be understood: {str(trouble).splitlines()[0]}") from None


class _Format(BaseModel):
    """What every version writes; the first one called it otherwise in results.json."""

    format: int = Field(validation_alias=AliasChoices("format", "schema_version"))


def what_differs(theirs: Mapping[str, object], mine: Mapping[str, object]) -> tuple[tuple[str, ...], str]:
    """The keys whose values are not the same in both, and in words what each was and is now."""
    keys = tuple(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))
    return keys, "; ".join(f"{key}: {_shown(theirs.get(key))}, now {_shown(mine.get(key))}" for key in keys)


def _shown(value: object) -> str:
    return shortened(repr(value), MAX_SHOWN)


def versions_of(*packages: str) -> dict[str, str]:
    """What is installed, by distribution, and the Python that runs it."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def this_machine() -> dict[str, str | int | None]:
    """What a log says about the machine."""
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
