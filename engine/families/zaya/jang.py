"""The community's 4-bit bundles of ZAYA1 ("MXFP4", made by the JANG converter): their tensors under the hub's names.

Whatever its name says, the code is MLX's affine one. Attention and experts have 4 bits, embeddings 8, which
`config.json` leaves out; the rest is float16. The experts are stacked, with gate and up apart and, in
vision-language bundles, with `mlp.` missing from their names alone; their LoRA is not stacked. `jang_config.json`
repeats the settings; a bundle whose two files, or whose tensors, disagree is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx

from engine.errors import ModelError
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.tensors import Shape, check, detect_naming
from engine.files.folder import ModelFolder
from engine.mlx.quantised import Quantised, join, take

JANG_CONFIG = "jang_config.json"

_KNOWN_VERSION = 2
_WEIGHT_FORMAT, _EXPERT_LAYOUT, _METHOD = "mxfp4", "split_switch_mlp", "affine"
_STACKED = re.compile(r"\.(?:mlp\.)?zaya_block\.experts\.switch_mlp\.")


def is_bundle(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of such a bundle."""
    return "weight_format" in config or "zaya_expert_layout" in config


def unpack(
    args: ModelArgs, config: Mapping[str, Any], tensors: Mapping[str, mx.array], dtype: mx.Dtype | None
) -> tuple[dict[str, mx.array], dict[str, Quantised]]:
    """A bundle's tensors as floats under the hub's names, and its quantised matrices by the path of our module.

    dtype is that of the floats that matrices are dequantised to; None: the type of their scales. Nothing is computed
    yet, and what the caller does not use never will be. Raises ModelError, CheckpointError.
    """
    found = {_STACKED.sub(".zaya_block.experts.switch_mlp.", name): x for name, x in tensors.items()}
    naming = detect_naming(found)
    table = config.get("quantization")
    quantised = take(found, table if isinstance(table, dict) else {})
    floats = found | {f"{path}.weight": matrix.dequantised(dtype) for path, matrix in quantised.items()}
    stacked = {name: floats.pop(name) for name in list(floats) if _STACKED.search(name)}
    check({name: tuple(x.shape) for name, x in stacked.items()}, _stacked_experts(args, naming))
    for n in range(args.num_layers):
        theirs, hub = _experts(n, naming), _experts_of_the_hub(n, naming)
        gate, up, down = (stacked[f"{theirs}.switch_mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        for e in range(args.num_experts):
            floats[f"{hub}.local_experts.{e}.linear_fc1.weight"] = mx.concatenate([gate[e], up[e]])
            floats[f"{hub}.local_experts.{e}.linear_fc2.weight"] = down[e]
    return floats, _fused(args, quantised, naming)


def check_settings(folder: ModelFolder, args: ModelArgs, quantised: Mapping[str, Quantised]) -> None:
    """Hold `config.json` and `jang_config.json`, if there is one, against what is known here and what was found.

    quantised: by the path of our module; what is not there is not compared. Raises ModelError, naming what disagrees.
    """
    config, jang = folder.config, folder.json(JANG_CONFIG) or {}
    version = jang.get("version", _KNOWN_VERSION)
    if version != _KNOWN_VERSION:
        file = folder.path / JANG_CONFIG
        raise ModelError(f"{file} is of version {version!r}; {_KNOWN_VERSION} is the only one that is known here")
    own, theirs = _table(config.get("quantization")), _table(jang.get("quantization"))
    embedding = quantised.get("model.embed_tokens")
    matrices = {matrix.scheme.bits for path, matrix in quantised.items() if ".layers." in path}
    claims = [
        ("weight_format", _WEIGHT_FORMAT, config.get("weight_format"), jang.get("weight_format")),
        ("expert layout", _EXPERT_LAYOUT, config.get("zaya_expert_layout"), jang.get("expert_layout")),
        ("quantisation method", _METHOD, own.get("mode"), theirs.get("method")),
        ("group size", own.get("group_size"), own.get("group_size"), theirs.get("group_size")),
        ("bits", matrices.pop() if len(matrices) == 1 else None, own.get("bits"), theirs.get("bits")),
        ("bits of the embeddings", embedding and embedding.scheme.bits, None, theirs.get("embed_bits")),
        ("bits of the router", 16, own.get("router_bits"), theirs.get("router_bits")),
        ("vision", args.vision is not None, None, jang.get("has_vision")),
    ]
    for what, actual, said, repeated in claims:
        for where, value in (("config.json", said), (JANG_CONFIG, repeated)):
            if value is not None and actual is not None and value != actual:
                raise ModelError(
                    f"The bundle in {folder.path} contradicts itself, or is of a kind not known here: {where} says "
                    f"{value!r} for {what}, where {actual!r} was found or is the only one known"
                )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _experts(n: int, naming: str) -> str:
    """Where a bundle has the stacked experts of block n."""
    return f"model.layers.{2 * n + 1 if naming == 'legacy' else n}.zaya_block.experts"


def _experts_of_the_hub(n: int, naming: str) -> str:
    return _experts(n, naming) if naming == "legacy" else f"model.layers.{n}.mlp.zaya_block.experts"


def _stacked_experts(args: ModelArgs, naming: str) -> dict[str, Shape]:
    wide, narrow = (args.num_experts, args.expert_size, args.hidden_size), (args.hidden_size, args.expert_size)
    shapes = {"gate_proj": wide, "up_proj": wide, "down_proj": (args.num_experts, *narrow)}
    return {
        f"{_experts(n, naming)}.switch_mlp.{part}.weight": shape
        for n in range(args.num_layers)
        for part, shape in shapes.items()
    }


def _fused(args: ModelArgs, quantised: Mapping[str, Quantised], naming: str) -> dict[str, Quantised]:
    """Matrices of a bundle -> those of our modules; left out where a module's parts have no common code."""
    fused = {}
    for ours, theirs in _modules(args, naming):
        parts = [quantised[path] for path in theirs if path in quantised]
        if len(parts) == len(theirs) and (matrix := join(parts)) is not None:
            fused[ours] = matrix
    return fused


def _modules(args: ModelArgs, naming: str) -> Iterator[tuple[str, list[str]]]:
    """Path of each of our modules that may be quantised, and of its parts in a bundle, from the top row down."""
    yield "model.embed_tokens", ["model.embed_tokens"]
    yield "lm_head", ["lm_head"]
    for n in range(args.num_layers):
        ours = f"model.layers.{n}"
        theirs = f"model.layers.{2 * n}.self_attn" if naming == "legacy" else f"{ours}.attn.self_attn"
        # The order in which `engine.families.zaya.tensors` joins them.
        rows = ("linear_q", "linear_k", "val_proj2", "val_proj1")
        yield f"{ours}.attn.self_attn.qkv", [f"{theirs}.qkv.{part}" for part in rows]
        yield f"{ours}.attn.self_attn.o_proj", [f"{theirs}.o_proj"]
        experts, stacked = f"{ours}.mlp.zaya_block.experts.switch_mlp", f"{_experts(n, naming)}.switch_mlp"
        yield f"{experts}.gate_up_proj", [f"{stacked}.gate_proj", f"{stacked}.up_proj"]
        yield f"{experts}.down_proj", [f"{stacked}.down_proj"]
