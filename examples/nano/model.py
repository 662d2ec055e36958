"""ZAYA1 in PyTorch for training: compressed convolutional attention, top-1 experts, and nothing else.

Parameters are a dict of tensors stacked over the L layers. Tokens are kept flat, [T, H] with T constant, whatever
the row length S: one compiled graph serves every layer and every batch shape; only attention sees [B, S].
Sizes: H 256, Hq 4 and Hkv 2 heads of D 64, channels C = (Hq + Hkv) * D = 384, E 4 experts of inner width F 512,
router width R 64, vocabulary V.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.nano.export import CONFIG

Params = dict[str, Tensor]

L: int = CONFIG["num_hidden_layers"]
H: int = CONFIG["hidden_size"]
HQ: int = CONFIG["num_attention_heads"]
HKV: int = CONFIG["num_key_value_heads"]
D: int = CONFIG["head_dim"]
E: int = CONFIG["num_experts"]
FF: int = CONFIG["moe_intermediate_size"]
R: int = CONFIG["router_hidden_size"]
V: int = CONFIG["vocab_size"]
CQ, CK = HQ * D, HKV * D
C = CQ + CK
EPS: float = CONFIG["rms_norm_eps"]
ROTARY = D // 2

MUON = ("wq", "wk", "wv", "wo", "gate_up", "down")
ROUTER = ("rd_w", "rd_b", "eda", "rn", "r1_w", "r1_b", "r2_w", "r2_b", "r3_w")
LAYER_NAMES = (
    "ln1", "wq", "wk", "wv", "conv0_w", "conv0_b", "conv1_w", "conv1_b", "temp",
    "wo", "rs1", "ln2", *ROUTER, "gate_up", "down", "rs2", "balance",
)  # fmt: skip
PRE, POST = LAYER_NAMES[:9], LAYER_NAMES[9:]


def init_params(seed: int = 0) -> Params:
    """Fresh float32 parameters. Matrices have std fan_in^-0.5; those that write to the stream half of it."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, fan_in: int, gain: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * gain * fan_in**-0.5

    residual = torch.zeros(L, 4, H)  # scale of the new, bias of the new, scale of the stream, bias of the stream
    residual[:, 0::2] = 1.0
    balance = torch.zeros(L, E + 1)
    balance[:, E] = -1.0  # the skip expert starts out of reach
    return {
        "embed": normal(V, H, fan_in=H),
        "in_scale": torch.ones(H), "in_bias": torch.zeros(H), "norm": torch.ones(H),
        "ln1": torch.ones(L, H), "ln2": torch.ones(L, H),
        "rs1": residual.clone(), "rs2": residual.clone(),
        "wq": normal(L, CQ, H, fan_in=H), "wk": normal(L, CK, H, fan_in=H),
        "wv": normal(L, 2, CK // 2, H, fan_in=H), "wo": normal(L, H, CQ, fan_in=CQ, gain=0.5),
        "conv0_w": normal(L, C, 2, fan_in=2), "conv0_b": torch.zeros(L, C),
        "conv1_w": normal(L, C, D, 2, fan_in=2 * D), "conv1_b": torch.zeros(L, C),
        "temp": torch.ones(L, HKV),
        "rd_w": normal(L, R, H, fan_in=H), "rd_b": torch.zeros(L, R),
        "eda": torch.ones(L, R), "rn": torch.ones(L, R),
        "r1_w": normal(L, R, R, fan_in=R), "r1_b": torch.zeros(L, R),
        "r2_w": normal(L, R, R, fan_in=R), "r2_b": torch.zeros(L, R),
        "r3_w": normal(L, E + 1, R, fan_in=R),
        "gate_up": normal(L, E, 2 * FF, H, fan_in=H), "down": normal(L, E, H, FF, fan_in=FF, gain=0.5),
        "balance": balance,
    }  # fmt: skip


_QKV, _GATE = "self_attn.qkv_proj", "mlp.gate"
_RESIDUAL = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")
_TOP = {
    "embed": "embed_tokens.weight",
    "in_scale": "input_hidden_states_scale",
    "in_bias": "input_hidden_states_bias",
    "norm": "norm.weight",
}
_HUB: dict[str, tuple[str, ...]] = {
    "ln1": ("input_layernorm.weight",),
    "ln2": ("post_attention_layernorm.weight",),
    "wq": (f"{_QKV}.q_proj.weight",),
    "wk": (f"{_QKV}.k_proj.weight",),
    "wv": (f"{_QKV}.v_proj_current.weight", f"{_QKV}.v_proj_delayed.weight"),
    "wo": ("self_attn.o_proj.weight",),
    "conv0_w": (f"{_QKV}.conv_qk_depthwise.weight",),
    "conv0_b": (f"{_QKV}.conv_qk_depthwise.bias",),
    "conv1_w": (f"{_QKV}.conv_qk_grouped.weight",),
    "conv1_b": (f"{_QKV}.conv_qk_grouped.bias",),
    "temp": ("self_attn.qk_norm.temp",),
    "rd_w": (f"{_GATE}.down_proj.weight",),
    "rd_b": (f"{_GATE}.down_proj.bias",),
    "eda": (f"{_GATE}.router_states_scale",),
    "rn": (f"{_GATE}.router_mlp.norm.weight",),
    "r1_w": (f"{_GATE}.router_mlp.fc1.weight",),
    "r1_b": (f"{_GATE}.router_mlp.fc1.bias",),
    "r2_w": (f"{_GATE}.router_mlp.fc2.weight",),
    "r2_b": (f"{_GATE}.router_mlp.fc2.bias",),
    "r3_w": (f"{_GATE}.router_mlp.out_proj.weight",),
    "balance": (f"{_GATE}.balancing_biases",),
    "gate_up": ("mlp.experts.gate_up_proj",),
    "down": ("mlp.experts.down_proj",),
    "rs1": tuple(f"post_attention_residual_scale.{name}" for name in _RESIDUAL),
    "rs2": tuple(f"post_mlp_residual_scale.{name}" for name in _RESIDUAL),
}
"""Our name of a stacked parameter -> the hub names of a layer's slice; several names share its first axis."""


def hub_tensors(params: Params) -> Params:
    """The parameters under the names and in the shapes of transformers' `zaya` (native, fused blocks)."""
    out = {f"model.{hub}": params[name] for name, hub in _TOP.items()}
    for i in range(L):
        for name, hubs in _HUB.items():
            tensor = params[name][i]
            if name == "eda" and i == 0:
                continue  # the first router has no state before it
            if name == "conv0_w":
                tensor = tensor[:, None, :]
            for part, hub in zip(tensor if len(hubs) > 1 else (tensor,), hubs, strict=True):
                out[f"model.layers.{i}.{hub}"] = part
    return {name: tensor.clone() for name, tensor in out.items()}


def params_from_hub(tensors: Params) -> Params:
    """The inverse of `hub_tensors`, in float32. KeyError names the first tensor that is missing."""
    params = {name: tensors[f"model.{hub}"].float() for name, hub in _TOP.items()}
    for name, hubs in _HUB.items():
        slices = []
        for i in range(L):
            if name == "eda" and i == 0:
                slices.append(torch.ones(R))
                continue
            parts = [tensors[f"model.layers.{i}.{hub}"].float() for hub in hubs]
            tensor = parts[0] if len(parts) == 1 else torch.stack(parts)
            slices.append(tensor[:, 0, :] if name == "conv0_w" else tensor)
        params[name] = torch.stack(slices)
    return params


def load_params(path: str) -> Params:
    """Parameters from a training checkpoint (.pt) or from exported weights (.safetensors), in float32 on the CPU."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return params_from_hub(load_file(path))
    params: Params = torch.load(path, map_location="cpu", weights_only=True)["params"]
    return params


# ---------------------------------------------------------------- the pieces of a layer


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm in float32 over the last axis."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rope_tables(positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [T, 1, ROTARY] for the positions [T]; the two halves of the rotary dimensions pair up."""
    exponents = torch.arange(0, ROTARY, 2, device=positions.device, dtype=torch.float32) / ROTARY
    theta = CONFIG["rope_parameters"]["hybrid"]["rope_theta"]
    angles = positions.float()[:, None] * theta**-exponents
    angles = torch.cat((angles, angles), -1)[:, None, :]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on the first ROTARY dimensions of x [T, heads, D]."""
    turned, rest = x[..., :ROTARY], x[..., ROTARY:]
    first, second = turned.chunk(2, -1)
    turned = turned * cos + torch.cat((-second, first), -1) * sin
    return torch.cat((turned, rest), -1)


def project(x: Tensor, p: Params, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """u = [q|k] [T, C], current value and value to be delayed [T, CK/2], from the normed input x [T, H]."""
    x = x.to(dtype)
    weight = torch.cat((p["wq"], p["wk"], p["wv"][0], p["wv"][1])).to(dtype)
    return (x @ weight.t()).split((C, CK // 2, CK // 2), -1)


def conv0(u: Tensor, u_prev: Tensor, p: Params) -> Tensor:
    """Depthwise causal convolution of two taps."""
    weight = p["conv0_w"].to(u.dtype)
    return u_prev * weight[:, 0] + u * weight[:, 1] + p["conv0_b"].to(u.dtype)


def queries_keys(u: Tensor, c0: Tensor, c0_prev: Tensor, p: Params, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Grouped convolution, mean residuals, L2 norm, temperature and RoPE: q [T, HQ, D] and k [T, HKV, D]."""
    groups = HQ + HKV
    taps = torch.cat((c0_prev.view(-1, groups, D), c0.view(-1, groups, D)), -1)  # [T, groups, 2D]
    weight = p["conv1_w"].view(groups, D, D, 2)
    weight = torch.cat((weight[..., 0], weight[..., 1]), -1).to(u.dtype)  # [groups, D out, 2D in]
    mixed = torch.bmm(taps.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)  # [T, groups, D]
    mixed = mixed.float() + p["conv1_b"].view(groups, D)
    heads = u.float().view(-1, groups, D)
    mean_q = (heads[:, :HQ].unflatten(1, (HKV, HQ // HKV)) + heads[:, HQ:].unsqueeze(2)) / 2  # [T, HKV, g, D]
    q = mixed[:, :HQ] + mean_q.flatten(1, 2)
    k = mixed[:, HQ:] + mean_q.mean(2)
    q = q * (torch.rsqrt(q.pow(2).sum(-1, keepdim=True) + 1e-12) * D**0.5)
    k = k * (torch.rsqrt(k.pow(2).sum(-1, keepdim=True) + 1e-12) * D**0.5) * p["temp"][:, None]
    return rotate(q, cos, sin).to(u.dtype), rotate(k, cos, sin).to(u.dtype)


def merge(new: Tensor, stream: Tensor, scales: Tensor) -> Tensor:
    """Residual scaling: an affine map on the new contribution and one on the stream, in float32."""
    return (new.float() + scales[1]) * scales[0] + (stream + scales[3]) * scales[2]


def route(x: Tensor, s_prev: Tensor, p: Params) -> tuple[Tensor, Tensor]:
    """Weight of each class [T, E + 1] (zero except the chosen one's probability), and the router state [T, R]."""
    state = F.linear(x, p["rd_w"], p["rd_b"]) + s_prev * p["eda"]
    z = rms_norm(state, p["rn"])
    z = F.gelu(F.linear(z, p["r1_w"], p["r1_b"]))
    z = F.gelu(F.linear(z, p["r2_w"], p["r2_b"]))
    probabilities = torch.softmax(F.linear(z, p["r3_w"]), -1)
    chosen = (probabilities.detach() + p["balance"]).argmax(-1, keepdim=True)
    classes = torch.arange(E + 1, device=x.device)
    return torch.where(classes == chosen, probabilities, 0.0), state


def experts(x: Tensor, weights: Tensor, p: Params, dtype: torch.dtype) -> Tensor:
    """All experts at once, the unchosen ones times zero: a wide MLP is faster here than sorting tokens."""
    inner = x.to(dtype) @ p["gate_up"].to(dtype).view(E * 2 * FF, H).t()
    gate, up = inner.view(-1, E, 2 * FF).chunk(2, -1)
    hidden = F.silu(gate) * up * weights[:, :E, None].to(dtype)
    down = p["down"].to(dtype).transpose(1, 2).reshape(E * FF, H)
    return hidden.reshape(-1, E * FF) @ down + (weights[:, E:] * x).to(dtype)


def before_attention(
    r: Tensor, first: Tensor, cos: Tensor, sin: Tensor, values: tuple[Tensor, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v of the rows, and what decoding must remember: u, c0 and the value to be delayed.

    first [T, 1] marks row starts.
    """
    p = dict(zip(PRE, values, strict=True))
    u, v_now, v_next = project(rms_norm(r, p["ln1"]), p, dtype)
    c0 = conv0(u, torch.where(first, 0.0, torch.roll(u, 1, 0)).to(u.dtype), p)
    # Before a row starts the input is zero, so the first convolution there gives its bias.
    c0_prev = torch.where(first, p["conv0_b"].to(u.dtype), torch.roll(c0, 1, 0))
    q, k = queries_keys(u, c0, c0_prev, p, cos, sin)
    v_prev = torch.where(first, 0.0, torch.roll(v_next, 1, 0)).to(u.dtype)
    return q, k, torch.stack((v_now, v_prev), 1), u, c0, v_next


def after_attention(
    a: Tensor, r: Tensor, s_prev: Tensor, values: tuple[Tensor, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Output projection and experts: the new stream, the router state, and the class weights [T, E + 1]."""
    p = dict(zip(POST, values, strict=True))
    r = merge(a.reshape(-1, CQ) @ p["wo"].to(dtype).t(), r, p["rs1"])
    x = rms_norm(r, p["ln2"])
    weights, state = route(x, s_prev, p)
    return merge(experts(x, weights, p, dtype), r, p["rs2"]), state, weights


def attend(q: Tensor, k: Tensor, v: Tensor, row: int) -> Tensor:
    """Causal attention within rows of `row` tokens; flat in and out: [T, heads, D] -> [T, HQ, D]."""
    q, k, v = (t.view(-1, row, t.shape[1], D).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2).reshape(-1, HQ, D)


def layer_values(params: Params) -> list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Per layer the tensors named in PRE and in POST. One unbind a parameter keeps the backward pass cheap."""
    unbound = {name: params[name].unbind(0) for name in LAYER_NAMES}
    return [(tuple(unbound[n][i] for n in PRE), tuple(unbound[n][i] for n in POST)) for i in range(L)]


def embed(ids: Tensor, params: Params) -> Tensor:
    """The stream before the first layer, float32 [T, H]."""
    return (F.embedding(ids, params["embed"]).float() + params["in_bias"]) * params["in_scale"]


def logits_of(r: Tensor, params: Params, dtype: torch.dtype) -> Tensor:
    """Float32 logits [T, V] from the stream."""
    return (rms_norm(r, params["norm"]).to(dtype) @ params["embed"].to(dtype).t()).float()


Block = Callable[..., tuple[Tensor, ...]]


def forward(
    params: Params,
    ids: Tensor,
    row: int,
    dtype: torch.dtype = torch.bfloat16,
    before: Block = before_attention,
    after: Block = after_attention,
) -> tuple[Tensor, Tensor, list[tuple[Tensor, ...]]]:
    """The stream after the last layer [T, H], the class weights [L, T, E + 1], and per layer (k, v, u, c0, v_next).

    ids [T] holds T / row rows of `row` tokens, padded on the right.
    """
    positions = torch.arange(row, device=ids.device).repeat(ids.numel() // row)
    cos, sin = rope_tables(positions)
    first = (positions == 0)[:, None]
    r = embed(ids, params)
    state = torch.zeros(ids.numel(), R, device=ids.device)
    weights, kept = [], []
    for pre, post in layer_values(params):
        q, k, v, u, c0, v_next = before(r, first, cos, sin, pre, dtype)
        r, state, chosen = after(attend(q, k, v, row), r, state, post, dtype)
        weights.append(chosen)
        kept.append((k, v, u, c0, v_next))
    return r, torch.stack(weights), kept
