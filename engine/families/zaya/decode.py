"""A step of decoding by kernels: every row's next token through all layers, eleven nodes a layer.

The plain path is `model.ZayaModel`; both give the same logits up to the rounding of bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_map_with_path

from engine.families.zaya.cache import CCACache
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.kernels import END, ENTER, LEAVE, Kernels
from engine.families.zaya.moe import fused
from engine.families.zaya.pages import ZayaRows
from engine.families.zaya.tensors import FLOAT32
from engine.mlx.comparing import relative_rms
from engine.mlx.kernels import eight_bits, experts
from engine.mlx.kernels.attention import Split, attend
from engine.mlx.kernels.launch import wanted
from engine.mlx.pages import Steps

if TYPE_CHECKING:
    from engine.families.zaya.model import Block, Model, ResidualScale

_Step = Callable[
    [mx.array, mx.array, mx.array, list[mx.array], list[mx.array], mx.array | None],
    tuple[mx.array, mx.array, list[mx.array]],
]


class Decoder:
    """Decodes with a model's weights. `run` is for rows that one `ZayaRows` holds."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kernels = Kernels(model.args, model.dtype)
        self._layers = [_Layer(block, self._kernels) for block in model.layers]
        self._steps: Steps[_Step] = Steps(self._step, model.args.num_kv_heads)
        self._scratch: mx.array | None = None  # only for pages of 8 bits

    def run(self, tokens: mx.array, rows: ZayaRows) -> mx.array:
        """tokens [B] -> logits [B, V] in the model's type; the rows then hold the tokens."""
        step, padded, table, lengths = self._steps.begin(tokens, rows)
        logits, lengths, rows.tails = step(
            padded, table, lengths, rows.tails, rows.pools, self._scratch_for(rows.places)
        )
        rows.advanced(lengths)
        return logits[: tokens.shape[0]]

    def _scratch_for(self, places: int) -> mx.array | None:
        args = self._model.args
        if self._model.kv_bits is not None and (self._scratch is None or self._scratch.shape[0] != places):
            self._scratch = eight_bits.scratch(places, args.num_kv_heads, args.head_dim, self._model.dtype)
        return self._scratch

    def _step(self, split: Split) -> _Step:
        model, kernels = self._model.model, self._kernels

        def step(
            tokens: mx.array,
            table: mx.array,
            lengths: mx.array,
            tails: list[mx.array],
            pools: list[mx.array],
            scratch: mx.array | None,
        ) -> tuple[mx.array, mx.array, list[mx.array]]:
            h = model.embed_tokens(tokens)
            residual = state = None
            own = None if scratch is None else _own_pages(table)
            after = []
            for layer, tail, pool in zip(self._layers, tails, pools, strict=True):
                memory = _Memory(pool, table, lengths, scratch, own)
                h, residual, state, new = layer(h, residual, state, tail, memory, split)
                after.append(new)
            (h,) = kernels.merge(h, _scales(model.res_scale), model.final_norm.weight, residual, END)
            return self._model.head(h), mx.where(lengths < 0, lengths, lengths + 1), after

        return step


@dataclass(frozen=True, slots=True)
class _Memory:
    """Where a layer's keys and values are. In 8 bits, new ones go through `scratch`, of which each row has the page
    that the table `own` says."""

    pool: mx.array
    table: mx.array
    lengths: mx.array
    scratch: mx.array | None = None
    own: mx.array | None = None


def _own_pages(table: mx.array) -> mx.array:
    """A table like another in which row b has page b alone."""
    return mx.contiguous(mx.broadcast_to(mx.arange(table.shape[0], dtype=mx.int32)[:, None], table.shape))


class _Layer:
    def __init__(self, block: Block, kernels: Kernels) -> None:
        self._kernels = kernels
        attention, moe = block.attn.self_attn, block.mlp.zaya_block
        self._attention, self._moe = attention, moe
        self._merges = [(_scales(part.res_scale), part.input_norm.weight) for part in (block.attn, block.mlp)]
        router = moe.router
        self._down = [router.down_proj.weight, router.down_proj.bias]
        if "router_states_scale" in router:
            self._down.append(router.router_states_scale)
        first, second = (mx.contiguous(layer.weight.T) for layer in (router.fc1, router.fc2))
        mx.eval(first, second)
        self._route = [
            router.norm.weight, first, router.fc1.bias, second, router.fc2.bias,
            router.out_proj.weight, router.balancing_biases,
        ]  # fmt: skip

    def __call__(
        self,
        h: mx.array,
        residual: mx.array | None,
        state: mx.array | None,
        tail: mx.array,
        memory: _Memory,
        split: Split,
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """h [B, H], the stream [B, H] before it and the router's state -> the same after this layer, and its tail."""
        kernels, attention, lengths = self._kernels, self._attention, memory.lengths
        residual, x = kernels.merge(h, *self._merges[0], residual, ENTER)
        found, tail = self._attend(attention.qkv(x), tail, memory, split)
        out = attention.o_proj(found)
        residual, x32, x = kernels.merge(out, *self._merges[1], residual, LEAVE)
        choice, share, state = kernels.route(x32, self._down, self._route, state, lengths)
        return self._experts(x, x32, choice, share), residual, state, tail

    def _attend(self, qkv: mx.array, tail: mx.array, memory: _Memory, split: Split) -> tuple[mx.array, mx.array]:
        """What the attention finds [B, heads * d], and the new tail. Keys and values are then in the pool."""
        conv, temp = self._attention.conv, self._attention.temp
        pool, table, lengths = memory.pool, memory.table, memory.lengths
        if memory.scratch is None or memory.own is None:
            q, tail = self._kernels.project(qkv, tail, conv.weight, conv.bias, temp, pool, table, lengths)
            return attend(q, pool, table, lengths, split), tail
        scratch, own = memory.scratch, memory.own
        q, tail = self._kernels.project(qkv, tail, conv.weight, conv.bias, temp, scratch, own, lengths)
        q = eight_bits.pack(q, scratch, pool, table, lengths)
        return eight_bits.attend(q, pool, table, lengths, split), tail

    def _experts(self, x: mx.array, x32: mx.array, choice: mx.array, share: mx.array) -> mx.array:
        mlp = self._moe.experts.switch_mlp
        if x.shape[0] <= experts.MOST_TOKENS and fused(mlp, x.shape[1], x.dtype):
            return experts.run(x, x32, choice, share, mlp.gate_up_proj.weight, mlp.down_proj.weight)
        return self._moe(x32, choice, share[:, None], x.dtype)


_SMALL = ModelArgs(
    model_type="zaya", vocab_size=256, hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64,
    num_experts=3, expert_size=256, router_size=32, rope_theta=1e4, rope_dims=32,
)  # fmt: skip
_CHECKED_TOKENS = experts.MOST_TOKENS + 2
_TOLERANCE = 0.05
"""How far logits may be off, root mean square over that of the logits. On 40 layers of full size (random weights, an
H200) they are off by 0.005: bfloat16, rounded at other places. What reads wrong positions is off by a tenth or more."""


def adopt(model: Model) -> None:
    """Have a model decode by kernels, where these are wanted, run, and give the same logits as the plain path; leave a
    note on it where they are wanted and do not."""
    if not wanted() or not fits(model.args, model.dtype):
        return
    try:
        off = _difference(model)
        why = None if off <= _TOLERANCE else f"their logits are off by {off:.1%}"
    except Exception as error:  # a compiler, a driver: whatever they say
        why = str(error).splitlines()[0][:200]
    if why is not None:
        model.use_no_kernels(f"decoding is slower than it could be: kernels of our own do not run here ({why})")


def slow_here() -> tuple[str, ...]:
    """What keeps the kernels from running on this machine, in a sentence: tried on a small model of random weights."""
    if not wanted():
        return ()
    from engine.families.zaya.model import Model  # which imports this module

    mx.random.seed(0)
    model = Model(_SMALL)
    weights = tree_map_with_path(_random, model.parameters())
    model.update(weights)
    mx.eval(model.parameters())
    adopt(model)
    return model.notes


def _random(name: str, parameter: mx.array) -> mx.array:
    """Weights that leave numbers as large as they were, in the types that a checkpoint has."""
    if parameter.ndim == 1:
        return parameter
    drawn = mx.random.normal(parameter.shape) * parameter.shape[-1] ** -0.5
    return drawn if FLOAT32.search(name) else drawn.astype(mx.bfloat16)


def _difference(model: Model) -> float:
    """How far the logits of a token after a prompt are from those of the plain path, relative to these."""
    *prompt, last = ((31 * i * i + 7 * i) % model.args.vocab_size for i in range(_CHECKED_TOKENS))

    def prefilled() -> list[CCACache]:
        caches = model.make_cache()
        mx.eval(model(mx.array([prompt]), caches)[0, -1], [cache.state for cache in caches])
        return caches

    caches = prefilled()
    expected = model(mx.array([[last]]), caches)[0]  # [1, V]
    mx.eval(expected)
    _try_experts(model)
    model.use_kernels()
    rows = model.batch_cache(prefilled(), [0, 0])
    found = model(mx.array([[last], [last]]), rows)[:, 0]  # [2, V]
    return relative_rms(found, expected)


def _try_experts(model: Model) -> None:
    """Run the kernels of experts for as many tokens as the logits that are compared do not have: one that cannot be
    compiled is to be found now, and not in the middle of a run."""
    mlp = model.layers[0].mlp.zaya_block.experts.switch_mlp
    hidden, dtype = model.args.hidden_size, model.dtype
    if not fused(mlp, hidden, dtype):
        return
    for tokens in experts.sizes():
        x, share = mx.zeros((tokens, hidden), dtype), mx.ones((tokens,))
        nobody = mx.full((tokens,), model.args.num_experts, mx.int32)
        mx.eval(experts.run(x, x.astype(mx.float32), nobody, share, mlp.gate_up_proj.weight, mlp.down_proj.weight))


def fits(args: ModelArgs, dtype: mx.Dtype) -> bool:
    """True if the kernels can run a model of these sizes."""
    return (
        dtype == mx.bfloat16  # what `experts` multiplies, and what the checkpoints are in
        and args.hidden_size % 256 == 0
        and args.hidden_size <= 8192
        and args.head_dim in (64, 128)
        and args.router_size in (32, 64, 128, 256)
    )


def _scales(scale: ResidualScale) -> list[mx.array]:
    names = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")
    return [scale[name] for name in names if name in scale]
