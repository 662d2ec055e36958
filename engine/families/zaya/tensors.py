"""Checkpoint tensors of ZAYA1 under any of their names, checked and turned into this model's parameters.

Three namings are in use: that of the authors' vision-language model (`vl`), of their first text release (`legacy`,
one index per sub-layer) and of transformers' `zaya` (`native`). `vl` is the base here and the others are described
as changes to it; models that see have no other. Whatever the naming, a checkpoint must hold exactly the tensors that
its configuration asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import mlx.core as mx

from engine.errors import CheckpointError
from engine.families.zaya.config import ModelArgs
from engine.files.checkpoint import LISTED, listed
from engine.vision.tower import convert_vision, vision_tensors

Shape = tuple[int, ...]
SCALES = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")

TOWER = "vision_tower."
# Left out knowingly: what can be computed and, by a model that does not see, the vision tower and vision-LoRA.
COMPUTED = re.compile(r"rotary_emb\.inv_freq$")
SEEING = re.compile(r"^vision_tower\.|\.lora_(linear_[qko]|val_proj[12]|fc[12])\.[01]\.weight$")
# Kept in float32 whatever the model's type is: small, and what routing and the residual stream hang on.
FLOAT32 = re.compile(r"\.router\.|\.res_scale\.|norm\.weight$|\.self_attn\.(temp|conv\.)|\.balancing_biases$")


def detect_naming(names: Mapping[str, object]) -> str:
    """ours, vl, legacy or native. Raises CheckpointError if the names are none of these."""
    marks = {
        "ours": ".self_attn.conv.weight",
        "native": ".self_attn.qkv_proj.",
        "vl": ".attn.self_attn.qkv.",
        "legacy": ".self_attn.qkv.",
    }
    for naming, mark in marks.items():
        if any(mark in name for name in names):
            return naming
    some = ", ".join(sorted(names)[:LISTED]) or "nothing"
    raise CheckpointError(f"These are not the tensors of a ZAYA1 model; found {some}")


def expected_tensors(args: ModelArgs, naming: str) -> dict[str, Shape]:
    """Name -> shape of every tensor that a checkpoint of that naming must hold, in torch's layout; but the vision
    tower's patch embedding as the matrix that `convert_vision` makes of it."""
    return {name: shape for name, (_, shape) in _plan(args, naming).items()}


def convert(args: ModelArgs, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """A checkpoint's tensors -> this model's parameters. Already converted ones pass unchanged.

    Raises CheckpointError: tensors are missing, left over or mis-shaped; the first five of each are named.
    """
    tensors = {name.removeprefix("model.") if TOWER in name else name: x for name, x in tensors.items()}
    left_out = [COMPUTED] if args.vision is not None else [COMPUTED, SEEING]
    tensors = {name: x for name, x in tensors.items() if not any(p.search(name) for p in left_out)}
    naming = detect_naming(tensors)
    if args.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some exporters write the tied matrix twice
    if naming == "ours":
        return tensors
    if args.vision is not None:
        tower = {name.removeprefix(TOWER): x for name, x in tensors.items() if name.startswith(TOWER)}
        tensors |= {TOWER + name: x for name, x in convert_vision(args.vision, tower).items()}
    plan = _plan(args, naming)
    tensors = {name: _torch_layout(name, x, plan) for name, x in tensors.items()}
    check({name: tuple(x.shape) for name, x in tensors.items()}, expected_tensors(args, naming))
    return _fused(args, {base: tensors[name] for name, (base, _) in plan.items()}, naming)


def check(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Raise CheckpointError unless both have the same names and shapes."""
    problems = [
        _listing("missing", [f"{n} {list(expected[n])}" for n in expected if n not in found]),
        _listing("not part of this model", [f"{n} {list(found[n])}" for n in found if n not in expected]),
        _listing(
            "of another shape than config.json says",
            [
                f"{n} {list(found[n])}, expected {list(expected[n])}"
                for n in expected
                if n in found and tuple(found[n]) != tuple(expected[n])
            ],
        ),
    ]
    told = [problem for problem in problems if problem]
    if told:
        raise CheckpointError("The checkpoint does not fit its configuration. " + " ".join(told))


def _listing(what: str, items: list[str]) -> str:
    if not items:
        return ""
    return f"{len(items)} tensor{'s' if len(items) > 1 else ''} {what}: {listed(items, '; ')}."


# ---- names ---------------------------------------------------------------------------------------------------


def _plan(args: ModelArgs, naming: str) -> dict[str, tuple[str, Shape]]:
    """Checkpoint name -> (name in the `vl` naming, shape), for every tensor."""
    if args.vision is not None and naming != "vl":
        raise CheckpointError(
            f"config.json has a vision_config, but the tensors are named like a text model's ({naming})"
        )
    rename = {"vl": lambda name: name, "legacy": _legacy_name, "native": _native_namer(args)}[naming]
    return {rename(base): (base, shape) for base, shape in _base_tensors(args, stacked=naming == "native")}


def _base_tensors(args: ModelArgs, stacked: bool) -> Iterator[tuple[str, Shape]]:
    h = args.hidden_size
    yield "model.embed_tokens.weight", (args.vocab_size, h)
    if not args.tie_word_embeddings:
        yield "lm_head.weight", (args.vocab_size, h)
    for n in range(args.num_layers):
        attn, mlp = f"model.layers.{n}.attn.", f"model.layers.{n}.mlp."
        yield from _scales(attn, h, SCALES if n else SCALES[:2])
        yield attn + "input_norm.weight", (h,)
        for name, shape in (*_attention_tensors(args), *_attention_lora_tensors(args)):
            yield attn + "self_attn." + name, shape
        yield from _scales(mlp, h, SCALES)
        yield mlp + "input_norm.weight", (h,)
        for name, shape in _router_tensors(args, first=n == 0):
            yield mlp + "zaya_block.router." + name, shape
        for name, shape in (*_expert_tensors(args, stacked), *_expert_lora_tensors(args)):
            yield mlp + "zaya_block.experts." + name, shape
    yield from _scales("model.", h, SCALES)
    yield "model.final_norm.weight", (h,)
    for name, shape in vision_tensors(args.vision).items() if args.vision is not None else ():
        yield TOWER + name, shape if len(shape) < 3 else (shape[0], math.prod(shape[1:]))


def _scales(prefix: str, size: int, names: tuple[str, ...]) -> Iterator[tuple[str, Shape]]:
    for name in names:
        yield f"{prefix}res_scale.{name}", (size,)


def _attention_tensors(args: ModelArgs) -> Iterator[tuple[str, Shape]]:
    h, c, d = args.hidden_size, args.qk_width, args.head_dim
    yield "qkv.linear_q.weight", (args.num_heads * d, h)
    yield "qkv.linear_k.weight", (args.num_kv_heads * d, h)
    yield "qkv.val_proj1.weight", (args.value_width, h)
    yield "qkv.val_proj2.weight", (args.value_width, h)
    yield "qkv.conv_qk.0.weight", (c, 1, 2)
    yield "qkv.conv_qk.0.bias", (c,)
    yield "qkv.conv_qk.1.weight", (c, d, 2)
    yield "qkv.conv_qk.1.bias", (c,)
    yield "qkv.temp", (args.num_kv_heads,)
    yield "o_proj.weight", (h, args.num_heads * d)


def _attention_lora_tensors(args: ModelArgs) -> Iterator[tuple[str, Shape]]:
    rank, heads = args.lora_rank_attn, args.num_heads * args.head_dim
    outputs = (heads, args.num_kv_heads * args.head_dim, args.value_width, args.value_width)
    for name, size in zip(_QKV_LORA, outputs, strict=True) if rank else ():
        yield f"qkv.{name}.0.weight", (rank, args.hidden_size)
        yield f"qkv.{name}.1.weight", (size, rank)
    if rank:
        yield "lora_linear_o.0.weight", (rank, heads)
        yield "lora_linear_o.1.weight", (args.hidden_size, rank)


def _router_tensors(args: ModelArgs, first: bool) -> Iterator[tuple[str, Shape]]:
    r, classes = args.router_size, args.num_experts + 1
    yield "down_proj.weight", (r, args.hidden_size)
    yield "down_proj.bias", (r,)
    if not first:
        yield "router_states_scale", (r,)
    yield "rmsnorm_eda.weight", (r,)
    for i in (0, 2):
        yield f"router_mlp.{i}.weight", (r, r)
        yield f"router_mlp.{i}.bias", (r,)
    yield "router_mlp.4.weight", (classes, r)
    yield "balancing_biases", (classes,)


def _expert_tensors(args: ModelArgs, stacked: bool) -> Iterator[tuple[str, Shape]]:
    fc1, fc2 = (2 * args.expert_size, args.hidden_size), (args.hidden_size, args.expert_size)
    if stacked:
        yield "linear_fc1", (args.num_experts, *fc1)
        yield "linear_fc2", (args.num_experts, *fc2)
        return
    for e in range(args.num_experts):
        yield f"local_experts.{e}.linear_fc1.weight", fc1
        yield f"local_experts.{e}.linear_fc2.weight", fc2


def _expert_lora_tensors(args: ModelArgs) -> Iterator[tuple[str, Shape]]:
    rank, inner = args.lora_rank_mlp, args.expert_size
    for e in range(args.num_experts) if rank else ():
        for fc, into, out in (("fc1", args.hidden_size, 2 * inner), ("fc2", inner, args.hidden_size)):
            yield f"local_experts.{e}.lora_{fc}.0.weight", (rank, into)
            yield f"local_experts.{e}.lora_{fc}.1.weight", (out, rank)


def _legacy_name(base: str) -> str:
    """Attention is sub-layer 2n, experts are sub-layer 2n + 1."""
    match = re.match(r"model\.layers\.(\d+)\.(attn|mlp)\.(.*)", base)
    if match is None:
        return base
    return f"model.layers.{2 * int(match[1]) + (match[2] == 'mlp')}.{match[3]}"


_NATIVE_PARTS = {
    "attn.input_norm": "input_layernorm",
    "mlp.input_norm": "post_attention_layernorm",
    "mlp.res_scale": "post_attention_residual_scale",
    "attn.self_attn.qkv.linear_q": "self_attn.qkv_proj.q_proj",
    "attn.self_attn.qkv.linear_k": "self_attn.qkv_proj.k_proj",
    "attn.self_attn.qkv.val_proj1": "self_attn.qkv_proj.v_proj_current",
    "attn.self_attn.qkv.val_proj2": "self_attn.qkv_proj.v_proj_delayed",
    "attn.self_attn.qkv.conv_qk.0": "self_attn.qkv_proj.conv_qk_depthwise",
    "attn.self_attn.qkv.conv_qk.1": "self_attn.qkv_proj.conv_qk_grouped",
    "attn.self_attn.qkv.temp": "self_attn.qk_norm.temp",
    "attn.self_attn.o_proj": "self_attn.o_proj",
    "mlp.zaya_block.router.rmsnorm_eda": "mlp.gate.router_mlp.norm",
    "mlp.zaya_block.router.router_mlp.0": "mlp.gate.router_mlp.fc1",
    "mlp.zaya_block.router.router_mlp.2": "mlp.gate.router_mlp.fc2",
    "mlp.zaya_block.router.router_mlp.4": "mlp.gate.router_mlp.out_proj",
    "mlp.zaya_block.router": "mlp.gate",
    "mlp.zaya_block.experts.linear_fc1": "mlp.experts.gate_up_proj",
    "mlp.zaya_block.experts.linear_fc2": "mlp.experts.down_proj",
}


def _native_namer(args: ModelArgs) -> Callable[[str], str]:
    """transformers scales the stream *after* each sub-layer, so that each scale moves to the sub-layer before."""
    last = args.num_layers - 1

    def rename(base: str) -> str:
        match = re.match(r"model\.layers\.(\d+)\.(.*)", base)
        if match is None:
            base = base.replace("model.final_norm", "model.norm")
            return base.replace("model.res_scale", f"model.layers.{last}.post_mlp_residual_scale")
        n, rest = int(match[1]), match[2]
        if rest.startswith("attn.res_scale."):
            scale = rest.removeprefix("attn.res_scale.")
            return f"model.layers.{n - 1}.post_mlp_residual_scale.{scale}" if n else f"model.input_{scale}"
        part = next(p for p in _NATIVE_PARTS if rest == p or rest.startswith(p + "."))
        return f"model.layers.{n}.{_NATIVE_PARTS[part]}{rest[len(part) :]}"

    return rename


# ---- tensors -------------------------------------------------------------------------------------------------


def _torch_layout(name: str, x: mx.array, plan: Mapping[str, tuple[str, Shape]]) -> mx.array:
    """Convolution weights that a converter has already put into MLX's layout (taps before inputs), put back."""
    if name in plan and "conv_qk" in plan[name][0] and x.ndim == 3:
        swapped = (x.shape[0], x.shape[2], x.shape[1])
        if tuple(x.shape) != plan[name][1] and swapped == plan[name][1]:
            return x.swapaxes(1, 2)
    return x


def _fused(args: ModelArgs, base: dict[str, mx.array], naming: str) -> dict[str, mx.array]:
    """Tensors in the `vl` naming -> parameters of `Model`."""
    out = fuse_lora(args, base)
    for n in range(args.num_layers):
        qkv = f"model.layers.{n}.attn.self_attn.qkv."
        attn = f"model.layers.{n}.attn.self_attn."
        names = ("linear_q", "linear_k", "val_proj2", "val_proj1")
        out[attn + "qkv.weight"] = mx.concatenate([base.pop(f"{qkv}{name}.weight") for name in names])
        convs = [base.pop(f"{qkv}conv_qk.{i}.{kind}") for i in (0, 1) for kind in ("weight", "bias")]
        out[attn + "conv.weight"], out[attn + "conv.bias"] = fuse_convs(*convs, head_dim=args.head_dim)
        temp = base.pop(qkv + "temp").astype(mx.float32)
        out[attn + "temp"] = mx.exp(mx.clip(temp, 1e-7, 2.0)) if args.clamp_temp else temp

        block = f"model.layers.{n}.mlp.zaya_block."
        for fc, ours in (("linear_fc1", "gate_up_proj"), ("linear_fc2", "down_proj")):
            if naming == "native":
                stacked = base.pop(f"{block}experts.{fc}")
            else:
                local = f"{block}experts.local_experts."
                stacked = mx.stack([base.pop(f"{local}{e}.{fc}.weight") for e in range(args.num_experts)])
            out[f"{block}experts.switch_mlp.{ours}.weight"] = stacked
        for theirs, ours in _ROUTER_PARTS.items():
            for kind in ("weight", "bias"):
                if f"{block}router.{theirs}.{kind}" in base:
                    out[f"{block}router.{ours}.{kind}"] = base.pop(f"{block}router.{theirs}.{kind}")
    out |= base
    return {name: x.astype(mx.float32) if FLOAT32.search(name) else x for name, x in out.items()}


_ROUTER_PARTS = {"rmsnorm_eda": "norm", "router_mlp.0": "fc1", "router_mlp.2": "fc2", "router_mlp.4": "out_proj"}


# In the order of `QKVLoRA`'s outputs.
_QKV_LORA = ("lora_linear_q", "lora_linear_k", "lora_val_proj1", "lora_val_proj2")


def fuse_lora(args: ModelArgs, base: dict[str, mx.array]) -> dict[str, mx.array]:
    """Take the vision-LoRA out of tensors in the `vl` naming: parameters of `QKVLoRA`, `LoRA` and `ExpertLoRA`."""
    out: dict[str, mx.array] = {}
    for n in range(args.num_layers):
        attn, experts = (f"model.layers.{n}.{part}." for part in ("attn.self_attn", "mlp.zaya_block.experts"))
        if args.lora_rank_attn:
            downs, ups = ([base.pop(f"{attn}qkv.{name}.{i}.weight") for name in _QKV_LORA] for i in (0, 1))
            out[f"{attn}qkv_lora.down_now"] = mx.concatenate(downs[:3])
            out[f"{attn}qkv_lora.down_before"] = downs[3]
            out[f"{attn}qkv_lora.up"] = _block_diagonal(ups)
            for i, ours in enumerate(("down", "up")):
                out[f"{attn}o_lora.{ours}"] = base.pop(f"{attn}lora_linear_o.{i}.weight")
        for fc, lora in (("fc1", "gate_up_lora"), ("fc2", "down_lora")) if args.lora_rank_mlp else ():
            for i, ours in enumerate(("down", "up")):
                names = [f"{experts}local_experts.{e}.lora_{fc}.{i}.weight" for e in range(args.num_experts)]
                out[f"{experts}switch_mlp.{lora}.{ours}"] = mx.stack([base.pop(name) for name in names])
    return out


def _block_diagonal(blocks: Sequence[mx.array]) -> mx.array:
    """[a_i, b_i] each -> [sum of a_i, sum of b_i], zero elsewhere."""
    width = sum(block.shape[1] for block in blocks)
    rows, start = [], 0
    for block in blocks:
        rows.append(mx.pad(block, [(0, 0), (start, width - start - block.shape[1])]))
        start += block.shape[1]
    return mx.concatenate(rows)


def fuse_convs(w0: mx.array, b0: mx.array, w1: mx.array, b1: mx.array, *, head_dim: int) -> tuple[mx.array, mx.array]:
    """conv1(conv0(x)) as one convolution of width 3 per head, in float32.

    w0 [C, 1, 2] and b0 [C] per channel, w1 [C, d, 2] and b1 [C] per head (torch's layout, oldest tap first)
    -> weight [G, 3*d, d] applied from the right to (u[t-2] | u[t-1] | u[t]), bias [G, 1, d].
    """
    with mx.stream(mx.cpu):  # once, at loading; some GPUs round float32 products
        d = head_dim
        w0, b0, w1, b1 = (x.astype(mx.float32) for x in (w0, b0, w1, b1))
        inner = w0.reshape(-1, 1, d, 2)  # [G, 1, d in, tap]
        outer = w1.reshape(-1, d, d, 2)  # [G, d out, d in, tap]
        old, new = outer[..., 0], outer[..., 1]
        taps = [old * inner[..., 0], old * inner[..., 1] + new * inner[..., 0], new * inner[..., 1]]
        weight = mx.concatenate([tap.swapaxes(1, 2) for tap in taps], axis=1)  # [G, 3*d in, d out]
        carried = mx.sum((old + new) * b0.reshape(-1, 1, d), axis=-1)  # [G, d]
        return mx.contiguous(weight), (b1.reshape(-1, d) + carried)[:, None]
