"""Logits of a checkpoint for given inputs: for whoever ports ZAYA1 to another program, or converts a checkpoint.

    python -m engine.parity MODEL INPUTS.npz OUT.npz [--image-mask prefix|block|pair|causal]

runs one pass and writes what it gives, to be held against another program's numbers for the same inputs, or against
those of the same program with other weights. Between float32 implementations of one model logits of up to 27 were
seen to differ by 1e-5 on text and by 6e-5 on prompts with images; differences of 1e-3 are differences in the network.

INPUTS.npz   ids [L] or [B, L], whole numbers, no padding; for prompts with images also pixel_values [P, values of a
             patch] and grid_thw [images, 3] (frames, rows, columns in patches), as the hub's image processor makes
             them, in the order of the rows
OUT.npz      logits [B, L, vocabulary] float32; with images vision_features [M, hidden] float32 too

The logits of all tokens are kept: at ZAYA1's vocabulary of 262,272 that is 1 MB a token. On the CPU everything runs
in float32; elsewhere in the type of the weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

import numpy as np

from engine.errors import EngineError, RequestError

if TYPE_CHECKING:
    from engine.mlx.model import SeeingModel, TextModel
    from engine.vision.tower import VisionTower

_WRONG_INPUT, _NO_MODEL = 2, 4
"""Exit codes, as `rsa` has them."""


@dataclass(frozen=True)
class Inputs:
    """ids [B, L] of whole numbers; pixel_values [P, values of a patch] float32 and grids for prompts with images."""

    ids: np.ndarray
    pixel_values: np.ndarray | None = None
    grids: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def read(cls, file: Path) -> Inputs:
        """Raises RequestError: the file cannot be read, or what is in it cannot be a model's input."""
        try:
            with file.open("rb") as stream:
                arrays = np.load(stream, allow_pickle=False)
                if not isinstance(arrays, np.lib.npyio.NpzFile):
                    raise RequestError(f"{file} cannot be read as an .npz file: it is one array without a name (.npy)")
                found = {name: arrays[name] for name in ("ids", "pixel_values", "grid_thw") if name in arrays}
                names = ", ".join(arrays) or "nothing"
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise RequestError(f"{file} cannot be read as an .npz file: {error}") from error
        if "ids" not in found:
            raise RequestError(f"{file} has no array called ids; it has {names}")
        if ("pixel_values" in found) != ("grid_thw" in found):
            raise RequestError(f"{file} needs pixel_values and grid_thw both, or neither; it has {names}")
        ids = np.atleast_2d(_numbers(found["ids"], "ids", whole=True))
        if ids.ndim != 2 or not ids.size:
            raise RequestError(f"ids must be [tokens] or [rows, tokens], not {list(found['ids'].shape)}")
        if "grid_thw" not in found:
            return cls(ids)
        grids = _numbers(found["grid_thw"], "grid_thw", whole=True)
        if grids.ndim != 2 or grids.shape[1] != 3 or not grids.size or grids.min() < 1:
            raise RequestError(f"grid_thw must be [images, 3] of numbers from 1 on, not {list(grids.shape)}")
        pixels = _numbers(found["pixel_values"], "pixel_values").astype(np.float32)
        return cls(ids, pixels, tuple((int(t), int(h), int(w)) for t, h, w in grids))

    def check(self, model: TextModel) -> None:
        """Raises RequestError: the model has no such tokens, or cannot take such images."""
        known = model.vocab_size
        if self.ids.min() < 0 or (known is not None and self.ids.max() >= known):
            raise RequestError(
                f"ids go from {self.ids.min()} to {self.ids.max()}; this model's tokens are 0 to {(known or 0) - 1}"
            )
        if self.pixel_values is None:
            return
        tower: VisionTower | None = getattr(model, "vision_tower", None)
        if tower is None:
            raise RequestError("pixel_values were given, but this model reads text only (no vision_config)")
        merge = tower.args.spatial_merge_size
        if any(h % merge or w % merge for _, h, w in self.grids):
            raise RequestError(f"grid_thw: rows and columns must be multiples of {merge}, not {list(self.grids)}")
        expected = (sum(t * h * w for t, h, w in self.grids), tower.args.patch_values)
        if self.pixel_values.shape != expected:
            raise RequestError(
                f"pixel_values is {list(self.pixel_values.shape)}, but grid_thw {[list(grid) for grid in self.grids]} "
                f"and this model's patches ask for {list(expected)}"
            )


def _numbers(x: np.ndarray, name: str, *, whole: bool = False) -> np.ndarray:
    if x.dtype.kind not in ("iu" if whole else "iuf"):
        raise RequestError(f"{name} must be {'whole numbers' if whole else 'numbers'}, not {x.dtype}")
    return x


def run(model: TextModel, inputs: Inputs) -> dict[str, Any]:
    """The arrays of OUT.npz. Raises RequestError: the inputs do not fit the model, or each other."""
    import mlx.core as mx

    inputs.check(model)
    ids = mx.array(inputs.ids.astype(np.int32))  # `check` has seen them: a larger number would have come out as another
    if not hasattr(model, "embed"):
        return {"logits": np.array(model(ids, cache=model.make_cache()).astype(mx.float32))}
    seeing, out, features = cast("SeeingModel", model), {}, None
    if inputs.pixel_values is not None and seeing.vision_tower is not None:
        features = seeing.vision_tower(mx.array(inputs.pixel_values), inputs.grids)
        out["vision_features"] = np.array(features.astype(mx.float32))
    embeddings, image_mask = seeing.embed(ids, features)
    logits = seeing(ids, cache=seeing.make_cache(), input_embeddings=embeddings, image_mask=image_mask)
    return {"logits": np.array(logits), **out}


def _set_image_mask(model: TextModel, how: str) -> None:
    known: Sequence[str] = getattr(model, "image_masks", ())
    if how not in known:
        raise RequestError(
            f"--image-mask is {how!r}; this model has " + (f"{', '.join(known)}" if known else "one way to read images")
        )
    cast("SeeingModel", model).set_image_mask(how)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for inputs that are wrong, 4 for a model that cannot be had."""
    options = _options(arguments)
    try:
        inputs = Inputs.read(options.inputs)
        from engine.loader import load_model

        model = load_model(options.model)
        if options.image_mask is not None:
            _set_image_mask(model, options.image_mask)
        arrays = run(model, inputs)
    except EngineError as error:
        print(f"engine.parity: {error}", file=sys.stderr)
        return _WRONG_INPUT if isinstance(error, RequestError) else _NO_MODEL
    try:
        with options.out.open("wb") as stream:  # numpy would add .npz to a name without it
            np.savez(stream, **arrays)
    except OSError as error:
        print(f"engine.parity: {options.out} cannot be written: {error}", file=sys.stderr)
        return _WRONG_INPUT
    shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items())
    print(f"{options.out}: {shapes}", file=sys.stderr)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engine.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder (hub layout, 4-bit bundle, converted) or hub id")
    parser.add_argument("inputs", metavar="INPUTS.npz", type=Path)
    parser.add_argument("out", metavar="OUT.npz", type=Path)
    parser.add_argument(
        "--image-mask", metavar="NAME", help="who sees whom around images; default: as config.json says"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
