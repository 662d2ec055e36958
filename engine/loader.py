"""From the name of a model to an engine that runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.api import COUNTABLE
from engine.backend import import_on_lasting_thread, load_mlx, on_cpu, slow_here
from engine.errors import ModelError, RequestError
from engine.families import family_of
from engine.families import slow_here as slow_kernels
from engine.files import hub
from engine.files.checkpoint import TOKENIZER_FILES, OnProgress
from engine.files.folder import ModelFolder
from engine.files.inspection import ModelReport, describe
from engine.paths import path_named

if TYPE_CHECKING:
    from engine.files.conversion import Conversion
    from engine.mlx.engine import LoadedModel, MLXEngine
    from engine.mlx.features import ImageStore
    from engine.mlx.model import TextModel
    from engine.mlx.tokenizer import ChatTokenizer

NANO = Path(__file__).parent / "weights" / "nano"
"""The built-in model, part of the package."""
_SHORT_PROMPT = [1, 2, 3, 4]
"""Tokens that any vocabulary has."""


def load_engine(
    model: str | Path,
    *,
    name: str | None = None,
    notes: tuple[str, ...] = (),
    max_rows: int | None = None,
    kv_bytes: int | None = None,
    kv_bits: int | None = None,
) -> MLXEngine:
    """Load a model and start an engine on it; blocks until it is ready.

    model  a folder in the hub's layout, or a hub id (`owner/name`), which is fetched unless it is cached.
    name   what to call it in logs and messages; by default the folder's name or the id.
    notes  what people should know of the model: see `engine.api.ModelInfo`. What slows it down here is added.
    max_rows, kv_bytes  as of `engine.mlx.engine.MLXEngine`.
    kv_bits  8: keys and values are kept in 8 bits, so that caches are half as large; 16 or None: as they come.

    Raises RequestError for other `kv_bits`, `max_rows` or `kv_bytes`, or where the model does not take them;
    BackendError without a working MLX, ModelError for what cannot be found or read, or whose weights are damaged,
    CheckpointError for tensors that are not the model's.
    """
    if kv_bits not in (None, 8, 16):
        raise RequestError(f"`kv_bits` = {kv_bits}: should be 8, or 16 for what the model computes")
    if max_rows is not None and not (isinstance(max_rows, int) and 1 <= max_rows < COUNTABLE):
        raise RequestError(f"`max_rows` = {max_rows!r}: should be 1 to {COUNTABLE - 1}")
    if kv_bytes is not None and not (isinstance(kv_bytes, int) and kv_bytes > 0):
        raise RequestError(f"`kv_bytes` = {kv_bytes!r}: should be a number of bytes")
    kept_bits = 8 if kv_bits == 8 else None
    load_mlx()
    import_on_lasting_thread("engine.mlx.engine")
    from engine.mlx.engine import MLXEngine

    path = resolve(model)
    local = path != NANO and path_named(model, ModelError).exists()
    label = name or (path.name if local else str(model))
    source = str(path.resolve()) if local else str(model)  # a run may be resumed from another working directory
    return MLXEngine(
        lambda: _load(ModelFolder(path), label, source, notes, kept_bits), max_rows=max_rows, kv_bytes=kv_bytes
    )


def kernels_here() -> tuple[bool, tuple[str, ...]]:
    """Whether kernels of our own are wanted here, and what keeps some from running, a sentence each; it takes
    as long as compiling them. Raises BackendError without a working MLX."""
    load_mlx()
    from engine.mlx.kernels.launch import slow_start, wanted
    from engine.mlx.sampler import slow_sampling

    return wanted(), (*slow_start(), *slow_sampling(), *slow_kernels())


def resolve(model: str | Path, on_progress: OnProgress | None = None) -> Path:
    """The folder of a model: the built-in `nano`, a local one, or the local copy of a hub id, fetched if need be.

    on_progress is told of the fetching, from other threads. Raises ModelError.
    """
    path = NANO if str(model) == "nano" else path_named(model, ModelError)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is no model folder: it has no config.json")
        return path
    if path.exists():
        raise ModelError(f"{path} is a file; a model is a folder with config.json and *.safetensors")
    if not hub.is_hub_id(str(model)):
        raise ModelError(f"there is no model folder {path}")
    found = hub.find(str(model))
    return hub.fetch(str(model), on_progress=on_progress).path if found is None else found


def locate(model: str | Path) -> Path:
    """The folder of a model that is on this machine, whole or not; nothing is fetched. Raises ModelError."""
    path = NANO if str(model) == "nano" else path_named(model, ModelError)
    if path.is_dir() or not hub.is_hub_id(str(model)):
        return path
    found = hub.cached(str(model))
    if found is None:
        raise ModelError(f"{model} is not on this machine: `rsa models pull {model}` fetches it")
    return found


def convert_model(
    model: str | Path,
    target: Path,
    *,
    bits: int,
    mode: str = "affine",
    group_size: int | None = None,
    dtype: str | None = None,
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Quantise a model into a folder, or go on with that, where its family can: only ZAYA1 today. Verified last.

    group_size: None for 64, or 32 where the mode has no other. dtype: `bf16`, `f16` or `f32` for what stays float;
    None: as stored. Raises BackendError without a working MLX, RequestError, ModelError, CheckpointError.
    """
    folder = ModelFolder(resolve(model, on_progress))
    load_mlx()
    return family_of(folder).convert(
        folder,
        path_named(target, ModelError),
        bits=bits,
        mode=mode,
        group_size=group_size,
        dtype=dtype,
        on_progress=on_progress or (lambda _: None),
    )


def load_model(model: str | Path) -> TextModel:
    """A model without its tokenizer, on this thread. Raises what `load_engine` raises."""
    folder = ModelFolder(resolve(model))
    load_mlx()
    return family_of(folder).load(folder)


def load_tokenizer(model: str | Path) -> ChatTokenizer:
    """The tokenizer of a model on this machine, for texts alone; its folder needs nothing else.

    Raises BackendError without a working MLX, ModelError.
    """
    folder = ModelFolder(locate(model))
    load_mlx()
    import_on_lasting_thread("mlx_lm.utils")  # before transformers, which would remark that there is no PyTorch
    return _load_tokenizer(folder, None)


def model_type_of(model: str | Path) -> str | None:
    """What the configuration of a model on this machine calls its kind; None without a configuration."""
    config = ModelFolder(locate(model)).json("config.json") or {}
    return str(config.get("model_type") or "") or None


def inspect_model(model: str | Path) -> ModelReport:
    """What the files of a model on this machine are and lack; nothing is fetched, and nothing large is read.

    Raises ModelError if there is no such folder, BackendError where its family needs a working MLX.
    """
    folder = ModelFolder(locate(model))
    return describe(folder, family_of(folder))


def _load(folder: ModelFolder, name: str, source: str, notes: tuple[str, ...], kv_bits: int | None) -> LoadedModel:
    """Load model and tokenizer; on the engine's worker thread."""
    from engine.api import ModelInfo
    from engine.mlx.engine import LoadedModel
    from engine.mlx.sampler import slow_sampling

    family = family_of(folder)
    images = family.image_store(folder)
    tokenizer = _load_tokenizer(folder, images)  # before the weights: they take a while
    model = family.load(folder, kv_bits=kv_bits)
    _check_weights(folder, model)
    info = ModelInfo(
        name=name,
        context_tokens=folder.context_tokens,
        # Other caches, other tokens: a run does not go on with them.
        fingerprint=folder.fingerprint + (f"-kv{kv_bits}" if kv_bits is not None else ""),
        thinks=tokenizer.thinks,
        images=images is not None,
        tools=tokenizer.takes_tools,
        notes=(*notes, *model.notes, *slow_sampling(), *slow_here()),
        sampling=folder.recommended_sampling,
        details={
            "source": source,
            "architecture": folder.config.get("model_type"),
            "device": "cpu" if on_cpu() else "gpu",
            **({} if kv_bits is None else {"kv_bits": kv_bits}),
        },
    )
    return LoadedModel(model, tokenizer, info, images)


def _check_weights(folder: ModelFolder, model: TextModel) -> None:
    """That a short prompt leads to numbers that say something. Raises ModelError: better now than as the failure, or
    the gibberish, of every candidate."""
    import mlx.core as mx
    import numpy as np

    logits = model(mx.array([_SHORT_PROMPT]), model.make_cache())[0, -1].astype(mx.float32)
    most, least = np.array(logits).max(), np.array(logits).min()  # a NaN is both
    if np.isfinite(most) and most != least:
        return
    what = "all the same" if most == least else "not finite (NaN or infinity)"
    raise ModelError(f"the weights in {folder.path} are damaged: its logits are {what}. Download the model again")


def _load_tokenizer(folder: ModelFolder, images: ImageStore | None) -> ChatTokenizer:
    path = folder.path
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is in it")
    import transformers
    from mlx_lm.utils import load_tokenizer

    from engine.mlx.tokenizer import ChatTokenizer

    end_ids = folder.end_ids
    logs = transformers.utils.logging
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # it warns of model types it does not know; tokenizers do not depend on them
    try:
        extra: dict[str, Any] = {"model_max_length": sys.maxsize}  # else it warns of long prompts; we refuse them
        wrapped = load_tokenizer(path, tokenizer_config_extra=extra, eos_token_ids=end_ids or None)
        template = None if wrapped.has_chat_template else folder.processors_template
        if template is not None:
            extra["chat_template"] = template
            wrapped = load_tokenizer(path, tokenizer_config_extra=extra, eos_token_ids=end_ids or None)
        return ChatTokenizer(wrapped, images)
    except Exception as error:  # transformers raises what it happens to run into
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"the tokenizer in {path} cannot be loaded ({why}): download the model again") from error
    finally:
        logs.set_verbosity(verbosity)
