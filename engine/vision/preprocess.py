"""From image files to the patches that the vision tower takes, by transformers' own processor (its PIL path, no torch).

The tower's sizes come from the model's configuration, never from the preprocessor's file: published files say two
frames a patch, or nothing, for towers that were trained with one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.files.checkpoint import read_json
from engine.images import read_image
from engine.vision.config import VisionArgs

FILE = "preprocessor_config.json"
COMBINED_FILE = "processor_config.json"
"""The file where newer transformers write the same settings, under `image_processor`."""
MIN_PIXELS, MAX_PIXELS = 10 * 28 * 28, 8000 * 28 * 28
"""The fewest and most pixels of an image as the tower sees it, where no file says otherwise: the model card's 10 and
8,000 tokens."""
_RESAMPLINGS = range(6)  # PIL's numbers


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """patches [P, channels * frames * height * width] float32, with P = t*h*w of `grid` = (t, h, w); row by row of
    merge x merge groups. tokens: places in the prompt. sha256: of the file, in hex."""

    patches: np.ndarray
    grid: tuple[int, int, int]
    tokens: int
    sha256: str


class ImageProcessor:
    """Resizes an image to whole tokens within the pixel limits, keeping its shape, and cuts it into patches.

    Safe to call from several threads. A 4000 x 3000 photo takes about a second and 0.3 GB, 75 MB of them the result.
    """

    def __init__(self, args: VisionArgs, settings: Mapping[str, Any] | None = None, *, source: str = FILE) -> None:
        """settings: those of a preprocessor's file, of which pixel limits, mean, deviation, scale and resampling are
        read; source names it in messages. Raises ModelError for values that make no sense."""
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        if args.in_channels != 3:
            raise ModelError(f"config.json: vision_config.in_channels is {args.in_channels}; images have 3, RGB")
        read = _Settings(settings or {}, source)
        smallest, largest = read.pixel_limits()
        self._merge = args.spatial_merge_size
        self._factor = args.patch_size * args.spatial_merge_size  # pixels along a token
        self._limits = {"min_pixels": smallest, "max_pixels": largest}
        self._processor = Qwen2VLImageProcessorPil(
            do_resize=False,  # done in `prepare`
            patch_size=args.patch_size,
            temporal_patch_size=args.temporal_patch_size,
            merge_size=args.spatial_merge_size,
            image_mean=read.three_numbers("image_mean", OPENAI_CLIP_MEAN),
            image_std=read.three_numbers("image_std", OPENAI_CLIP_STD, positive=True),
            rescale_factor=read.number("rescale_factor", 1 / 255),
        )
        self._resampling = read.resampling()

    @classmethod
    def from_folder(cls, folder: Path, args: VisionArgs) -> ImageProcessor:
        """By the settings that lie beside a model, or the model card's where there are none.

        Raises ModelError: a file that cannot be read, or values that make no sense.
        """
        for name in (FILE, COMBINED_FILE):
            file = folder / name
            if file.is_file():
                settings = read_json(file)
                if name == COMBINED_FILE:
                    settings = settings.get("image_processor") or {}
                return cls(args, settings, source=str(file))
        return cls(args)

    def prepare(self, data: bytes) -> PreparedImage:
        """The patches of an image file. Raises ImageError: see `engine.images.read_image`."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        image = read_image(data)
        height, width = smart_resize(image.height, image.width, self._factor, **self._limits)
        # The processor would do the same to copies of the whole image in arrays: for the largest that are read, a
        # gigabyte more, and three times as long.
        image = image.resize((width, height), self._resampling)
        made = self._processor(images=image)
        t, h, w = (int(n) for n in made["image_grid_thw"][0])
        return PreparedImage(
            patches=made["pixel_values"],
            grid=(t, h, w),
            tokens=t * h * w // self._merge**2,
            sha256=hashlib.sha256(data).hexdigest(),
        )


class _Settings:
    """Typed look-ups in a preprocessor's settings; null counts as missing."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        if not isinstance(values, Mapping):
            raise ModelError(f"{source}: the image processor's settings are no JSON object")
        self.values, self.source = values, source

    def pixel_limits(self) -> tuple[int, int]:
        size = self.values.get("size")
        sizes = size if isinstance(size, Mapping) else {}
        limits = []
        for name, edge, default in (
            ("min_pixels", "shortest_edge", MIN_PIXELS),
            ("max_pixels", "longest_edge", MAX_PIXELS),
        ):
            # transformers means areas by these two edges
            found = [table.get(key) for table, key in ((self.values, name), (sizes, edge), (sizes, name))]
            value = next((each for each in found if each is not None), default)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise self._wrong(name, value, "a positive whole number")
            limits.append(value)
        if limits[0] > limits[1]:
            raise ModelError(f"{self.source}: min_pixels ({limits[0]}) is more than max_pixels ({limits[1]})")
        return limits[0], limits[1]

    def three_numbers(self, name: str, default: list[float], *, positive: bool = False) -> list[float]:
        value = self._get(name, default)
        if not isinstance(value, list) or len(value) != 3 or not all(_is_number(each, positive) for each in value):
            raise self._wrong(name, value, f"three {'positive ' if positive else ''}numbers")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if not _is_number(value, positive=True):
            raise self._wrong(name, value, "a positive number")
        return float(value)

    def resampling(self) -> int:
        value = self._get("resample", 3)  # bicubic
        if isinstance(value, bool) or value not in _RESAMPLINGS:
            raise self._wrong("resample", value, "one of PIL's resampling filters, 0 to 5")
        return int(value)

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _wrong(self, name: str, value: Any, wanted: str) -> ModelError:
        return ModelError(f"{self.source}: {name} is {value!r}, not {wanted}")


def _is_number(value: Any, positive: bool) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or not positive)
