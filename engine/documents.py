"""JSON and TOML that people and other programs wrote: a value, or one reason why there is none.

Whatever the bytes are, what comes out can be walked, shown and written again: it is not nested beyond reason, its
numbers can be printed, and its texts are whole characters (but for `json_value`, whose callers read data of others).
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_DEPTH = 100
"""Lists and tables inside each other. What walks a value (pydantic, `repr`, `json.dumps`) may call itself so often."""
MAX_TOML_BYTES = 1 << 20
"""Settings and prompts are thousands of times smaller, and the parser takes a second for it."""
MAX_JSON_BYTES = 100_000_000
"""The limit that the safetensors format has for its own JSON."""
_TOML_BITS = 64
"""A whole number may have so many bits (2**64 - 1 is a seed). Larger ones in hexadecimal could not be printed."""


_Parse = Callable[[bytes], dict[str, Any]]


class DocumentError(ValueError):
    """What is wrong with a text, as a clause for people that goes on after its file's name."""


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text; its strings may have halves of characters (lone surrogates), as JSON can spell them.

    Raises DocumentError.
    """
    try:
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise DocumentError(f"no UTF-8 text (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise DocumentError(f"no JSON: {error}") from None
    except ValueError:
        raise DocumentError(f"a number in it has more than {sys.get_int_max_str_digits():,} digits") from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) > MAX_DEPTH:  # type: ignore[arg-type]  # of one type with the text
        _check_depth(value)
    return value


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that a JSON text is. Raises DocumentError."""
    value = json_value(text)
    if not isinstance(value, dict):
        raise DocumentError("it is no JSON object")
    for each in _leaves(value):
        if isinstance(each, str) and not _whole(each):
            raise DocumentError(f"{each!r:.60} has half a character (a lone surrogate) in it")
    return value


def toml_table(data: bytes) -> dict[str, Any]:
    """The table that a TOML document is; a mark that Windows programs begin files with is passed over.

    Raises DocumentError, with the line where there is one.
    """
    try:
        table = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DocumentError(f"no UTF-8 text (byte {error.start + 1})") from None
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"no valid TOML: {error}") from None
    except ValueError:
        raise DocumentError("a number in it is too large") from None
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    _check_depth(table)
    if any(isinstance(each, int) and each.bit_length() > _TOML_BITS for each in _leaves(table)):
        raise DocumentError("a number in it is too large")
    return table


def read_json(path: Path, error: type[Exception]) -> dict[str, Any]:
    """The object in a JSON file. Raises `error`, naming the file."""
    return _parsed(path, contents(path, MAX_JSON_BYTES, error), json_object, error)


def read_toml(path: Path, error: type[Exception]) -> dict[str, Any]:
    """The table in a TOML file. Raises `error`, naming the file."""
    return _parsed(path, contents(path, MAX_TOML_BYTES, error), toml_table, error)


def contents(path: Path, most: int, error: type[Exception]) -> bytes:
    """The bytes of a file, `most` at most: more are not even read. Raises `error`, naming the file."""
    try:
        with path.open("rb") as file:
            return read_all(file, most)
    except OSError as trouble:
        raise error(f"{path} cannot be read: {trouble.strerror}") from None
    except DocumentError as trouble:
        raise error(f"{path} cannot be read: {trouble}") from None


def read_all(file: BinaryIO, most: int) -> bytes:
    """What a file holds, which is `most` bytes at most: a device may never end. Raises DocumentError, OSError."""
    data = file.read(most + 1)
    if len(data) > most:
        raise DocumentError(f"it is larger than {most / 1e6:,.0f} MB")
    return data


def _parsed(path: Path, data: bytes, parse: _Parse, error: type[Exception]) -> dict[str, Any]:
    try:
        return parse(data)
    except DocumentError as trouble:
        raise error(f"{path} cannot be read: {trouble}") from None


_TOO_DEEP = f"lists and tables are nested more than {MAX_DEPTH} deep"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [each for one in level for each in _inside(one) if isinstance(each, dict | list)]
        if not level:
            return
    raise DocumentError(_TOO_DEEP)


def _inside(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _leaves(value: Any) -> Iterator[Any]:
    """Keys, and values that are neither lists nor tables."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        else:
            yield one


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
