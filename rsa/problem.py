"""The problem of a run: its text, its images, and the id that its randomness depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.api import ImagePart
from rsa.errors import ProblemError

ImageLike = ImagePart | bytes | str | Path
"""An image as the bytes of its file, or the path of one."""
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be solved. `id` names it in run logs and seeds all draws."""

    text: str
    images: tuple[ImagePart, ...]
    id: str

    @classmethod
    def read(cls, text: str, images: Sequence[ImageLike] = (), problem_id: str | None = None) -> Problem:
        """Check a problem and load its images. Without an id it gets one made from its content.

        Raises ProblemError for a text that is blank or no Unicode, and for an image that is missing,
        unreadable, or no image.
        """
        if not text.strip():
            raise ProblemError("the problem is empty: give it as text, a file, or on standard input")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProblemError("the problem is not valid Unicode: save it as UTF-8") from None
        parts = tuple(_image(image) for image in images)
        return cls(text, parts, problem_id or _content_id(text, parts))


def image_sha256(image: ImagePart) -> str:
    """What a run log calls an image."""
    return hashlib.sha256(image.data).hexdigest()


def _content_id(text: str, images: tuple[ImagePart, ...]) -> str:
    digest = hashlib.sha256(text.encode())
    for image in images:
        digest.update(bytes.fromhex(image_sha256(image)))
    return digest.hexdigest()[:16]


def _image(image: ImageLike) -> ImagePart:
    if isinstance(image, ImagePart):
        return image
    name, data = ("an image", image) if isinstance(image, bytes) else (f"image {image}", _bytes_of(image))
    if not data.startswith(_SIGNATURES):
        raise ProblemError(f"{name} is empty or no PNG, JPEG, GIF, WebP, BMP or TIFF file")
    return ImagePart(data=data)


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ProblemError(f"cannot read image {path}: {error.strerror}") from None
