"""Arguments of tools: JSON with care, and the text of an XML parameter by the type that its schema gives."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Set
from typing import Any, NoReturn

_INTEGER = re.compile(r"[+-]?\d{1,300}(?:\.0{1,20})?")
_WORDS = {"true": True, "false": False}
_NOTHING = ("null", "none")


def json_value(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, for numbers that are none and for nesting beyond reason, too."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_object(text: str) -> dict[str, Any] | None:
    """The object that a JSON text is; None if it is none."""
    try:
        value = json_value(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def as_text(value: Any) -> str:
    """A value as JSON that any file and any wire can hold."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a half of a pair of surrogates, which JSON can spell
        return json.dumps(value)
    return text


def value_of(text: str, types: Set[str]) -> Any:
    """What a parameter's text stands for, by the JSON types that its schema allows.

    A string is taken as it is; of several types the first that the text can be read as, a string last. Where the schema
    says nothing it is read as JSON if it is some. A text that is of none of the types stays a text: who is called sees
    what is wrong with it.
    """
    if types == {"string"}:
        return text
    if not types:
        readers: list[Callable[[str], Any]] = [json_value]
    else:
        readers = [reader for name, reader in _READERS.items() if name in types]
    for reader in readers:
        try:
            return reader(text.strip())
        except ValueError:
            continue
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_number(text)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _null(text: str) -> None:
    if text.lower() not in _NOTHING:
        raise ValueError


def _boolean(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError
    return _WORDS[text.lower()]


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text.partition(".")[0])


def _number(text: str) -> float | int:
    value = json_value(text.removeprefix("+"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return value


def _of_kind(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json_value(text)
        if not isinstance(value, kind):
            raise ValueError
        return value

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "null": _null,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "array": _of_kind(list),
    "object": _of_kind(dict),
}
