"""From the name of a model to an engine that runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.backend import import_on_lasting_thread, load_mlx, on_cpu, slow_here
from engine.errors import CheckpointError, EngineError, ModelError
from engine.files import hub
from engine.files.checkpoint import (
    LISTED,
    TOKENIZER_FILES,
    OnProgress,
    fingerprint,
    read_header,
    read_json,
    weight_files,
)

if TYPE_CHECKING:
    from engine.api import RecommendedSampling
    from engine.families.zaya.convert import Conversion
    from engine.mlx.engine import LoadedModel, MLXEngine
    from engine.mlx.features import ImageStore
    from engine.mlx.model import TextModel
    from engine.mlx.tokenizer import ChatTokenizer

GENERATION_CONFIG = "generation_config.json"
NANO = Path(__file__).parent / "weights" / "nano"
"""The built-in model, part of the package."""


def load_engine(
    model: str | Path,
    *,
    name: str | None = None,
    notes: tuple[str, ...] = (),
    max_rows: int | None = None,
    kv_bytes: int | None = None,
) -> MLXEngine:
    """Load a model and start an engine on it; blocks until it is ready.

    model  a folder in the hub's layout, or a hub id (`owner/name`), which is fetched unless it is cached.
    name   what to call it in logs and messages; by default the folder's name or the id.
    notes  what people should know of the model: see `engine.api.ModelInfo`. What slows it down here is added.

    Raises BackendError without a working MLX, ModelError for what cannot be found or read, CheckpointError for
    tensors that are not the model's.
    """
    load_mlx()
    import_on_lasting_thread("engine.mlx.engine")
    from engine.mlx.engine import MLXEngine

    path = resolve(model)
    local = path != NANO and Path(model).expanduser().exists()
    label = name or (path.name if local else str(model))
    source = str(path.resolve()) if local else str(model)  # a run may be resumed from another working directory
    return MLXEngine(lambda: _load(path, label, source, notes), max_rows=max_rows, kv_bytes=kv_bytes)


def resolve(model: str | Path, on_progress: OnProgress | None = None) -> Path:
    """The folder of a model: the built-in `nano`, a local one, or the local copy of a hub id, fetched if need be.

    on_progress is told of the fetching, from other threads. Raises ModelError.
    """
    path = NANO if str(model) == "nano" else Path(model).expanduser()
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
    path = NANO if str(model) == "nano" else Path(model).expanduser()
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
    """Quantise a ZAYA1 model into a folder, or go on with that: see `engine.families.zaya.convert`. Verified last.

    group_size: None for 64, or 32 where the mode has no other. dtype: `bf16`, `f16` or `f32` for what stays float;
    None: as stored. Raises BackendError without a working MLX, RequestError, ModelError, CheckpointError.
    """
    path = resolve(model, on_progress)
    config = read_json(path / "config.json")
    if not _is_zaya(config):
        raise ModelError(
            f"{path} is a {config.get('model_type')} model; only ZAYA1 models are converted here, others by "
            "`mlx_lm.convert`"
        )
    load_mlx()
    import_on_lasting_thread("engine.families.zaya.convert")
    from engine.families.zaya.convert import convert
    from engine.families.zaya.shards import Settings
    from engine.mlx.quantised import Scheme

    if group_size is None:
        group_size = 64 if mode == "affine" else 32
    scheme = Scheme(bits, group_size, mode)
    return convert(path, target.expanduser(), Settings(scheme, dtype), on_progress or (lambda _: None))


def _load(path: Path, name: str, source: str, notes: tuple[str, ...]) -> LoadedModel:
    """Load model and tokenizer; on the engine's worker thread."""
    from engine.api import ModelInfo
    from engine.mlx.engine import LoadedModel

    config = read_json(path / "config.json")
    images = _load_images(path, config)
    tokenizer = _load_tokenizer(path, config, images)  # before the weights: they take a while
    model = _load_zaya(path) if _is_zaya(config) else _load_any(path)
    info = ModelInfo(
        name=name,
        context_tokens=_context_tokens(config),
        fingerprint=fingerprint(path),
        thinks=tokenizer.thinks,
        images=images is not None,
        notes=(*notes, *slow_here()),
        sampling=recommended_sampling(path),
        details={
            "source": source,
            "architecture": config.get("model_type"),
            "device": "cpu" if on_cpu() else "gpu",
        },
    )
    return LoadedModel(model, tokenizer, info, images)


def recommended_sampling(folder: Path) -> RecommendedSampling | None:
    """How the makers of a model would have it sampled: what its `generation_config.json` names, the rest switched off.

    None if they do not say: there is no such file, it names no sampling, or a value in it is no such value. Neither do
    `do_sample: false` and temperature 0: greedy is meant for a single answer, and N candidates of it would be one.
    Raises ModelError for a file that cannot be read.
    """
    from pydantic import ValidationError

    from engine.api import RecommendedSampling

    file = folder / GENERATION_CONFIG
    table = read_json(file) if file.is_file() else {}
    named = {key: table[key] for key in RecommendedSampling.model_fields if table.get(key) is not None}
    samples = table.get("do_sample")
    if samples is False or (samples is not True and not named):
        return None
    try:
        return RecommendedSampling.model_validate(named)
    except ValidationError:
        return None


def _context_tokens(config: dict[str, Any]) -> int | None:
    """Positions of the model; those that also see keep their language part's settings apart."""
    text = config.get("text_config")
    found = config.get("max_position_embeddings") or (text or {}).get("max_position_embeddings")
    return int(found) if found else None


def _load_images(path: Path, config: dict[str, Any]) -> ImageStore | None:
    """What prepares images for the model; None if it reads text only."""
    if not _is_zaya(config):
        return None
    from engine.families.zaya.config import ModelArgs
    from engine.mlx.features import ImageStore
    from engine.vision.preprocess import ImageProcessor

    args = ModelArgs.from_dict(config)
    if args.vision is None or args.image_token_id is None:
        return None
    marks = [i for i in (args.vision_start_id, args.vision_end_id) if i is not None]
    return ImageStore(ImageProcessor.from_folder(path, args.vision), token_id=args.image_token_id, mark_ids=marks)


def _load_tokenizer(path: Path, config: dict[str, Any], images: ImageStore | None) -> ChatTokenizer:
    import transformers
    from mlx_lm.utils import load_tokenizer

    from engine.mlx.tokenizer import ChatTokenizer

    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is in it")
    end_ids = _end_ids(path, config)
    logs = transformers.utils.logging
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # it warns of model types it does not know; tokenizers do not depend on them
    try:
        extra: dict[str, Any] = {"model_max_length": sys.maxsize}  # else it warns of long prompts; we refuse them
        wrapped = load_tokenizer(path, tokenizer_config_extra=extra, eos_token_ids=end_ids)
        template = None if wrapped.has_chat_template else _processors_template(path)
        if template is not None:
            extra["chat_template"] = template
            wrapped = load_tokenizer(path, tokenizer_config_extra=extra, eos_token_ids=end_ids)
        return ChatTokenizer(wrapped, images)
    except Exception as error:  # transformers raises what it happens to run into
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"the tokenizer in {path} cannot be loaded ({why}): download the model again") from error
    finally:
        logs.set_verbosity(verbosity)


def _processors_template(path: Path) -> str | None:
    """The chat template where models that see may have it: beside their processor, which tokenizers do not read."""
    for name in ("chat_template.json", "processor_config.json"):
        file = path / name
        template = read_json(file).get("chat_template") if file.is_file() else None
        if isinstance(template, str):
            return template
    return None


def _end_ids(path: Path, config: dict[str, Any]) -> list[int]:
    """Token ids that end a completion: the generation config's, else the model config's."""
    file = path / GENERATION_CONFIG
    ids = read_json(file).get("eos_token_id") if file.is_file() else None
    if ids is None:
        ids = config.get("eos_token_id")
    return [ids] if isinstance(ids, int) else list(ids or [])


def _is_zaya(config: dict[str, Any]) -> bool:
    return str(config.get("model_type", "")).startswith("zaya")


def _load_zaya(path: Path) -> TextModel:
    from engine.families.zaya.weights import load

    model, _ = load(path)
    return model


def _load_any(path: Path) -> TextModel:
    """Any text model that mlx-lm knows. On a CPU in float32 and dequantised: MLX is slow there with the rest."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, load_model

    from engine.families.mlx_lm.model import AdaptedModel

    for file in weight_files(path):
        read_header(file)
    try:
        model, config = load_model(path)
        if on_cpu():
            if "quantization" in config:
                model = dequantize_model(model)
            model.set_dtype(mx.float32)
            mx.eval(model.parameters())
    except EngineError:
        raise
    except Exception as error:  # mlx-lm raises what it happens to run into
        raise _explain(path, error) from error
    return AdaptedModel(model)


def _explain(path: Path, error: Exception) -> ModelError:
    """What mlx-lm says of a model that it cannot load, in one line; of tensors the first few."""
    head, *names = str(error).splitlines() or [""]
    tensors = re.match(r"(Missing|Received) (\d+) parameters", head)
    if tensors is not None:
        kind, count = "missing" if tensors[1] == "Missing" else "not part of this model", int(tensors[2])
        more = f" and {count - LISTED} more" if count > LISTED else ""
        listed = ", ".join(name.strip(",.") for name in names[:LISTED])
        return CheckpointError(f"{path} does not fit its config.json: {count} tensors {kind}: {listed}{more}")
    if head.startswith("Expected shape"):
        return CheckpointError(f"{path} does not fit its config.json: {head[0].lower()}{head[1:]}")
    return ModelError(f"mlx-lm cannot load the model in {path} ({type(error).__name__}: {head})")
