"""The vision tower of ZAYA1-VL: Qwen2.5-VL's transformer over image patches (arXiv 2502.13923, section 2.1.1).

Most blocks attend inside windows of 112 x 112 pixels, a few over the whole image. Widths: P = patches, H = hidden
size, d = width of a head, M = tokens (groups of 2 x 2 neighbouring patches, consecutive in the input).

Memory, beyond the weights: in float32 80 to 95 KB a patch at full size, 0.4 GB for an image of 1,000 tokens; that makes
2.5 GB for the largest image that the model card allows (8,000 tokens). Attention scores, the one thing that would grow
with the square of P (64 GB), are computed `_SCORES` (`_SCORES_ON_CPU`) at a time, and one block is evaluated before
the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.activations import swiglu

from engine.mlx import cpu
from engine.vision.config import VisionArgs

Grid = tuple[int, int, int]
"""The size of an image in patches: frames, rows and columns."""
Run = tuple[int, int]
"""Sequences of equal length that are neighbours in memory: how many, and of how many patches each."""

_ROPE_THETA = 10_000.0
_SCORES = 1 << 28
"""Attention scores computed at a time on a GPU: 1 GB in float32, where no fused kernel does without them."""
_SCORES_ON_CPU = 1 << 20
"""Attention scores computed at a time on the CPU: 4 MB stay in the processor's cache."""
_FEWEST_QUERIES = 32
"""The fewest queries computed at a time, however long the sequence: fewer make the products slow."""
_MLP_PATCHES = 1 << 11
"""Patches computed at a time in the products after attention."""
_PATCHES_AT_ONCE = 1 << 15
"""The most patches of images that are encoded together: one of the largest size is encoded by itself."""


class PatchEmbed(nn.Module):
    """A convolution whose stride is its width, so a product: the weight is kept as [H, values of a patch]."""

    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.proj = nn.Linear(args.patch_values, args.hidden_size, bias=False)

    def __call__(self, patches: mx.array) -> mx.array:
        """[P, channels * frames * height * width] -> [P, H]."""
        return self.proj(patches)


class Attention(nn.Module):
    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.num_heads = args.num_heads
        self.qkv = nn.Linear(args.hidden_size, 3 * args.hidden_size)
        self.proj = nn.Linear(args.hidden_size, args.hidden_size)

    def __call__(self, x: mx.array, runs: Sequence[Run], cos: mx.array, sin: mx.array) -> mx.array:
        """x [P, H], the sequences of `runs` one after the other; cos and sin [P, 1, 1, d/2] float32 -> [P, H]."""
        qkv = self.qkv(x).reshape(x.shape[0], 3, self.num_heads, -1)
        qk = _rotated(qkv[:, :2], cos, sin)  # [P, 2, heads, d]
        q, k, v = qk[:, 0], qk[:, 1], qkv[:, 2]
        parts, start = [], 0
        for count, length in runs:
            end = start + count * length
            parts.append(_attend(*(part[start:end].reshape(count, length, *part.shape[1:]) for part in (q, k, v))))
            start = end
        return self.proj(mx.concatenate(parts).astype(x.dtype))


class MLP(nn.Module):
    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(args.hidden_size, args.intermediate_size)
        self.up_proj = nn.Linear(args.hidden_size, args.intermediate_size)
        self.down_proj = nn.Linear(args.intermediate_size, args.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        """[P, H] -> [P, H], of many patches a part at a time: the inner width is nearly three times H."""
        if x.shape[0] <= _MLP_PATCHES:
            return self._part(x)
        parts = []
        for i in range(0, x.shape[0], _MLP_PATCHES):
            parts.append(self._part(x[i : i + _MLP_PATCHES]))
            mx.eval(parts[-1])
        return mx.concatenate(parts)

    def _part(self, x: mx.array) -> mx.array:
        gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(cpu.swiglu(gate, up).astype(x.dtype) if cpu.on_cpu() else swiglu(gate, up))


class Block(nn.Module):
    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(args.hidden_size, args.norm_eps)
        self.norm2 = nn.RMSNorm(args.hidden_size, args.norm_eps)
        self.attn = Attention(args)
        self.mlp = MLP(args)

    def __call__(self, h: mx.array, runs: Sequence[Run], cos: mx.array, sin: mx.array, dtype: mx.Dtype) -> mx.array:
        """h [P, H], the residual stream, is float32 whatever `dtype` the products run in."""
        h = h + self.attn(self.norm1(h).astype(dtype), runs, cos, sin)
        return h + self.mlp(self.norm2(h).astype(dtype))


class Merger(nn.Module):
    """Makes one token of each group of merge x merge patches."""

    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.width = args.hidden_size * args.spatial_merge_size**2
        self.ln_q = nn.RMSNorm(args.hidden_size, args.norm_eps)
        self.mlp = [nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, args.out_hidden_size)]

    def __call__(self, h: mx.array, dtype: mx.Dtype) -> mx.array:
        """h [P, H] float32 -> [M, out]."""
        x = self.ln_q(h).astype(dtype).reshape(-1, self.width)
        for layer in self.mlp:
            x = layer(x)
        return x


class VisionTower(nn.Module):
    """Parameters are named as in the checkpoint, less `vision_tower.`"""

    def __init__(self, args: VisionArgs) -> None:
        super().__init__()
        self.args = args
        self.patch_embed = PatchEmbed(args)
        self.blocks = [Block(args) for _ in range(args.depth)]
        self.merger = Merger(args)

    def __call__(self, patches: mx.array, grids: Sequence[Grid]) -> mx.array:
        """Features of some images, [sum of t*h*w / merge^2, out_hidden_size] in the type of the weights.

        patches [sum of t*h*w, channels * frames * height * width] in the processor's order: image by image, in each
        frame row by row of merge x merge groups. Images do not attend to each other, nor frames of one image.
        Computes at once: block by block, so that its memory is that of one block.

        Raises ValueError: the grids do not fit the patches, or cannot be divided into groups.
        """
        merge = self.args.spatial_merge_size
        if not grids or any(min(grid) < 1 or grid[1] % merge or grid[2] % merge for grid in grids):
            raise ValueError(f"an image needs rows and columns that are multiples of {merge}: {list(grids)}")
        sizes = [t * h * w for t, h, w in grids]
        if patches.shape != (sum(sizes), self.args.patch_values):
            raise ValueError(f"{list(grids)} need [{sum(sizes)}, {self.args.patch_values}], not {patches.shape}")
        features, start = [], 0
        for group in _groups(grids):
            end = start + sum(t * h * w for t, h, w in group)
            features.append(self._features(patches[start:end], group))
            start = end
        return mx.concatenate(features)

    def _features(self, patches: mx.array, grids: Sequence[Grid]) -> mx.array:
        args, dtype = self.args, self.patch_embed.proj.weight.dtype
        layout = Layout.of(grids, args)
        tokens, unit = layout.order.size, args.spatial_merge_size**2
        patches = patches.reshape(tokens, unit, -1)[layout.order].reshape(tokens * unit, -1)
        h = self.patch_embed(patches.astype(dtype)).astype(mx.float32)  # [P, H], ordered by window from here on
        for i, block in enumerate(self.blocks):
            runs = layout.frames if i in args.full_attention_blocks else layout.windows
            h = block(h, runs, layout.cos, layout.sin, dtype)
            mx.eval(h)  # a GPU would keep what all blocks leave behind until the last has run
        features = self.merger(h, dtype)[layout.inverse]  # [M, out]
        mx.eval(features)
        return features


def _groups(grids: Sequence[Grid]) -> Iterator[list[Grid]]:
    """Images in order, as many at a time as `_PATCHES_AT_ONCE` allows, at least one."""
    group: list[Grid] = []
    patches = 0
    for t, h, w in grids:
        if group and patches + t * h * w > _PATCHES_AT_ONCE:
            yield group
            group, patches = [], 0
        group.append((t, h, w))
        patches += t * h * w
    yield group


# ---- attention -------------------------------------------------------------------------------------------------


def _rotated(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    """x [P, ..., d]: turn the pairs (i, i + d/2) in float32; the same type is given back."""
    half = x.shape[-1] // 2
    return mx.concatenate(_rotated_halves(x[..., :half], x[..., half:], cos, sin), axis=-1)


@partial(mx.compile, shapeless=True)
def _rotated_halves(a: mx.array, b: mx.array, cos: mx.array, sin: mx.array) -> list[mx.array]:
    left, right = a.astype(mx.float32), b.astype(mx.float32)
    return [(left * cos - right * sin).astype(a.dtype), (right * cos + left * sin).astype(b.dtype)]


def _attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """q, k, v [count, length, heads, d]: everything sees everything within a sequence -> [count * length, H]."""
    count, length, heads, d = q.shape
    if cpu.on_cpu():
        return _attend_on_cpu(q * d**-0.5, k, v)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))  # [count, heads, length, d]
    blocks, parts = _blocks(count, length, _SCORES // heads), []
    for some, few in blocks:
        part = mx.fast.scaled_dot_product_attention(q[some, :, few], k[some], v[some], scale=d**-0.5)
        parts.append(part.transpose(0, 2, 1, 3).reshape(-1, heads * d))
        if len(blocks) > 1:
            mx.eval(parts[-1])  # or MLX would begin many parts before it has ended one
    return mx.concatenate(parts)


def _attend_on_cpu(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """The same, q scaled. MLX's own way on this backend has a slow exponential, and copies keys that lie scattered."""
    count, length, heads, d = q.shape
    q, k, v = (x.transpose(0, 2, 1, 3).reshape(-1, length, d) for x in (q, k, v))  # [count * heads, length, d]
    blocks, parts = _blocks(count * heads, length, _SCORES_ON_CPU), []
    for some, few in blocks:
        part = cpu.softmax(q[some, few] @ k[some].swapaxes(1, 2)) @ v[some]
        parts.append(part.reshape(-1, d))
        if len(blocks) > 1:
            mx.eval(parts[-1])
    out = mx.concatenate(parts).reshape(count, heads, length, d)
    return out.transpose(0, 2, 1, 3).reshape(count * length, heads * d)


def _blocks(count: int, length: int, scores: int) -> list[tuple[slice, slice]]:
    """Sequences and queries to take at a time, in order: some sequences whole, or a long one by a few queries."""
    some = max(1, scores // length**2)
    few = length if some > 1 else max(_FEWEST_QUERIES, scores // length)
    sequences = [slice(i, i + some) for i in range(0, count, some)]
    return [(each, slice(j, j + few)) for each in sequences for j in range(0, length, few)]


# ---- layout ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """An order of tokens in which each window is one stretch of memory, and each frame too.

    order    [M]: the token that comes n-th. Within a frame windows of equal size are neighbours, so that a block
             takes them in one product: inner ones, then those cut off at an edge, then the corner's.
    inverse  [M]: where a token has gone.
    windows, frames  the sequences within which blocks attend, in that order.
    cos, sin [P, 1, 1, d/2] float32, in that order: the first half of the angles turns with a patch's row, the
             second with its column.
    """

    order: mx.array
    inverse: mx.array
    windows: tuple[Run, ...]
    frames: tuple[Run, ...]
    cos: mx.array
    sin: mx.array

    @classmethod
    def of(cls, grids: Sequence[Grid], args: VisionArgs) -> Layout:
        merge = args.spatial_merge_size
        side = args.window_size // args.patch_size // merge
        unit = merge * merge
        frames = [(h // merge, w // merge) for t, h, w in grids for _ in range(t)]  # in tokens
        starts = accumulate((rows * columns for rows, columns in frames), initial=0)
        orders, positions, windows = [], [], []
        for start, (rows, columns) in zip(starts, frames, strict=False):
            order, sizes = _by_window(rows, columns, side)
            orders.append(start + order)
            positions.append(_positions(rows, columns, merge)[order])
            windows += [(1, unit * size) for size in sizes]
        order = np.concatenate(orders)
        angles = _angles(np.concatenate(positions).reshape(-1, 2), args.hidden_size // args.num_heads)
        return cls(
            order=mx.array(order),
            inverse=mx.array(np.argsort(order)),
            windows=_runs(windows),
            frames=_runs([(1, unit * rows * columns) for rows, columns in frames]),
            cos=mx.array(np.cos(angles).astype(np.float32))[:, None, None],
            sin=mx.array(np.sin(angles).astype(np.float32))[:, None, None],
        )


def _by_window(rows: int, columns: int, side: int) -> tuple[np.ndarray, list[int]]:
    """Tokens of a frame ordered by window, the large windows first: their indices [rows*columns]; sizes of windows."""
    y, x = np.divmod(np.arange(rows * columns), columns)
    window = y // side * columns + x // side  # any number that is the window's own
    height = np.minimum(side, rows - y // side * side)
    width = np.minimum(side, columns - x // side * side)
    order = np.lexsort((window, -height * width))
    counts = np.unique(window, return_counts=True)[1]
    return order, sorted(counts.tolist(), reverse=True)


def _positions(rows: int, columns: int, merge: int) -> np.ndarray:
    """Row and column of each patch of a frame, token by token: [rows*columns, merge^2, 2]."""
    y, x = np.meshgrid(np.arange(rows * merge), np.arange(columns * merge), indexing="ij")
    both = np.stack([y, x], axis=-1).reshape(rows, merge, columns, merge, 2)
    return both.swapaxes(1, 2).reshape(rows * columns, merge * merge, 2)


def _angles(positions: np.ndarray, head_dim: int) -> np.ndarray:
    """positions [P, 2] of rows and columns -> [P, d/2]."""
    quarter = head_dim // 4
    frequencies = _ROPE_THETA ** (-np.arange(quarter) / quarter)
    return (positions[:, :, None] * frequencies).reshape(-1, 2 * quarter)


def _runs(sequences: Sequence[Run]) -> tuple[Run, ...]:
    """Neighbours of equal length together."""
    runs: list[Run] = []
    for count, length in sequences:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + count, length)
        else:
            runs.append((count, length))
    return tuple(runs)


# ---- checkpoint ------------------------------------------------------------------------------------------------


def vision_tensors(args: VisionArgs) -> dict[str, tuple[int, ...]]:
    """Name (less `vision_tower.`) -> shape of every tensor of a checkpoint's tower, in torch's layout."""
    h, inner, wide = args.hidden_size, args.intermediate_size, args.hidden_size * args.spatial_merge_size**2
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": _conv_shape(args)}
    linears: dict[str, tuple[int, int]] = {"merger.mlp.0": (wide, wide), "merger.mlp.2": (args.out_hidden_size, wide)}
    for n in range(args.depth):
        block = f"blocks.{n}."
        shapes |= {f"{block}norm1.weight": (h,), f"{block}norm2.weight": (h,)}
        linears |= {f"{block}attn.qkv": (3 * h, h), f"{block}attn.proj": (h, h)}
        linears |= {f"{block}mlp.{name}_proj": (inner, h) for name in ("gate", "up")}
        linears[f"{block}mlp.down_proj"] = (h, inner)
    shapes["merger.ln_q.weight"] = (h,)
    for name, (out, into) in linears.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    return shapes


def convert_vision(args: VisionArgs, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """A checkpoint's tensors, names less `vision_tower.`, -> parameters of `VisionTower`.

    Only the patch embedding changes: a convolution's weight in torch's layout, or in MLX's (channels last) as some
    converters leave it, becomes a matrix. One that is a matrix already passes. Shapes are the caller's to check,
    against `vision_tensors` before or the parameters after.
    """
    name = "patch_embed.proj.weight"
    weight = tensors.get(name)
    if weight is None or weight.ndim != 5:
        return dict(tensors)
    channels_last = _conv_shape(args)[:1] + _conv_shape(args)[2:] + (args.in_channels,)
    if tuple(weight.shape) == channels_last:
        weight = mx.moveaxis(weight, -1, 1)
    return {**tensors, name: weight.reshape(weight.shape[0], -1)}


def _conv_shape(args: VisionArgs) -> tuple[int, ...]:
    size = args.patch_size
    return (args.hidden_size, args.in_channels, args.temporal_patch_size, size, size)
