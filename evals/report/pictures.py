"""Images of problems as data URLs, no larger than a page needs."""

from __future__ import annotations

import warnings
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 900
"""The longer side of a picture, in pixels: enough to read a diagram's labels."""
KEPT_BYTES = 60_000
"""The size below which a file of a kind that browsers know is shown as it is."""
_KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as shown, sizes in pixels. `url` is None if it cannot be shown; `note` then says why."""

    url: str | None
    width: int = 0
    height: int = 0
    note: str = ""


def picture(path: Path) -> Picture:
    """The image in a file. A broken, missing or enormous one becomes a note: a report is not lost for a picture."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Picture(None, note=f"the file cannot be read: {error.strerror}")
    try:
        return _shown(data)
    except Exception as error:
        # Decoders raise whatever they stumble on in a broken file.
        return Picture(None, note=f"the image cannot be read: {type(error).__name__}")


def _shown(data: bytes) -> Picture:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        # A small file may unpack to gigabytes: what Pillow only warns of is too much for a page.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(BytesIO(data)) as image:
            kind = _KINDS.get(image.format or "")
            upright = ImageOps.exif_transpose(image)
            if kind is None or len(data) > KEPT_BYTES or max(upright.size) > 2 * MAX_SIDE:
                upright.thumbnail((MAX_SIDE, MAX_SIDE))
                kind, data = "image/jpeg", _jpeg(upright)
    return Picture(f"data:{kind};base64,{b64encode(data).decode()}", upright.width, upright.height)


def _jpeg(image: Image) -> bytes:
    """The image on white, where it is transparent."""
    from PIL import Image

    opaque = Image.new("RGB", image.size, "white")
    layer = image.convert("RGBA")
    opaque.paste(layer, mask=layer.getchannel("A"))
    file = BytesIO()
    opaque.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()
