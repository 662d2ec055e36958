"""Loading a checkpoint folder, whatever its layout: checked before anything large is read, read once, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from engine.backend import free_memory_bytes
from engine.errors import CheckpointError, ModelError
from engine.families.zaya import jang
from engine.families.zaya.config import MODEL_TYPES, ModelArgs
from engine.families.zaya.model import Model
from engine.families.zaya.tensors import FLOAT32, check, convert, detect_naming
from engine.files.folder import ModelFolder
from engine.mlx.cpu import on_cpu
from engine.mlx.quantised import Quantised, install, take

_CACHE_BYTES = 256 << 20
"""Freed buffers that MLX may keep while a model is loaded, in bytes."""


def load(
    path: str | Path, dtype: mx.Dtype | None = None, *, keep_quantised: bool | None = None
) -> tuple[Model, ModelArgs]:
    """The model in a folder, ready to run: of the hub's layouts, a community 4-bit bundle, or as `rsa convert` writes.

    dtype           that of the large matrices, of the scales of quantised ones, and so of what is computed; None:
                    float32 on the CPU backend, elsewhere as stored, but bfloat16 where quantised matrices have scales
                    of float16 or become floats: activations exceed float16's 65,504. Router, norms, convolutions and
                    residual scales are float32 always.
    keep_quantised  whether quantised matrices stay so; None: where that is faster, see `stays_quantised`.

    Every byte is read once; besides the model itself there is one of its parameters, and what it is made of, in
    memory at a time.

    Raises ModelError: no folder, no weights, a file that is missing or cannot be read, a configuration that is
    not understood. CheckpointError: the tensors are not those that the configuration asks for.
    """
    return load_folder(ModelFolder(Path(path)), dtype, keep_quantised=keep_quantised)


def load_folder(
    folder: ModelFolder, dtype: mx.Dtype | None = None, *, keep_quantised: bool | None = None
) -> tuple[Model, ModelArgs]:
    """See `load`."""
    if dtype is None and on_cpu():
        dtype = mx.float32
    args, found = open_checkpoint(folder, dtype)
    if keep_quantised is None:
        keep_quantised = stays_quantised(found)
    if found.quantised and dtype is None and (not keep_quantised or _has_float16_scales(found)):
        dtype = mx.bfloat16  # what the published weights were before; float16 scales are no reason to risk its range
    model = build(args, found, dtype, keep_quantised=keep_quantised)
    del found
    model.eval()
    # One by one: what a parameter was made of goes as soon as it is there.
    for _, parameter in tree_flatten(model.parameters()):
        mx.eval(parameter)
        if mx.get_cache_memory() > _CACHE_BYTES:
            mx.clear_cache()
    return model, args


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint under the names of this model's parameters; nothing of it is read yet.

    layout     `vl`, `legacy` or `native` (see `engine.families.zaya.tensors`), `jang`, or `ours`.
    weights    all parameters as floats.
    quantised  those of them that are stored quantised, as they are stored, by the path of their module.
    """

    layout: str
    weights: dict[str, mx.array]
    quantised: dict[str, Quantised]


def stays_quantised(found: Checkpoint) -> bool:
    """Whether this machine is better off with quantised matrices as they are.

    Not on the CPU backend. On CUDA only if bfloat16 ones would take more than half of the memory: MLX's quantised
    products hardly batch there (the 4-bit bundle on an H200: 43 tokens/s with one row, under 15 with sixteen).
    """
    if on_cpu():
        return False
    bfloat16_bytes = 2 * sum(x.size for x in found.weights.values())
    return not mx.cuda.is_available() or bfloat16_bytes > free_memory_bytes() // 2


def _has_float16_scales(found: Checkpoint) -> bool:
    return any(matrix.scales.dtype == mx.float16 for matrix in found.quantised.values())


def open_checkpoint(folder: ModelFolder, dtype: mx.Dtype | None = None) -> tuple[ModelArgs, Checkpoint]:
    """What a folder holds. dtype: of the floats that quantised matrices would become; None: that of their scales.

    Raises what `load` raises, except for tensors that `build` has no place for.
    """
    args = ModelArgs.from_dict(folder.config)
    _ = folder.tensors  # headers, before anything large
    return args, read_checkpoint(folder, args, load_lazily(folder.weight_files), dtype)


def load_lazily(files: list[Path]) -> dict[str, mx.array]:
    """All tensors of some files; each is read when it is needed. Raises ModelError."""
    tensors: dict[str, mx.array] = {}
    for file in files:
        try:
            tensors |= mx.load(str(file))  # type: ignore[arg-type]
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"{file} cannot be read: {error}") from error
    return tensors


def read_checkpoint(
    folder: ModelFolder, args: ModelArgs, tensors: dict[str, mx.array], dtype: mx.Dtype | None
) -> Checkpoint:
    """Bring tensors under the names of this model's parameters. Raises ModelError, CheckpointError."""
    config = folder.config
    if jang.is_bundle(config):
        jang.check_settings(folder, args, {})  # of an unknown kind, the tensors would say less
        floats, quantised = jang.unpack(args, config, tensors, dtype)
        jang.check_settings(folder, args, quantised)
        found = Checkpoint("jang", convert(args, floats), quantised)
    else:
        layout = detect_naming(tensors)
        table = config.get("quantization")
        quantised = take(tensors, table) if isinstance(table, dict) else {}
        if quantised and layout != "ours":
            raise CheckpointError(
                f"{folder.path} holds quantised matrices ({next(iter(quantised))}) in the {layout} layout, which has "
                "none"
            )
        # What `convert` passes on unchanged, it need not see.
        found = Checkpoint(layout, convert(args, tensors), quantised)
    # Joined first and dequantised once, where the bundle's parts would be dequantised one by one.
    for path, matrix in quantised.items():
        found.weights[f"{path}.weight"] = matrix.dequantised(dtype)
    return found


def build(args: ModelArgs, found: Checkpoint, dtype: mx.Dtype | None, *, keep_quantised: bool) -> Model:
    """The model with the checkpoint's parameters, not yet evaluated. Raises CheckpointError if they do not fit it."""
    model = Model(args)
    check(_shapes(found.weights), _shapes(dict(tree_flatten(model.parameters()))))
    weights = {name: _typed(name, x, dtype) for name, x in found.weights.items()}
    if keep_quantised:
        install(model, {path: matrix.scheme for path, matrix in found.quantised.items()})
        for path, matrix in found.quantised.items():
            weights |= (matrix if dtype is None else matrix.cast(dtype)).tensors(path)
    model.load_weights(list(weights.items()))
    return model


def _typed(name: str, x: mx.array, dtype: mx.Dtype | None) -> mx.array:
    if FLOAT32.search(name):
        return x.astype(mx.float32)
    return x if dtype is None else x.astype(dtype)


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
            f"config.json: model_type {config.get('model_type')!r} is neither ZAYA1's nor known to mlx-lm"
        ) from error


def _shapes(tensors: Mapping[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in tensors.items()}
