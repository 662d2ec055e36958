"""The files of a model folder, without their weights: `config.json`, the list of shards, safetensors headers.

A header names each tensor with its type, shape and place; reading it costs kilobytes where the file has gigabytes.
Everything that can be said against a folder is said from here, before anything large is read.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine import documents
from engine.errors import ModelError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
RECORD = "conversion.json"
"""The file in a folder of `rsa convert` that says what the folder is becoming, or has become."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model")
"""The files a tokenizer may be in: a folder needs one of them."""

_COUNTED = re.compile(r"(num|n)_(\w+_)?(layers?|blocks|experts|heads)|depth")
_MOST_COUNTED = 10_000
_LONGEST_NAME = 255
"""Characters that file systems allow in the name of a file."""
LISTED = 5
"""Names that an error lists."""

_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
_SAMPLE_BYTES = 1 << 20
"""Bytes read from both ends of each weight file for the fingerprint: hashing all of 19 GB would take half a minute."""
_IDENTITY_SUFFIXES = (".json", ".safetensors", ".model", ".tiktoken", ".jinja")
_IDENTITY_NAMES = ("merges.txt", "vocab.txt")


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far work on a model's files is. The total of a download grows as its files are asked for, from None on."""

    stage: Literal["fetching", "converting", "verifying"]
    done_bytes: int
    total_bytes: int | None


OnProgress = Callable[[FileProgress], None]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor: its type in safetensors' words (`BF16`, `U32`), its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: Path

    @property
    def size(self) -> int:
        """Numbers in it, as stored: packed ones count by the word."""
        return math.prod(self.shape)


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder; ModelError if there is none, it is not a JSON object, or it has a number of
    layers or the like that no model has: building one for each would never end."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; a model is a folder with config.json and *.safetensors")
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} has no config.json, so it is not a model folder")
    config = read_json(folder / CONFIG)
    for key, count in _counts(config):
        if count > _MOST_COUNTED:
            raise ModelError(f"{folder / CONFIG}: {key} is {count}: no model has more than {_MOST_COUNTED:,}")
    return config


def _counts(table: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """How many of its parts a model has, by the names in a table and those inside it."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif isinstance(value, int) and _COUNTED.fullmatch(key):
            yield key, value


def read_json(file: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Raises ModelError."""
    return documents.read_json(file, ModelError)


def find_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The safetensors files of a model that are there, and the names of those that are not.

    Which files those are: what the index names, else all `model*.safetensors`; among these, names of the form
    `model-00002-of-00005` say how many there must be. Raises ModelError for an index that cannot be read.
    """
    index = folder / INDEX
    if index.exists():
        names = _indexed(index)
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors"))
        parts = {(match[2], len(match[1])) for name in names if (match := _SHARD.fullmatch(name))}
        for count, digits in parts:
            names += [f"model-{i:0{digits}}-of-{count}.safetensors" for i in range(1, int(count) + 1)]
        names = sorted(set(names))
    there = [folder / name for name in names if (folder / name).is_file()]
    return there, [name for name in names if not (folder / name).is_file()]


def _indexed(index: Path) -> list[str]:
    """The files that an index names. Raises ModelError."""
    table = read_json(index).get("weight_map")
    names = set(table.values()) if isinstance(table, dict) and all(map(_is_name, table.values())) else None
    if names is None:
        raise ModelError(f"{index} cannot be read: its weight_map should say which file each tensor is in")
    return sorted(names)


def _is_name(value: Any) -> bool:
    """Whether it is the name of a file in the same folder: an index leads nowhere else."""
    return isinstance(value, str) and Path(value).name == value and "\0" not in value and len(value) <= _LONGEST_NAME


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, all of them. Raises ModelError: there are none, or some are missing."""
    there, absent = find_files(folder)
    if absent:
        raise ModelError(
            f"{folder} is incomplete: {len(absent)} of {len(there) + len(absent)} weight files are not there "
            f"({listed(absent)}). Download the model again."
        )
    if not there:
        raise ModelError(f"{folder} has no weights: no model*.safetensors in it")
    return there


def read_headers(files: Iterable[Path]) -> dict[str, TensorInfo]:
    """All tensors of some files by name. Raises ModelError: a file is not whole, or two hold the same name."""
    found: dict[str, TensorInfo] = {}
    for file in files:
        add_header(found, file)
    return found


def add_header(found: dict[str, TensorInfo], file: Path) -> None:
    """Add the tensors of a file to those of others. Raises ModelError, as `read_headers`; then nothing is added."""
    header = read_header(file)
    if twice := sorted(header.keys() & found.keys()):
        other = found[twice[0]].file
        raise ModelError(
            f"{len(twice)} tensors are in {other.name} and again in {file.name} ({listed(twice)}): remove the file "
            f"that does not belong in {file.parent}"
        )
    found |= header


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Tensors of a safetensors file by name. Raises ModelError unless the file is as long as its header promises."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
            if size < _HEADER_LENGTH_BYTES or not 2 <= length <= min(size - _HEADER_LENGTH_BYTES, _MAX_HEADER_BYTES):
                raise ModelError(f"{file} is not a safetensors file, or was cut off in its header")
            header = documents.json_object(stream.read(length))
        tensors = {name: _tensor(entry, file) for name, entry in header.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{file} has an unreadable safetensors header: {error!r}") from error
    promised = _HEADER_LENGTH_BYTES + length + max(ends, default=0)
    if size < promised:
        raise ModelError(f"{file} is cut off: {size:,} of {promised:,} bytes are there. Download it again.")
    return tensors


def _tensor(entry: dict[str, Any], file: Path) -> TensorInfo:
    begin, end = entry["data_offsets"]
    return TensorInfo(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), int(end) - int(begin), file)


def fingerprint(folder: Path) -> str:
    """16 hex digits that change with the weights, the configuration or the tokenizer of a model folder.

    Weight files enter by name, size and both ends, other files whole. Raises ModelError for one that cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.iterdir()):
        if file.suffix in _IDENTITY_SUFFIXES or file.name in _IDENTITY_NAMES:
            try:
                _add_file(digest, file)
            except OSError as error:
                raise ModelError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()


def _add_file(digest: hashlib.blake2b, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{file.name}:{size};".encode())
    with file.open("rb") as stream:
        digest.update(stream.read(_SAMPLE_BYTES) if file.suffix == ".safetensors" else stream.read())
        if file.suffix == ".safetensors" and size > _SAMPLE_BYTES:
            stream.seek(max(size - _SAMPLE_BYTES, _SAMPLE_BYTES))
            digest.update(stream.read())


def listed(names: Sequence[str], between: str = ", ", total: int | None = None) -> str:
    """The first few of some names, and how many more there are; of `total`, where not all are given."""
    more = (len(names) if total is None else total) - LISTED
    return between.join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
