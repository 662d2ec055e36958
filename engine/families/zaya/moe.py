"""Router and experts of ZAYA1: one expert a token, or none (the token's normed input is passed on instead)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import SwitchLinear

from engine.families.zaya.config import ModelArgs
from engine.families.zaya.lora import ExpertLoRA, ImageRows
from engine.mlx import cpu
from engine.mlx.kernels import experts

_SORT_FROM = 64
"""Tokens from which sorting them by expert pays on a GPU: each expert's weights are then read once."""
_DENSE_FROM = 256
"""Tokens from which one product an expert pays on CUDA, though it waits to know how many each has: MLX's sorted product
leaves the tensor cores unused where float32 is to stay float32 (2,048 tokens on an H100: 1690 us against 754)."""


class Router(nn.Module):
    """Chooses a class for each token; everything in float32.

    Its first projection is added to that of the layer before (the same token's), which is why states are handed
    from layer to layer. Nothing is kept over time.
    """

    def __init__(self, args: ModelArgs, first: bool) -> None:
        super().__init__()
        size = args.router_size
        self.down_proj = nn.Linear(args.hidden_size, size)
        if not first:
            self.router_states_scale = mx.ones((size,))
        self.norm = nn.RMSNorm(size, args.norm_eps)
        self.fc1 = nn.Linear(size, size)
        self.fc2 = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, args.num_experts + 1, bias=False)
        self.balancing_biases = mx.zeros((args.num_experts + 1,))

    def __call__(self, x: mx.array, before: mx.array | None) -> tuple[mx.array, mx.array, mx.array]:
        """x [N, H] float32, the layer before's state [N, R] -> class [N], its probability [N, 1], state [N, R]."""
        state = self.down_proj(x)
        if before is not None:
            state = state + before * self.router_states_scale
        z = nn.gelu(self.fc1(self.norm(state)))
        z = nn.gelu(self.fc2(z))
        p = mx.softmax(self.out_proj(z), axis=-1)  # [N, experts + 1]
        # The bias moves the choice only; the weight is the plain probability and is not renormalised.
        choice = mx.argmax(p + self.balancing_biases, axis=-1)
        return choice, mx.take_along_axis(p, choice[:, None], axis=-1), state


class SwitchMLP(nn.Module):
    """SwiGLU experts. `gate_up_proj` holds gate and up stacked: rows [0, inner) and [inner, 2*inner)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.gate_up_proj = SwitchLinear(args.hidden_size, 2 * args.expert_size, args.num_experts, bias=False)
        self.down_proj = SwitchLinear(args.expert_size, args.hidden_size, args.num_experts, bias=False)
        self.gate_up_lora: ExpertLoRA | None = None
        self.down_lora: ExpertLoRA | None = None
        if args.lora_rank_mlp:
            self.gate_up_lora = ExpertLoRA(args.hidden_size, 2 * args.expert_size, args)
            self.down_lora = ExpertLoRA(args.expert_size, args.hidden_size, args)
        self._views: _Views | None = None

    def __call__(self, x: mx.array, choice: mx.array, images: ImageRows | None = None) -> mx.array:
        """x [N, H], choice [N] of classes; the skip class gets some expert's output -> [N, H]."""
        choice = mx.minimum(choice, self.gate_up_proj.num_experts - 1)
        ordered = choice.size >= _SORT_FROM
        x = x[:, None]  # [N, 1, H]
        if ordered:
            order = mx.argsort(choice)
            back = mx.argsort(order)
            # Rows are taken with the axis already there: MLX's sorted product reads rows of a view with an inserted
            # axis from the wrong places, without an error (ml-explore/mlx, issue 4253; seen on an H200).
            x, choice = x[order], choice[order]
            images = images.reordered(order) if images is not None else None
        h = self.gate_up_proj(x, choice, sorted_indices=ordered)  # [N, 1, 2*inner]
        if images is not None and self.gate_up_lora is not None:
            h = h + self.gate_up_lora(x, choice, images, ordered)
        gate, up = mx.split(h, 2, axis=-1)
        h = nn.silu(gate) * up
        y = self.down_proj(h, choice, sorted_indices=ordered)
        if images is not None and self.down_lora is not None:
            y = y + self.down_lora(h, choice, images, ordered)
        y = y[:, 0]
        return y[back] if ordered else y

    def dense(self, x: mx.array, choice: mx.array, images: ImageRows | None = None) -> mx.array:
        """The same by one product an expert over all of its tokens; waits to know how many these are."""
        classes = mx.arange(self.gate_up_proj.num_experts)
        counts: list[int] = mx.sum(choice[:, None] == classes, axis=0).tolist()  # type: ignore[assignment]
        if not any(counts):
            return mx.zeros_like(x)
        ascending = mx.argsort(choice)
        order, back = ascending[: sum(counts)], mx.argsort(ascending)  # the skip class comes last
        x = x[order]
        chosen = choice[order]
        seen = images.reordered(order) if images is not None else None
        matrices = self._stored()
        h = _dense(x, matrices.gate_ups, counts)  # [n, 2*inner]
        if seen is not None and self.gate_up_lora is not None:
            h = h + self.gate_up_lora(x[:, None], chosen, seen, True)[:, 0]
        gate, up = mx.split(h, 2, axis=-1)
        h = nn.silu(gate) * up
        y = _dense(h, matrices.downs, counts)
        if seen is not None and self.down_lora is not None:
            y = y + self.down_lora(h[:, None], chosen, seen, True)[:, 0]
        return y[mx.minimum(back, sum(counts) - 1)]

    def by_expert(self, x: mx.array, choice: mx.array, images: ImageRows | None = None) -> mx.array:
        """The same, one expert at a time over its own tokens; waits for `choice` to be known.

        This is the way for MLX's CPU backend, whatever the number of tokens N. Measured for 8 layers of hidden
        256, 4 experts x 512, 2 cores (shared with other work) with OpenBLAS, in ms, best of several:

            N                                1      16     64     600    2400
            this                             2.3    9.9    17.9   85     300
            gather_mm, tokens sorted         2.3    17.4   54.1   471    1859
            all experts, others' times zero  5.3    13.5   39.8   379    1660
        """
        tokens: list[list[int]] = [[] for _ in range(self.gate_up_proj.num_experts + 1)]
        chosen: list[int] = choice.tolist()  # type: ignore[assignment]
        for token, expert in enumerate(chosen):
            tokens[expert].append(token)
        tokens.pop()  # the skip class
        order = [token for part in tokens for token in part]
        if not order:
            return mx.zeros_like(x)
        alone = len(order) == 1 and x.shape[0] == 1
        h = x if alone else x[mx.array(order)]
        matrices = self._stored()
        # None too if all image tokens of these chose the skip class.
        seen = ImageRows.find(images.image[order]) if images is not None and images.image[order].any() else None
        image_tokens = [int(images.image[part].sum()) for part in tokens] if images is not None else []
        gate, up = _products(h, matrices.gates, tokens), _products(h, matrices.ups, tokens)
        if seen is not None and self.gate_up_lora is not None:
            added = mx.split(self.gate_up_lora.by_expert(h, image_tokens, seen), 2, axis=-1)
            gate, up = gate + added[0], up + added[1]
        h = cpu.swiglu(gate, up).astype(x.dtype)
        y = _products(h, matrices.downs, tokens)
        if seen is not None and self.down_lora is not None:
            y = y + self.down_lora.by_expert(h, image_tokens, seen)
        mx.async_eval(y)  # runs while Python writes the next layer's operations
        if alone:
            return y
        places = [0] * x.shape[0]  # skipped tokens get some row; the caller does not read it
        for place, token in enumerate(order):
            places[token] = place
        return y[mx.array(places)]

    def _stored(self) -> _Views:
        """Each expert's matrices as views: `weight[e]` would copy one at every use."""
        gate_up, down = self.gate_up_proj.weight, self.down_proj.weight
        if self._views is None or self._views.gate_up is not gate_up or self._views.down is not down:
            self._views = _Views(gate_up, down)
        return self._views


class _Views:
    """The experts' matrices, [in, out] each, without their own memory."""

    def __init__(self, gate_up: mx.array, down: mx.array) -> None:
        """gate_up [experts, 2*inner, H], down [experts, H, inner]."""
        self.gate_up, self.down = gate_up, down
        gates, ups = mx.split(gate_up, 2, axis=1)
        self.gates, self.ups, self.gate_ups, self.downs = map(_unstacked, (gates, ups, gate_up, down))


def _unstacked(weights: mx.array) -> list[mx.array]:
    """[experts, out, in] -> [in, out] for each expert."""
    views = [part.reshape(part.shape[1:]).T for part in mx.split(weights, weights.shape[0])]
    mx.eval(views)
    return views


def _products(x: mx.array, matrices: list[mx.array], tokens: list[list[int]]) -> mx.array:
    """Rows of x, sorted by expert with tokens[e] of them for expert e, times that expert's matrix: [N, out]."""
    parts, start = [], 0
    for expert, part in enumerate(tokens):
        if part:
            parts.append(x[start : start + len(part)] @ matrices[expert])
            start += len(part)
    return mx.concatenate(parts) if len(parts) > 1 else parts[0]


def _dense(x: mx.array, matrices: list[mx.array], counts: list[int]) -> mx.array:
    """Rows of x, sorted by expert with counts[e] of them for expert e, times that expert's matrix: [n, out]."""
    ends = list(accumulate(counts))
    return mx.concatenate(
        [x[end - n : end] @ matrix for matrix, n, end in zip(matrices, counts, ends, strict=True) if n]
    )


def fused(mlp: SwitchMLP, hidden: int, dtype: mx.Dtype) -> bool:
    """True if the kernels of `engine.mlx.kernels.experts` can run these."""
    gate_up, down = mlp.gate_up_proj, mlp.down_proj
    if not isinstance(gate_up, SwitchLinear) or not isinstance(down, SwitchLinear):
        return False
    return experts.fits(hidden, down.weight.shape[2], dtype)


class Experts(nn.Module):
    """Holds the experts under the name that quantised checkpoints use."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.switch_mlp = SwitchMLP(args)


class MoE(nn.Module):
    def __init__(self, args: ModelArgs, first: bool) -> None:
        super().__init__()
        self.router = Router(args, first)
        self.experts = Experts(args)
        self.num_experts = args.num_experts
        self.by_kernels = False
        """Whether many tokens go through the experts by kernels of our own."""

    def __call__(
        self, x: mx.array, choice: mx.array, weight: mx.array, dtype: mx.Dtype, images: ImageRows | None = None
    ) -> mx.array:
        """x [N, H] float32, class [N], weight [N, 1] -> [N, H] float32: what the chosen expert makes of x in `dtype`,
        or x itself for the skip class, times the weight."""
        mlp = self.experts.switch_mlp
        if self.by_kernels and images is None and fused(mlp, x.shape[1], dtype) and x.shape[0] > experts.MOST_TOKENS:
            weights = mlp.gate_up_proj.weight, mlp.down_proj.weight
            return experts.run_many(x.astype(dtype), x, choice.astype(mx.int32), weight[:, 0], *weights)
        y = self._way(x.shape[0])(x.astype(dtype), choice, images)
        return mx.where((choice == self.num_experts)[:, None], x, y.astype(x.dtype)) * weight

    def _way(self, tokens: int) -> Callable[[mx.array, mx.array, ImageRows | None], mx.array]:
        mlp = self.experts.switch_mlp
        if not isinstance(mlp.gate_up_proj, SwitchLinear):
            return mlp
        if cpu.on_cpu():
            return mlp.by_expert
        return mlp.dense if tokens >= _DENSE_FROM and mx.cuda.is_available() else mlp
