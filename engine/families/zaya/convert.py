"""Quantising a checkpoint into a folder of its own: shard by shard, resumable, verified.

The result has this model's own names, and its `config.json` says what is quantised as mlx-lm's does, so that `load`
and mlx-lm both read it. `engine.families.zaya.shards` says what is quantised and what is not.

A shard is written aside, synced and renamed: one that has its name is whole, and a conversion that was cut off goes
on with the next. `conversion.json` says what a folder is becoming; `config.json` comes after all shards, so that an
unfinished folder is no model.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx

from engine.errors import ModelError
from engine.families.zaya.jang import JANG_CONFIG
from engine.families.zaya.shards import Item, Settings, Shard, is_quantisable, plan
from engine.families.zaya.weights import Checkpoint, build, load_lazily, open_checkpoint
from engine.files.checkpoint import (
    CONFIG,
    INDEX,
    RECORD,
    FileProgress,
    OnProgress,
    fingerprint,
    read_config,
    read_header,
)
from engine.files.conversion import Conversion, aside, begin, check_space, claimed, settle, write_json
from engine.files.folder import ModelFolder
from engine.mlx.quantised import Quantised, deviation

_COPIED = ("*.json", "*.model", "*.tiktoken", "*.txt", "*.jinja")
_NOT_COPIED = (CONFIG, INDEX, RECORD, JANG_CONFIG)


def convert(source: Path, target: Path, settings: Settings, on_progress: OnProgress = lambda _: None) -> Conversion:
    """Quantise the ZAYA1 checkpoint in `source` into `target`, or go on with that conversion. Progress is in bytes of
    the result.

    Raises RequestError: there is no such code or type. ModelError: the source is no such checkpoint or is quantised
    already; the target holds something else; the disk is too small; what was written is not what should have been.
    CheckpointError: tensors are missing or extra.
    """
    settings.check()
    if target.resolve() == source.resolve():
        raise ModelError(f"{target} is the model itself: a conversion needs a folder of its own")
    found = _open(source)
    shards = plan(found.weights, settings)
    record = {
        "source": source.resolve().name,
        "source_fingerprint": fingerprint(source),
        **asdict(settings),
        "shards": [shard.name for shard in shards],
    }
    with claimed(target):
        finished = begin(target, record)
        if finished is not None:
            return finished
        _write_all(target, shards, found, settings, on_progress)
        _write_rest(source, target, shards, settings)
        result = _verify(source, target, shards, settings, on_progress)
        write_json(target / RECORD, {**record, "result": asdict(result)})
    return result


def _open(source: Path) -> Checkpoint:
    args, found = open_checkpoint(ModelFolder(source))
    if found.quantised:
        raise ModelError(f"{source} is quantised already ({next(iter(found.quantised.values())).scheme})")
    build(args, found, None, keep_quantised=False)  # are all parameters there?
    return found


# ---- writing -------------------------------------------------------------------------------------------------------


def _write_all(
    target: Path, shards: list[Shard], found: Checkpoint, settings: Settings, on_progress: OnProgress
) -> None:
    """Write the shards that are not there yet."""
    pending = [shard for shard in shards if not shard.is_whole(target)]
    total, left = (sum(shard.nbytes for shard in some) for some in (shards, pending))
    check_space(target, left)
    on_progress(FileProgress("converting", total - left, total))
    for shard in pending:
        tensors: dict[str, mx.array] = {}
        for item in shard.items:
            tensors |= _made(item, _taken(found, item, settings))
            mx.eval(*(tensors[name] for name in item.shapes))
            mx.clear_cache()
            left -= item.nbytes
            on_progress(FileProgress("converting", total - left, total))
        unnamed = aside(target / shard.name)
        try:
            mx.save_safetensors(str(unnamed), tensors, metadata={"format": "mlx"})
        except RuntimeError as error:
            raise ModelError(f"{unnamed} cannot be written: {error}") from error
        read_header(unnamed)  # all bytes there?
        settle(target / shard.name)


def _taken(found: Checkpoint, item: Item, settings: Settings) -> mx.array:
    """The parameter as it is stored or quantised, taken out of `found` so that its memory can go."""
    x = found.weights.pop(item.name)
    return x.astype(settings.dtype_of(item.name, x.dtype))


def _made(item: Item, x: mx.array) -> dict[str, mx.array]:
    return {item.name: x} if item.scheme is None else Quantised.of(x, item.scheme).tensors(item.path)


def _write_rest(source: Path, target: Path, shards: list[Shard], settings: Settings) -> None:
    """Everything but the weights; config.json last."""
    for file in sorted({file for pattern in _COPIED for file in source.glob(pattern)}):
        if file.name not in _NOT_COPIED and file.is_file():
            shutil.copyfile(file, aside(target / file.name))
            settle(target / file.name)
    items = [(item, shard.name) for shard in shards for item in shard.items]
    write_json(
        target / INDEX,
        {
            "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
            "weight_map": {name: file for item, file in items for name in item.shapes},
        },
    )
    schemes = {item.path: item.scheme for item, _ in items if item.scheme is not None}
    others = {path: scheme.as_config() for path, scheme in schemes.items() if scheme != settings.scheme}
    quantization = {**settings.scheme.as_config(), **others}
    # mlx-lm writes it under both names; the second is what the hub's own pages read.
    config = {**read_config(source), "quantization": quantization, "quantization_config": quantization}
    write_json(target / CONFIG, config)


# ---- verifying -----------------------------------------------------------------------------------------------------


def _verify(source: Path, target: Path, shards: list[Shard], settings: Settings, on_progress: OnProgress) -> Conversion:
    """Read back everything and hold it against the source: floats must be equal, codes as near as they can be."""
    args, written = open_checkpoint(ModelFolder(target))
    build(args, written, None, keep_quantised=True)
    del written
    original = _open(source)
    total, done = sum(shard.nbytes for shard in shards), 0
    errors: dict[str, float] = {}
    for shard in shards:
        tensors = load_lazily([target / shard.name])
        for item in shard.items:
            parts = [tensors.pop(name) for name in item.shapes]
            error = _error(item, parts, _taken(original, item, settings))
            if error is None:
                raise ModelError(
                    f"{target / shard.name}: {item.name} is not what it was made of. Are its numbers finite in "
                    f"{source}, and in the range of their type? Is the disk sound? Remove {target} and convert again"
                )
            if item.scheme is not None:
                errors[item.path] = error
            done += item.nbytes
            on_progress(FileProgress("verifying", done, total))
            del parts
            mx.clear_cache()
    worst = max(errors, key=errors.__getitem__)
    floats = [item.path for shard in shards for item in shard.items if item.scheme is None]
    return Conversion(
        nbytes=sum((target / shard.name).stat().st_size for shard in shards),
        source_nbytes=sum(file.stat().st_size for file in source.glob("*.safetensors")),
        modules=len(errors),
        kept=tuple(path for path in floats if is_quantisable(path)),
        worst=worst,
        worst_error=errors[worst],
        mean_error=sum(errors.values()) / len(errors),
    )


def _error(item: Item, parts: list[mx.array], original: mx.array) -> float | None:
    """How far a parameter that was read back is from its original; None: further than it may be."""
    if item.scheme is None:
        (x,) = parts
        same = x.dtype == original.dtype and bool(mx.array_equal(x, original, equal_nan=True))
        return 0.0 if same else None
    weight, scales, *biases = parts
    off = deviation(original, Quantised(weight, scales, biases[0] if biases else None, item.scheme))
    return off.relative if off.within_bounds else None
