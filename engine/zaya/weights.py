"""Reading a checkpoint folder: `config.json` and safetensors files, checked before anything large is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from engine.errors import CheckpointError, ModelError
from engine.zaya.config import MODEL_TYPES, ModelArgs
from engine.zaya.cpu import on_cpu
from engine.zaya.model import Model
from engine.zaya.tensors import FLOAT32, check, convert

_HEADER_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format


def load(path: str | Path, dtype: mx.Dtype | None = None) -> tuple[Model, ModelArgs]:
    """The model in a folder, ready to run.

    dtype is that of the large matrices; None: float32 on the CPU backend, elsewhere as stored. Router, norms,
    convolutions and residual scales are float32 always.

    Raises ModelError: no folder, no weights, a file that is missing or cannot be read, a configuration that is
    not understood. CheckpointError: the tensors are not those that the configuration asks for.
    """
    folder = Path(path)
    args = ModelArgs.from_dict(read_config(folder))
    files = weight_files(folder)
    for file in files:
        check_file(file)
    if dtype is None and on_cpu():
        dtype = mx.float32
    tensors: dict[str, mx.array] = {}
    for file in files:
        tensors |= _load_file(file)
    model = Model(args)
    weights = convert(args, tensors)
    del tensors
    parameters = dict(tree_flatten(model.parameters()))
    check(_shapes(weights), _shapes(parameters))
    if dtype is not None:
        weights = {name: x if FLOAT32.search(name) else x.astype(dtype) for name, x in weights.items()}
    model.load_weights(list(weights.items()))
    del weights, parameters
    model.eval()
    # One layer at a time: the file's tensors can be let go of as soon as they are stacked.
    for layer in model.layers:
        mx.eval(layer.parameters())
    mx.eval(model.parameters())
    return model, args


def get_model_classes(config: dict[str, Any]) -> tuple[type[nn.Module], type[Any]]:
    """Model class and arguments class, for `mlx_lm.utils.load_model(..., get_model_classes=get_model_classes)`.

    Model types other than ZAYA1's are left to mlx-lm. Raises ModelError if that has none either.
    """
    if config.get("model_type") in MODEL_TYPES:
        return Model, ModelArgs
    from mlx_lm import utils

    others: Callable[[dict[str, Any]], tuple[type[nn.Module], type[Any]]] = utils._get_classes
    try:
        return others(config)
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"config.json: model_type {config.get('model_type')!r} is neither ZAYA1's nor known to mlx-lm."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder; ModelError if there is none, or it is not a JSON object."""
    file = folder / "config.json"
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; a model is a folder with config.json and *.safetensors.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json, so it is not a model folder.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} is not a JSON object.")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: those that its index names, else all `model*.safetensors`.

    Raises ModelError: there are none, or the index names one that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} cannot be read: {error!r}.") from error
        absent = [name for name in names if not (folder / str(name)).is_file()]
        if absent:
            raise ModelError(
                f"{folder} is incomplete: {index.name} names {len(absent)} file(s) that are not there "
                f"({', '.join(map(str, absent[:5]))}). Download the model again."
            )
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(f"{folder} has no weights: no model*.safetensors in it.")
    return files


def check_file(file: Path) -> None:
    """Raise ModelError unless the file is whole: its length must be what its header promises."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
        if size < _HEADER_LENGTH_BYTES or not 2 <= length <= min(size - _HEADER_LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ModelError(f"{file} is not a safetensors file, or was cut off in its header.")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ModelError(f"{file} has an unreadable safetensors header: {error!r}.") from error
    promised = _HEADER_LENGTH_BYTES + length + max(ends, default=0)
    if size < promised:
        raise ModelError(f"{file} is cut off: {size:,} of {promised:,} bytes are there. Download it again.")


def _load_file(file: Path) -> dict[str, mx.array]:
    try:
        tensors = mx.load(str(file))
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{file} holds no named tensors.")
    return tensors


def _shapes(tensors: dict[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}
