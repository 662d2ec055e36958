"""Image files of all kinds, harmed: an upright RGB picture within bounds, or an error that says what is wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from fuzzing.core import Case, DifferentError, Door
from fuzzing.edits import changed, edits
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from engine.images import MAX_PIXELS, MIN_SIDE_PIXELS, read_image
from rsa import Problem

FILES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    *(("JPEG", mode, {"progressive": True}) for mode in ("L", "CMYK")),
    *(("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True})),
    *(("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "1", {}), ("TIFF", "RGB", {}), ("TIFF", "F", {})),
    *(("TIFF", "I;16", {"compression": "tiff_lzw"}), ("TIFF", "CMYK", {}), ("PPM", "RGB", {}), ("ICO", "RGB", {})),
)
SIZES = ((24, 16), (16, 300), (4, 4), (3, 9))


class Images(Door):
    name = "images"
    share = 48

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._data = [_file(kind, mode, options, size) for kind, mode, options in FILES for size in SIZES[:2]]
        self._data += [_file("PNG", "RGB", {}, size) for size in SIZES[2:]]
        self._data += [b"", b"\0\0\0\x18ftypheic", b"<svg xmlns='x'/>", b"%PDF-1.7", b"RIFF\x10\0\0\0WAVE"]

    @property
    def cases(self) -> SearchStrategy[Case]:
        head = st.fixed_dictionaries({"do": st.just("byte"), "at": st.integers(0, 60_000), "byte": st.integers(0, 255)})
        harm = [st.lists(head, min_size=1, max_size=4), edits(["image"], most=4)]
        return st.fixed_dictionaries({"image": st.integers(0, len(self._data) - 1), "edits": st.one_of(*harm)})

    def enter(self, case: Case) -> str:
        data = self._data[case["image"]]
        for edit in case["edits"]:
            if edit["do"] in ("delete", "empty", "folder", "loop", "dangling"):
                data = b""
            elif edit["do"] != "copy":
                data = changed("image", data, edit)
        problem = Problem("What is it?", images=[data])
        image = read_image(problem.images[0].data)
        width, height = image.size
        if image.mode != "RGB" or min(width, height) < MIN_SIDE_PIXELS or width * height > MAX_PIXELS:
            raise DifferentError(f"a picture out of bounds: {image.mode}, {width} x {height}")
        return "right"


def _file(kind: str, mode: str, options: dict[str, Any], size: tuple[int, int]) -> bytes:
    from PIL import Image

    grey = Image.linear_gradient("L").resize(size)
    image = grey.convert("I").convert("I;16") if mode == "I;16" else grey.convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
