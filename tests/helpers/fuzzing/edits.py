"""Harm done to files: edits as plain data, how hypothesis draws them, and their doing.

An edit names what is done (`do`) and a file. Places in a file are fractions of its length in 1/2**20, lines and leaves
of JSON are counted modulo how many there are: every edit means something in every file, so that a case stays one while
it is made shorter. Values are JSON; `{"raw": NAME}` stands for what JSON in Python cannot say, by its name in RAW.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Edit = dict[str, Any]
WHOLE = 2**20
RAW = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "1e400": "1e400",
    "5000 digits": "1" * 5000,
    "deep list": "[" * 60_000 + "]" * 60_000,
    "deep object": '{"a":' * 3000 + "1" + "}" * 3000,
    "half a character": '"\\ud83d"',
    "long text": '"' + "x" * 100_000 + '"',
    "no value": "",
}
WILD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-9, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70)),
    *("", " ", "x", "\0", "1", "nan", "\ud800", "\u202e", "~nosuchuser", "../../x", "a\nb", "\\boxed{", "{{ 7 * 7 }}"),
    *([], [None], [[]], [1, "a"], {}, {"": ""}, {"a": {"b": [1]}}),
    *({"raw": name} for name in RAW),
)
TOML_VALUES = (
    *("1", "0", "-1", "1.5", "nan", "inf", "true", '""', '" "', '"x"', '"4k"', "'~nosuchuser'", "[]", "{}", "[[]]"),
    *("[1, 'a']", "{ a = 1 }", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "0x7fffffffffffffffffff", "1e400"),
    *('"\\u0000"', '"\\ud800"', '"""a\nb"""', "", "= 1", "1" * 5000, "[" * 500 + "]" * 500, "{ a = " * 500 + "1"),
    *("'{{ problem }}'", "'{{ problem }} {{ tails }}'", "'{% for x in tails %}'", "'{{ problem.__class__ }}'"),
    *("'{{ 10 ** 10000 }}{{ problem }}{{ tails }}'", "'{{ problem * 3 }}'", '"a" b = 1', "100000000000000000000000"),
)
PIECES = (
    "\0",
    "\n",
    "\r",
    "\ufeff",
    "\xff",
    "{",
    "}",
    "]",
    '"',
    "\\",
    ",",
    "=",
    "[",
    "#",
    "<",
    "\u2028",
    "é",
    "0",
    " ",
)


def wild() -> SearchStrategy[Any]:
    """Values of JSON that nobody expects somewhere."""
    return st.one_of(
        st.sampled_from(WILD), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12), st.booleans()
    )


def edits(files: Sequence[str], *, most: int = 3) -> SearchStrategy[list[Edit]]:
    """One to `most` edits of these files."""
    return st.lists(_edit(files), min_size=1, max_size=most)


def _edit(files: Sequence[str]) -> SearchStrategy[Edit]:
    file, at, number = st.sampled_from(list(files)), st.integers(0, WHOLE - 1), st.integers(0, 400)
    structured = [name for name in files if name.endswith((".json", ".jsonl", ".safetensors"))] or list(files)
    tables = [name for name in files if name.endswith(".toml")]
    into = {"file": st.sampled_from(structured), "line": number, "leaf": st.integers(0, 4000)}
    kinds: list[dict[str, Any]] = [
        {"do": "byte", "file": file, "at": at, "byte": st.integers(0, 255)},
        {"do": "put", "file": file, "at": at, "text": st.one_of(st.sampled_from(PIECES), st.text(max_size=4))},
        {"do": "cut", "file": file, "at": at, "length": st.integers(1, 300)},
        {"do": "end", "file": file, "at": at},
        {"do": st.sampled_from(("drop line", "double line")), "file": file, "line": number},
        {"do": "swap lines", "file": file, "line": number, "other": number},
        {"do": st.sampled_from(("delete", "empty", "folder", "loop", "dangling")), "file": file},
        {"do": "copy", "file": file, "other": file},
    ]
    leaves: list[dict[str, Any]] = [
        {"do": "value", **into, "value": wild()},
        {"do": st.sampled_from(("nudge", "drop")), **into},
        {"do": "add", **into, "key": st.sampled_from(("x", "", "format", "answer", "\0")), "value": wild()},
        {"do": "same", **into, "other": st.integers(0, 4000)},
    ]
    sides = [{"do": "side", "file": st.sampled_from(tables), "line": number, "value": st.sampled_from(TOML_VALUES)}]
    chosen = [*kinds, *(2 * leaves if structured != list(files) or not tables else []), *(5 * sides if tables else [])]
    return st.one_of([_fixed(kind) for kind in chosen])


def _fixed(parts: dict[str, Any]) -> SearchStrategy[Edit]:
    return st.fixed_dictionaries(
        {key: part if isinstance(part, SearchStrategy) else st.just(part) for key, part in parts.items()}
    )


def apply(folder: Path, edits: Sequence[Edit]) -> None:
    """Do edits to the files of a folder, one after the other; what is not there any more stays so."""
    for edit in edits:
        path = folder / edit["file"]
        if edit["do"] == "copy":
            other = folder / edit["other"]
            if other.is_file() and path.is_file():
                _write(path, other.read_bytes())
        elif edit["do"] in ("delete", "empty", "folder", "loop", "dangling"):
            _replace(path, edit["do"])
        elif path.is_file():
            _write(path, changed(edit["file"], path.read_bytes(), edit))


def _write(path: Path, data: bytes) -> None:
    path.unlink()  # it may be a link to what all cases share
    path.write_bytes(data)


def _replace(path: Path, what: str) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
    if not path.parent.is_dir():
        return
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what in ("loop", "dangling"):
        path.symlink_to(path.name if what == "loop" else "nowhere")


def changed(name: str, data: bytes, edit: Edit) -> bytes:
    """The bytes of a file after an edit inside of it."""
    match edit["do"]:
        case "byte" | "put" | "cut" | "end":
            return _bytes(data, edit)
        case "drop line" | "double line" | "swap lines" | "side":
            return _lines(data, edit)
        case _:
            return _json(name, data, edit)


def _bytes(data: bytes, edit: Edit) -> bytes:
    at = len(data) * edit["at"] // WHOLE
    match edit["do"]:
        case "byte":
            put, skipped = bytes([edit["byte"]]), 1
        case "put":
            put, skipped = edit["text"].encode("utf-8", "surrogatepass"), 0
        case "cut":
            put, skipped = b"", edit["length"]
        case _:
            put, skipped = b"", len(data)
    return data[:at] + put + data[at + skipped :]


def _lines(data: bytes, edit: Edit) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = edit["line"] % len(lines)
    match edit["do"]:
        case "drop line":
            del lines[at]
        case "double line":
            lines.insert(at, lines[at])
        case "swap lines":
            other = edit["other"] % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            left, sign, _ = lines[at].partition(b"=")
            lines[at] = left + b"= " + edit["value"].encode() + b"\n" if sign else lines[at]
    return b"".join(lines)


def _json(name: str, data: bytes, edit: Edit) -> bytes:
    """A leaf of a JSON document: of the whole file, of a line of it, or of the header of a safetensors file."""
    if name.endswith(".jsonl"):
        lines = data.split(b"\n")
        at = edit["line"] % max(len(lines) - 1, 1)
        lines[at] = _document(lines[at], edit)
        return b"\n".join(lines)
    if name.endswith(".safetensors") and len(data) >= 8:
        size = int.from_bytes(data[:8], "little")
        header = _document(data[8 : 8 + size], edit)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    return _document(data, edit)


def _document(data: bytes, edit: Edit) -> bytes:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    box = {"": document}
    places = list(_places(box))
    owner, key = places[edit["leaf"] % len(places)]
    match edit["do"]:
        case "value":
            owner[key] = edit["value"]
        case "nudge":
            owner[key] = _nudged(owner[key])
        case "drop":
            del owner[key]
        case "same":
            other, its_key = places[edit["other"] % len(places)]
            owner[key] = json.loads(json.dumps(other[its_key]))
        case "add" if isinstance(owner[key], dict):
            owner[key][edit["key"]] = edit["value"]
    return written(box[""]).encode() if box else b""


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with a key of it."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    for key, each in items:
        yield value, key
        if isinstance(each, dict | list):
            yield from _places(each)


def _nudged(value: Any) -> Any:
    """A value that is a little different, of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("1" if value[-1:] != "1" else "2")
        case list():
            return value[:-1]
        case dict():
            return dict(list(value.items())[:-1])
        case _:
            return 0


def written(value: Any) -> str:
    """A value as JSON, its `{"raw": NAME}` spelled out."""
    text = json.dumps(value)
    if '{"raw": ' in text:
        for name, spelled in RAW.items():
            text = text.replace(json.dumps({"raw": name}), spelled)
    return text
