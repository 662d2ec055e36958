"""From the name of a model to an engine that runs it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.backend import import_for_good, load_mlx, on_cpu
from engine.errors import CheckpointError, EngineError, ModelError

if TYPE_CHECKING:
    from engine.mlx.engine import LoadedModel, MLXEngine
    from engine.mlx.tokenizer import ChatTokenizer

NANO = Path(__file__).parent / "weights" / "nano"
"""The built-in model, part of the package."""

_SAMPLE_BYTES = 1 << 20
"""Read from both ends of each weight file for the fingerprint: hashing all of 19 GB would take half a minute."""
_HUB_FILES = ["*.json", "model*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja"]
_IDENTITY_SUFFIXES = (".json", ".safetensors", ".model", ".tiktoken", ".jinja")
_IDENTITY_NAMES = ("merges.txt", "vocab.txt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model")
_LISTED = 5
"""Tensors that an error names."""


def load_engine(
    model: str | Path, *, name: str | None = None, max_rows: int = 64, kv_bytes: int | None = None
) -> MLXEngine:
    """Load a model and start an engine on it; blocks until it is ready.

    model  a folder in the hub's layout, or a hub id (`owner/name`), which is fetched unless it is cached.
    name   what to call it in logs and messages; by default the folder's name or the id.

    Raises BackendError without a working MLX, ModelError for what cannot be found or read, CheckpointError for
    tensors that are not the model's.
    """
    load_mlx()
    import_for_good("engine.mlx.engine")
    from engine.mlx.engine import MLXEngine

    path = resolve(model)
    local = Path(model).expanduser().exists()
    label = name or (path.name if local else str(model))
    source = str(path.resolve()) if local else str(model)  # a run may be resumed from another working directory
    return MLXEngine(lambda: _load(path, label, source=source), max_rows=max_rows, kv_bytes=kv_bytes)


def resolve(model: str | Path) -> Path:
    """The folder of a model: the built-in `nano`, a local one, or the local copy of a hub id, fetched if need be.

    Raises ModelError.
    """
    path = NANO if str(model) == "nano" else Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is no model folder: it has no config.json")
        return path
    if path.exists():
        raise ModelError(f"{path} is a file; a model is a folder with config.json and *.safetensors")
    if str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise ModelError(f"there is no model folder {path}")
    return _fetch(str(model))


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise ModelError(f"{hub_id!r} is neither a folder nor a hub id: {error}") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{hub_id} is not on this machine and the hub cannot be reached. Where there is a network, run "
            f"`hf download {hub_id} --local-dir {hub_id.split('/')[1]}`, copy the folder here and pass its path "
            "with --model"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"the hub does not give out {hub_id}: {error}") from error


def fingerprint(path: Path) -> str:
    """16 hex digits that change with the weights, the configuration or the tokenizer of a model folder.

    Weight files enter by name, size and both ends, other files whole.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path.iterdir()):
        if file.suffix not in _IDENTITY_SUFFIXES and file.name not in _IDENTITY_NAMES:
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES) if file.suffix == ".safetensors" else stream.read())
            if file.suffix == ".safetensors" and size > _SAMPLE_BYTES:
                stream.seek(max(size - _SAMPLE_BYTES, _SAMPLE_BYTES))
                digest.update(stream.read())
    return digest.hexdigest()


def _load(path: Path, name: str, source: str) -> LoadedModel:
    """Load model and tokenizer; on the engine's worker thread."""
    from engine.api import ModelInfo
    from engine.mlx.engine import LoadedModel

    config = _read_json(path / "config.json")
    tokenizer = _load_tokenizer(path, config)  # before the weights: they take a while
    model = _load_zaya(path) if _is_zaya(config) else _load_any(path)
    info = ModelInfo(
        name=name,
        context_tokens=_context_tokens(config),
        fingerprint=fingerprint(path),
        thinks=tokenizer.thinks,
        details={
            "source": source,
            "architecture": config.get("model_type"),
            "device": "cpu" if on_cpu() else "gpu",
        },
    )
    return LoadedModel(model, tokenizer, info)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} cannot be read: it is no JSON object")
    return content


def _context_tokens(config: dict[str, Any]) -> int | None:
    """Positions of the model; those that also see keep their language part's settings apart."""
    text = config.get("text_config")
    found = config.get("max_position_embeddings") or (text or {}).get("max_position_embeddings")
    return int(found) if found else None


def _load_tokenizer(path: Path, config: dict[str, Any]) -> ChatTokenizer:
    import transformers
    from mlx_lm.utils import load_tokenizer

    from engine.mlx.tokenizer import ChatTokenizer

    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer: none of {', '.join(_TOKENIZER_FILES)} is in it")
    end_ids = _end_ids(path, config)
    logs = transformers.utils.logging
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()  # it warns of model types it does not know; tokenizers do not depend on them
    try:
        return ChatTokenizer(load_tokenizer(path, eos_token_ids=end_ids))
    except Exception as error:  # transformers raises what it happens to run into
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"the tokenizer in {path} cannot be loaded ({why}): download the model again") from error
    finally:
        logs.set_verbosity(verbosity)


def _end_ids(path: Path, config: dict[str, Any]) -> list[int]:
    """Token ids that end a completion: the generation config's, else the model config's."""
    file = path / "generation_config.json"
    ids = _read_json(file).get("eos_token_id") if file.is_file() else None
    if ids is None:
        ids = config.get("eos_token_id")
    return [ids] if isinstance(ids, int) else list(ids or [])


def _is_zaya(config: dict[str, Any]) -> bool:
    return str(config.get("model_type", "")).startswith("zaya")


def _load_zaya(path: Path) -> Any:
    from engine.zaya.weights import load

    model, _ = load(path)
    return model


def _load_any(path: Path) -> Any:
    """Any text model that mlx-lm knows. On a CPU in float32 and dequantised: MLX is slow there with the rest."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model, load_model

    from engine.zaya.weights import check_file

    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise ModelError(f"{path} has no weights: no model*.safetensors in it")
    for file in files:
        check_file(file)
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
    return model


def _explain(path: Path, error: Exception) -> ModelError:
    """What mlx-lm says of a model that it cannot load, in one line; of tensors the first few."""
    head, *names = str(error).splitlines() or [""]
    tensors = re.match(r"(Missing|Received) (\d+) parameters", head)
    if tensors is not None:
        kind, count = "missing" if tensors[1] == "Missing" else "not part of this model", int(tensors[2])
        more = f" and {count - _LISTED} more" if count > _LISTED else ""
        listed = ", ".join(name.strip(",.") for name in names[:_LISTED])
        return CheckpointError(f"{path} does not fit its config.json: {count} tensors {kind}: {listed}{more}")
    if head.startswith("Expected shape"):
        return CheckpointError(f"{path} does not fit its config.json: {head[0].lower()}{head[1:]}")
    return ModelError(f"mlx-lm cannot load the model in {path} ({type(error).__name__}: {head})")
