"""What a conversion writes into a folder of its own, so that it can be cut off at any moment and gone on with.

A file is written aside, synced and renamed: one that has its name is whole. `conversion.json` says what a folder is
becoming; `config.json` comes last, so that an unfinished folder is no model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.files.checkpoint import RECORD, read_json

_SPARE_BYTES = 64 << 20
"""Bytes left free on the disk beyond what a conversion writes."""
_ASIDE = ".writing-"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished and verified conversion.

    modules      quantised matrices; kept: those that stay float because no group size divides their width.
    worst        the quantised module that lies furthest from its original.
    worst_error  how far: the root mean square of the differences over that of the original. mean_error: of all.
    """

    nbytes: int
    source_nbytes: int
    modules: int
    kept: tuple[str, ...]
    worst: str
    worst_error: float
    mean_error: float


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """The target folder, made if need be, for this process alone."""
    import fcntl

    try:
        target.mkdir(parents=True, exist_ok=True)
        lock = os.open(target, os.O_RDONLY)
    except FileExistsError:
        raise ModelError(f"{target} is a file: a conversion needs a folder of its own") from None
    except OSError as error:
        raise ModelError(f"cannot write into {target}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"another process is converting into {target}: wait for it or stop it") from None
        yield
    finally:
        os.close(lock)


def begin(target: Path, record: dict[str, Any]) -> Conversion | None:
    """Write the record of a conversion, or check that it is the one begun here; gives its result if it is finished."""
    for left in target.glob(f"{_ASIDE}*"):
        left.unlink()
    if not (target / RECORD).is_file():
        if any(target.iterdir()):
            raise ModelError(f"{target} is not empty and holds no conversion: choose another folder")
        write_json(target / RECORD, record)
        return None
    held = read_json(target / RECORD)
    differing = [key for key in record if held.get(key) != record[key]]
    if differing:
        told = "; ".join(f"{key} is {held.get(key)!r} there, {record[key]!r} here" for key in differing)
        raise ModelError(f"{target} holds another conversion ({told}): choose another folder, or remove this one")
    result = held.get("result")
    return Conversion(**{**result, "kept": tuple(result["kept"])}) if result else None


def check_space(target: Path, nbytes: int) -> None:
    free = shutil.disk_usage(target).free
    if free < nbytes + _SPARE_BYTES:
        raise ModelError(
            f"the conversion writes {nbytes / 1e9:.2f} GB into {target}, where {free / 1e9:.2f} GB are free: make "
            "room, or choose a folder on another disk"
        )


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is whole or not there."""
    aside(file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    settle(file)


def aside(file: Path) -> Path:
    """Where a file is written before it has its name."""
    return file.with_name(f"{_ASIDE}{file.name}")


def settle(file: Path) -> None:
    """Give a file that was written aside its name, once its bytes are on the disk."""
    _sync(aside(file))
    aside(file).replace(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
