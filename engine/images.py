"""From the bytes of an image file to upright RGB pixels, or to an error that says what is wrong with them."""

from __future__ import annotations

import threading
import warnings
from io import BytesIO
from typing import TYPE_CHECKING

from engine.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 1 << 27
"""The largest image, read from its header before anything is decoded: 134 million pixels, room for a 108-megapixel
photo (400 MB as RGB). A few kilobytes of PNG can ask for any number."""
MIN_SIDE_PIXELS = 4
"""The shortest side of an image: less is no picture, but a spacer or a tracking pixel."""
MAX_ASPECT_RATIO = 200
"""The longest side over the shortest, beyond which Qwen's resizing refuses: a side would be rounded to nothing."""

_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF's orientations, and PIL's transposition that undoes each."""
_ORIENTATION = 0x0112

# Where in a file, and what, tells its kind.
_KNOWN = {
    "PNG": (0, (b"\x89PNG",)),
    "JPEG": (0, (b"\xff\xd8\xff",)),
    "WebP": (8, (b"WEBP",)),
    "GIF": (0, (b"GIF8",)),
    "BMP": (0, (b"BM",)),
    "TIFF": (0, (b"II*\0", b"MM\0*")),
}
_UNREAD = {
    "HEIC": (4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")),
    "AVIF": (4, (b"ftypavif",)),
    "JPEG 2000": (4, (b"jP  ",)),
    "JPEG XL": (0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    "PDF": (0, (b"%PDF",)),
    "SVG": (0, (b"<svg", b"<?xml")),
}

_decoding = threading.Lock()
"""The lock held while an image is read: PIL's warnings are silenced for the whole process meanwhile, which two threads
cannot do at once. It also means that one image at a time takes its memory."""


def read_image(data: bytes, *, name: str = "the image") -> Image:
    """The picture in a file: mode RGB, turned upright as its EXIF orientation says, the first frame of several.

    Pixels are those of transformers' own conversion: what is transparent is laid on white; palettes, grey levels
    and CMYK are converted by PIL; colour profiles are ignored. One difference: 16-bit grey levels keep their high
    byte, as PIL keeps it of 16-bit colours, where transformers (by PIL's conversion) makes all from 256 up white.

    name is what messages call the image. Raises ImageError: empty, of no kind in FORMATS, cut off or damaged, more
    than MAX_PIXELS, a side under MIN_SIDE_PIXELS, sides beyond MAX_ASPECT_RATIO, samples of 32 bits.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
            _check_size(image.width, image.height, name)
            image.load()
            return _rgb(_upright(image), name)
        except (ImageError, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise _too_large(name) from None
        except UnidentifiedImageError:
            raise ImageError(_unidentified(data, name)) from None
        except Exception as error:  # PIL raises what its decoders happen to run into
            raise ImageError(f"{name} is damaged or cut off ({error}): save or download it again") from error


def _check_size(width: int, height: int, name: str) -> None:
    size = f"{width:,} x {height:,} pixels"
    if width * height > MAX_PIXELS:
        raise _too_large(name, size)
    if min(width, height) < MIN_SIDE_PIXELS:
        raise ImageError(f"{name} is too small: {size}; each side needs at least {MIN_SIDE_PIXELS}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{name} is too narrow: {size}; one side may be at most {MAX_ASPECT_RATIO} times the other. Cut it up, or "
            "add a margin"
        )


def _too_large(name: str, size: str = "") -> ImageError:
    what = f" ({size})" if size else ""
    return ImageError(f"{name} is too large{what}: more than {MAX_PIXELS / 1e6:.0f} million pixels; make it smaller")


def _unidentified(data: bytes, name: str) -> str:
    kinds = ", ".join(_KNOWN)
    if kind := _kind(data, _KNOWN):
        return f"{name} begins like {kind} but cannot be read: it is cut off or damaged; save or download it again"
    if kind := _kind(data, _UNREAD):
        return f"{name} is in the format {kind}, which is not read here: convert it to one of {kinds}"
    return f"{name} is no image file of a known kind ({kinds})"


def _kind(data: bytes, kinds: dict[str, tuple[int, tuple[bytes, ...]]]) -> str | None:
    return next((kind for kind, (at, marks) in kinds.items() if data.startswith(marks, at)), None)


def _upright(image: Image) -> Image:
    """Turned as its EXIF orientation says. PIL's own `exif_transpose` also rewrites the EXIF data, and fails on
    damaged ones that do no other harm."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # unreadable EXIF data say nothing; PIL raises what it happens to run into
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(Transpose[method])


def _rgb(image: Image, name: str) -> Image:
    from PIL import Image

    if image.mode.startswith("I;16"):
        import numpy as np

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name} has samples of 32 bits, whose black and white are anyone's guess: save it with 8 or 16 bits"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
