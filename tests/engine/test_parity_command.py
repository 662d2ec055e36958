"""`python -m engine.parity`: what it writes, and what wrong inputs are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from engine import parity
from engine.families.zaya.config import ImageMask

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = GOLDEN / "tiny_hf"
NANO = Path(parity.__file__).parent / "weights" / "nano"
TOLERANCE = 2e-4
REFERENCE = {"prefix": "fa2", "block": "block", "pair": "pair", "causal": "causal"}

Arrays = dict[str, Any]


def two_images() -> Arrays:
    golden = np.load(GOLDEN / "tiny_vl_masks.npz")
    return {"ids": golden["two_ids"], "pixel_values": golden["two_pv"], "grid_thw": golden["two_grid"]}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Save the inputs, run the command on them: exit code and the file that it was to write."""

    def command(arrays: Arrays, *options: str, model: Path = MODEL) -> tuple[int, Path]:
        np.savez(tmp_path / "in.npz", **arrays)
        out = tmp_path / "out"  # the name is kept as it is given
        return parity.main([str(model), str(tmp_path / "in.npz"), str(out), *options]), out

    return command


@pytest.mark.parametrize("how", [None, *REFERENCE])
def test_logits_equal_those_of_the_authors_code(run: Callable[..., tuple[int, Path]], how: str | None) -> None:
    code, out = run(two_images(), *([] if how is None else ["--image-mask", how]))
    assert code == 0
    written, golden = np.load(out), np.load(GOLDEN / "tiny_vl_masks.npz")
    expected = golden[f"two_{REFERENCE[how or 'prefix']}"]
    assert written["logits"].dtype == written["vision_features"].dtype == np.float32
    assert written["vision_features"].shape == (10, 64)
    np.testing.assert_allclose(written["logits"], expected, rtol=0, atol=TOLERANCE)


def test_text_alone(run: Callable[..., tuple[int, Path]]) -> None:
    reference = np.load(GOLDEN / "tiny_vl_ref.npz")
    code, out = run({"ids": reference["text_ids"][0]})
    assert code == 0
    written = np.load(out)
    assert list(written) == ["logits"]
    np.testing.assert_allclose(written["logits"], reference["text_logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "message"),
    [(MODEL, f"'all'; this model has {', '.join(get_args(ImageMask))}"), ("llama", "has one way to read images")],
    ids=["vl", "llama"],
)
def test_an_image_mask_that_a_model_does_not_have(
    run: Callable[..., tuple[int, Path]],
    make_llama: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: Path | str,
    message: str,
) -> None:
    folder = model if isinstance(model, Path) else make_llama(tmp_path / model)
    assert run({"ids": np.array([5])}, "--image-mask", "all", model=folder)[0] == 2
    assert message in capsys.readouterr().err


def test_a_model_of_mlx_lm(
    run: Callable[..., tuple[int, Path]], make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    code, out = run({"ids": np.array([[5, 6, 7], [5, 6, 8]])}, model=make_llama(tmp_path / "llama"))
    assert code == 0
    logits = np.load(out)["logits"]
    assert logits.shape[:2] == (2, 3)
    np.testing.assert_allclose(logits[0, :2], logits[1, :2], atol=1e-5)
    assert np.abs(logits[0, 2] - logits[1, 2]).max() > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, "has no array called ids; it has pixel_values, grid_thw"),
        ({"ids": np.zeros((1, 2, 3), int)}, r"ids must be \[tokens\] or \[rows, tokens\], not \[1, 2, 3\]"),
        ({"ids": np.zeros((1, 0), int)}, r"ids must be .*, not \[1, 0\]"),
        ({"ids": np.array([1.5])}, "ids must be whole numbers, not float64"),
        ({"ids": np.array([5, 128])}, "ids go from 5 to 128; this model's tokens are 0 to 127"),
        ({"ids": np.array([-1])}, "ids go from -1"),
        ({"ids": np.array([2, 2**40])}, "ids go from 2 to 1099511627776"),
        ({"ids": np.array([1, 127, 127])}, "has 2 image tokens, but its images make 10"),
        ({"pixel_values": None}, "needs pixel_values and grid_thw both, or neither"),
        ({"pixel_values": None, "grid_thw": None}, "has 10 image tokens, but its images make 0"),
        ({"pixel_values": np.zeros((40, 1176))}, r"pixel_values is \[40, 1176\], but grid_thw .* ask for \[40, 588\]"),
        ({"pixel_values": np.array(["a"])}, "pixel_values must be numbers"),
        ({"grid_thw": np.array([[1, 4, 6]])}, r"ask for \[24, 588\]"),
        ({"grid_thw": np.array([[1, 5, 8]])}, "rows and columns must be multiples of 2"),
        ({"grid_thw": np.array([1, 4, 6])}, r"grid_thw must be \[images, 3\]"),
        ({"grid_thw": np.array([[1, 0, 6]])}, "grid_thw must be .* of numbers from 1 on"),
    ],
)
def test_wrong_inputs_are_told_what_is_wrong(
    run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str], change: Arrays, message: str
) -> None:
    code, out = run({name: x for name, x in (two_images() | change).items() if x is not None})
    assert code == 2
    assert not out.exists()
    told = capsys.readouterr().err
    assert told.startswith("engine.parity: ")
    assert told.count("\n") == 1
    assert re.search(message, told)


def test_images_for_a_text_model(run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(two_images() | {"ids": np.array([1, 2])}, model=NANO)[0] == 2
    assert "this model reads text only" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"text"])
def test_a_file_that_is_no_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "in.npz").write_bytes(content)
    assert parity.main([str(MODEL), str(tmp_path / "in.npz"), str(tmp_path / "out")]) == 2
    assert "in.npz cannot be read as an .npz file" in capsys.readouterr().err


def test_one_array_is_no_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "in.npy", np.array([1, 2]))
    assert parity.main([str(MODEL), str(tmp_path / "in.npy"), str(tmp_path / "out")]) == 2
    assert "in.npy cannot be read as an .npz file: it is one array without a name" in capsys.readouterr().err


def test_no_model(run: Callable[..., tuple[int, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(two_images(), model=tmp_path / "absent")[0] == 4
    assert "there is no model folder" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", ids=np.array([1, 2]))
    assert parity.main([str(MODEL), str(tmp_path / "in.npz"), str(tmp_path / "no" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err
