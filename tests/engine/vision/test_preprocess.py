"""Patches of images: equal to transformers' processor, and to what the definition says."""

from __future__ import annotations

import hashlib
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import run

from engine.errors import ImageError, ModelError
from engine.vision.config import VisionArgs
from engine.vision.preprocess import MAX_PIXELS, MIN_PIXELS, ImageProcessor, PreparedImage

ARGS = VisionArgs()
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
LIMITS = {"min_pixels": 10 * 28 * 28, "max_pixels": 300 * 28 * 28}  # few, so that the tests are fast

SIZES = [(30, 40), (4, 9), (28, 28), (57, 43), (333, 251), (640, 479), (1499, 1111), (20, 1999), (2000, 10)]


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def prepared(image: Image.Image, **options: Any) -> PreparedImage:
    return ImageProcessor(ARGS, LIMITS).prepare(encoded(image, **options))


def reference(image: Image.Image | np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """transformers' processor from beginning to end, its resizing too."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    made = Qwen2VLImageProcessorPil(temporal_patch_size=1, **LIMITS)(images=image)
    return made["pixel_values"], tuple(made["image_grid_thw"][0].tolist())


def defined(pixels: np.ndarray, *, merge: int, size: int, frames: int) -> np.ndarray:
    """Patch by patch: pixels [height, width, 3] of 0..255 -> [P, 3 * frames * size * size]."""
    normed = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    patches = []
    for top in range(0, rows, merge):
        for left in range(0, columns, merge):
            for y in range(top, top + merge):
                for x in range(left, left + merge):
                    square = normed[y * size : (y + 1) * size, x * size : (x + 1) * size]
                    patches.append(np.stack([square.transpose(2, 0, 1)] * frames, axis=1).ravel())
    return np.array(patches)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


# ---- pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_equals_transformers_processor(size: tuple[int, int]) -> None:
    image = picture(*size)
    made = prepared(image)
    patches, grid = reference(np.asarray(image))
    assert made.grid == grid
    assert made.patches.dtype == np.float32
    close(made.patches, patches)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("size", [(30, 40), (333, 251), (600, 451)])
def test_equals_the_definition(size: tuple[int, int], frames: int) -> None:
    """Also for two frames a patch, which repeat a still image; one frame must not."""
    args = VisionArgs(temporal_patch_size=frames)
    image = picture(*size)
    made = ImageProcessor(args, LIMITS).prepare(encoded(image))
    t, h, w = made.grid
    assert (t, h % 2, w % 2) == (1, 0, 0)
    resized = np.asarray(image.resize((w * 14, h * 14), Image.Resampling.BICUBIC))
    assert made.patches.shape == (h * w, args.patch_values)
    close(made.patches, defined(resized, merge=2, size=14, frames=frames))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_every_kind_of_pixels_as_transformers_has_it(mode: str) -> None:
    image = picture(70, 50).convert(mode)
    if mode.endswith("A"):
        image.putalpha(picture(70, 50).convert("L"))
    close(prepared(image).patches, reference(image)[0])


def test_turned_as_the_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = prepared(picture(120, 60), exif=exif)
    patches, grid = reference(picture(120, 60).transpose(Image.Transpose.ROTATE_270))
    assert made.grid == grid
    close(made.patches, patches)


@pytest.mark.parametrize("size", SIZES)
def test_size_and_tokens(size: tuple[int, int]) -> None:
    made = prepared(picture(*size))
    _, h, w = made.grid
    assert made.tokens == h * w // 4
    assert LIMITS["min_pixels"] <= h * w * 14 * 14 <= LIMITS["max_pixels"]


def test_named_by_its_bytes() -> None:
    data = encoded(picture(30, 40))
    assert ImageProcessor(ARGS).prepare(data).sha256 == hashlib.sha256(data).hexdigest()


def test_no_usable_image() -> None:
    with pytest.raises(ImageError, match="empty"):
        ImageProcessor(ARGS).prepare(b"")


# ---- settings --------------------------------------------------------------------------------------------------


def settings_of(folder: Path, settings: Any, name: str = "preprocessor_config.json") -> ImageProcessor:
    (folder / name).write_text(json.dumps(settings))
    return ImageProcessor.from_folder(folder, ARGS)


def test_the_tiny_checkpoint(golden: Path) -> None:
    made = ImageProcessor.from_folder(golden / "tiny_hf", ARGS).prepare(encoded(picture(84, 56)))
    assert (made.grid, made.tokens, made.patches.shape) == ((1, 4, 6), 6, (24, 588))


@pytest.mark.parametrize("frames", [2, None, "absent"])
def test_frames_a_patch_are_the_towers(tmp_path: Path, frames: int | str | None) -> None:
    """Two implementations follow the preprocessor's file here, and the tower then gets 1,176 numbers for its 588."""
    settings = {"temporal_patch_size": frames, **LIMITS} if frames != "absent" else LIMITS
    data = encoded(picture(333, 251))
    made = settings_of(tmp_path, settings).prepare(data)
    np.testing.assert_array_equal(made.patches, ImageProcessor(ARGS, LIMITS).prepare(data).patches)


LIMIT_CASES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (MIN_PIXELS, MAX_PIXELS)),
    ({"min_pixels": None, "size": None}, (MIN_PIXELS, MAX_PIXELS)),
    ({"min_pixels": 784, "max_pixels": 7840}, (784, 7840)),
    ({"size": {"shortest_edge": 784, "longest_edge": 7840}}, (784, 7840)),
    ({"size": {"min_pixels": 784, "max_pixels": 7840}}, (784, 7840)),
    ({"max_pixels": 78400, "size": {"shortest_edge": 784, "longest_edge": 7840}}, (784, 78400)),
]


@pytest.mark.parametrize(("settings", "limits"), LIMIT_CASES)
@pytest.mark.parametrize("combined", [False, True])
def test_pixel_limits(tmp_path: Path, settings: dict[str, Any], limits: tuple[int, int], combined: bool) -> None:
    if combined:
        processor = settings_of(tmp_path, {"image_processor": settings}, "processor_config.json")
    else:
        processor = settings_of(tmp_path, settings)
    for side in (5, 700):
        _, h, w = processor.prepare(encoded(picture(side, side))).grid
        expected = {5: -(-(limits[0] ** 0.5) // 28), 700: min(700, limits[1] ** 0.5) // 28}[side] * 2
        assert h == w == expected


def test_other_settings_are_heeded() -> None:
    settings = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "rescale_factor": 0.01, "resample": 0}
    image = picture(56, 56)
    made = ImageProcessor(ARGS, settings).prepare(encoded(image))
    _, h, w = made.grid
    resized = np.asarray(image.resize((w * 14, h * 14), Image.Resampling.NEAREST))
    assert made.patches[0][: 14 * 14].reshape(14, 14) == pytest.approx(resized[:14, :14, 0] * 0.01)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"min_pixels": 0}, "min_pixels is 0, not a positive whole number"),
    ({"max_pixels": "many"}, "max_pixels is 'many'"),
    ({"size": {"longest_edge": 1.5}}, "max_pixels is 1.5"),
    ({"min_pixels": 9000, "max_pixels": 8000}, r"min_pixels \(9000\) is more than max_pixels \(8000\)"),
    ({"image_mean": [0.5]}, "image_mean is .*, not three numbers"),
    ({"image_std": [0.5, 0.5, 0]}, "image_std is .*, not three positive numbers"),
    ({"rescale_factor": True}, "rescale_factor is True"),
    ({"resample": "bicubic"}, "resample is 'bicubic'"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        settings_of(tmp_path, settings)
    assert str(tmp_path / "preprocessor_config.json") in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        ImageProcessor.from_folder(tmp_path, ARGS)


def test_without_settings_the_model_cards_limits_hold(tmp_path: Path) -> None:
    assert ImageProcessor.from_folder(tmp_path, ARGS).prepare(encoded(picture(4, 4))).grid == (1, 8, 8)


def test_quiet() -> None:
    """transformers announces on import that there is no torch; nobody who runs MLX needs to know."""
    program = (
        "import sys; from engine.vision.config import VisionArgs\n"
        "from engine.vision.preprocess import ImageProcessor\n"
        "ImageProcessor(VisionArgs()).prepare(bytes.fromhex(sys.stdin.read()))"
    )
    done = run([sys.executable, "-c", program], text=encoded(picture(30, 40)).hex())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
