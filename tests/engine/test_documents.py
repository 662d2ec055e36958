"""Whatever a file holds: a value that can be walked, shown and written again, or one line that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.documents import (
    MAX_DEPTH,
    MAX_TOML_BYTES,
    DocumentError,
    json_object,
    json_value,
    read_json,
    read_toml,
    toml_table,
)

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = LEAVES | st.lists(LEAVES | st.lists(LEAVES, max_size=2), max_size=3)


@given(value=st.dictionaries(st.text(max_size=5), VALUES, max_size=3), ascii_only=st.booleans())
def test_what_json_can_hold_is_read_as_it_was(value: dict[str, Any], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json_value(text) == value
    assert json_object(text.encode()) == value


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 900, 60_000])
def test_nesting_ends_at_one_depth_whatever_the_format_and_the_stack(depth: int) -> None:
    readers: list[tuple[Callable[..., Any], str]] = [
        (json_value, nested(depth + 1)),
        (json_object, f'{{"a": {nested(depth)}}}'),
        (lambda text: toml_table(text.encode()), f"a = {nested(depth)}"),
    ]
    for read, text in readers:
        if depth < MAX_DEPTH:
            read(text)
        else:
            with pytest.raises(DocumentError, match="nested more than 100 deep"):
                read(text)


def test_a_table_of_dotted_keys_is_nested_too() -> None:
    with pytest.raises(DocumentError, match="nested more than 100 deep"):
        toml_table(f"{'.'.join('a' * 500)} = 1".encode())


BAD_TOML = {
    "digits": (b"a = " + b"1" * 5000, "a number in it is too large"),
    "hexadecimal": (b"a = 0x" + b"f" * 5000, "a number in it is too large"),
    "a list of them": (b"a = [{b = 0x1_0000_0000_0000_0000}]", "a number in it is too large"),
    "no UTF-8": (b'a = "\xed\xa0\x80"', r"no UTF-8 text .byte 6"),
    "half a character": (rb'a = "\ud83d"', "no valid TOML: .*line 1"),
    "no table": (b"a\nb", "no valid TOML: .*line 1"),
    "a date": (b"a = 2026-13-45", "no valid TOML: .*line 1"),
}


@pytest.mark.parametrize("case", BAD_TOML)
def test_what_is_wrong_with_toml(case: str) -> None:
    data, words = BAD_TOML[case]
    with pytest.raises(DocumentError, match=words) as caught:
        toml_table(data)
    assert "\n" not in str(caught.value)


def test_numbers_that_a_seed_may_be_and_a_mark_at_the_beginning() -> None:
    assert toml_table(b"\xef\xbb\xbfa = 18446744073709551615") == {"a": 2**64 - 1}


BAD_JSON = {
    "digits": (b'{"a": ' + b"1" * 5000 + b"}", "a number in it has more than 4,300 digits"),
    "no UTF-8": (b'{"a": "\xff"}', r"no UTF-8 text .byte 8"),
    "half a character": (rb'{"a": ["\ud83d"]}', "has half a character"),
    "half a character as a key": (rb'{"a": {"\ud83d": 1}}', "has half a character"),
    "a list": (b"[1]", "it is no JSON object"),
    "cut off": (b'{"a": ', "no JSON: Expecting value"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_what_is_wrong_with_json(case: str) -> None:
    data, words = BAD_JSON[case]
    with pytest.raises(DocumentError, match=words):
        json_object(data)


@given(data=st.binary(max_size=60) | st.text(alphabet="[]{}\"\\u=.,:10naf#\n'd8", max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for read in (json_value, json_object, toml_table):
        try:
            found = read(data)
        except DocumentError:
            continue
        repr(found)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_TOML_BYTES + 1))
    (tmp_path / "broken.json").write_bytes(b"{")
    for read, name, why in (
        (read_toml, "large.toml", "it is larger than 1 MB"),
        (read_toml, "missing.toml", "No such file or directory"),
        (read_json, ".", "Is a directory"),
        (read_json, "broken.json", "no JSON: .*"),
    ):
        with pytest.raises(KeyError, match=f"{name} cannot be read: {why}"):
            read(tmp_path / name, KeyError)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(KeyError, match="/dev/zero cannot be read: it is larger than 1 MB"):
        read_toml(Path("/dev/zero"), KeyError)
