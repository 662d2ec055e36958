"""Images of data files: their bytes, whichever way a file holds them, and where a problem's text speaks of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_TAG = re.compile(r"<image (\d+)>")
MAX_PATH_CHARS = 1024
"""The longest path of an image, in characters: longer text is an image itself, in base64."""


def image_path(value: Any, folder: Path) -> Path | None:
    """The file that an image column's value names, from `folder`; None if the value holds the image itself."""
    if isinstance(value, Mapping) and value.get("bytes") is None:
        value = value.get("path")
    if not isinstance(value, str) or len(value) > MAX_PATH_CHARS or value.startswith("data:"):
        return None
    path = folder / value
    return path if is_file(path) or _decoded(value) is None else None


def is_file(path: Path) -> bool:
    """Whether a file is there, and can be looked at: what data files name may be too long for the file system."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def image_bytes(value: Any, folder: Path) -> bytes:
    """The bytes of an image: of `{bytes, path}`, plain bytes, base64, a data URL, or a path from `folder`.

    Raises ValueError for anything else, OSError for a file that cannot be read.
    """
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    if isinstance(value, bytes):
        return value
    path = image_path(value, folder)
    if path is not None:
        return path.read_bytes()
    text = value if isinstance(value, str) else ""
    decoded = _decoded(text.partition(",")[2] if text.startswith("data:") else text)
    if not decoded:
        raise ValueError("no image: neither bytes, base64 nor the path of a file")
    return decoded


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # not in base64, or not even ASCII
        return None


def renumbered(text: str, there: Collection[int]) -> tuple[str, list[int]]:
    """The text with `<image 3>` as `[image k]` if it is the k-th image the text speaks of, and these in order.

    Images come before the text of a prompt, in this order: so the text can point at them. If it speaks of none, all
    that are `there` are shown. Raises ValueError if it speaks of one that is not.
    """
    named = list(dict.fromkeys(int(number) for number in _TAG.findall(text)))
    for number in named:
        if number not in there:
            raise ValueError(f"the problem speaks of <image {number}>, which is not there")
    return _TAG.sub(lambda tag: f"[image {named.index(int(tag[1])) + 1}]", text), named or list(there)
