"""Vision-LoRA: low-rank additions to the projections, for image tokens only.

ZAYA1-VL has one beside each matrix of attention and experts, without a scale. They are computed over the image
tokens of a pass, gathered, and not at all where there are none, as in decoding. Their parameters are plain arrays,
which no quantiser touches. r is the rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn

from engine.families.zaya.config import ModelArgs


@dataclass(frozen=True)
class ImageRows:
    """Which of the N tokens of a pass are the M image tokens.

    rows [M]: where they are, ascending. places [N]: which of them each token is; M if it is none.
    """

    rows: mx.array
    places: mx.array

    @property
    def image(self) -> np.ndarray:
        """[N] bool; waits for the arrays."""
        return np.array(self.places) < self.rows.size

    @classmethod
    def find(cls, image: np.ndarray) -> ImageRows:
        """image [N] bool."""
        rows = np.flatnonzero(image)
        places = np.where(image, np.cumsum(image) - 1, rows.size)
        return cls(mx.array(rows.astype(np.int32)), mx.array(places.astype(np.int32)))

    def reordered(self, order: mx.array) -> ImageRows:
        """The same for the tokens taken in another order, [N]; nothing is waited for."""
        count = self.rows.size
        image = (self.places < count)[order]
        places = mx.where(image, mx.cumsum(image.astype(mx.int32)) - 1, count)
        return ImageRows(mx.argsort(places)[:count], places)

    def of(self, x: mx.array) -> mx.array:
        """x [N, ...] -> the image tokens' part, [M, ...]."""
        return x[self.rows]

    def spread(self, y: mx.array) -> mx.array:
        """y [M, ...] -> [N, ...], zero for other tokens. Gathered: scattering floats is not exact everywhere."""
        return mx.concatenate([y, mx.zeros_like(y[:1])])[self.places]


class LoRA(nn.Module):
    """The one beside a linear layer."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = mx.zeros((rank, inputs))
        self.up = mx.zeros((outputs, rank))

    def __call__(self, x: mx.array, images: ImageRows) -> mx.array:
        """x [N, in] -> [N, out], zero for text."""
        return images.spread(images.of(x) @ self.down.T @ self.up.T).astype(x.dtype)


class QKVLoRA(nn.Module):
    """Those beside queries, keys, current values and delayed values, in this order, as one."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        rank = args.lora_rank_attn
        self.down_now = mx.zeros((3 * rank, args.hidden_size))
        self.down_before = mx.zeros((rank, args.hidden_size))
        # Four blocks on its diagonal: the zeros cost less than four products.
        self.up = mx.zeros((args.qk_width + 2 * args.value_width, 4 * rank))

    def __call__(self, x: mx.array, before: mx.array, images: ImageRows) -> mx.array:
        """x [B, n, H], before [B, 1, H] the inputs of the token before -> [B, n, C + 2*V], zero for text.

        The delayed values are made of the token before, whatever it is, where the token itself is an image's.
        """
        batch, n, width = x.shape
        now = images.of(x.reshape(-1, width)) @ self.down_now.T  # [M, 3*r]
        earlier = mx.concatenate([before, x], axis=1).reshape(-1, width)  # [B * (1 + n), H]
        delayed = earlier[images.rows + images.rows // n] @ self.down_before.T  # [M, r]
        y = mx.concatenate([now, delayed], axis=-1) @ self.up.T  # [M, C + 2*V]
        return images.spread(y).reshape(batch, n, -1).astype(x.dtype)


class ExpertLoRA(nn.Module):
    """Those beside one matrix of each expert."""

    def __init__(self, inputs: int, outputs: int, args: ModelArgs) -> None:
        super().__init__()
        self.down = mx.zeros((args.num_experts, args.lora_rank_mlp, inputs))
        self.up = mx.zeros((args.num_experts, outputs, args.lora_rank_mlp))

    def __call__(self, x: mx.array, choice: mx.array, images: ImageRows, ordered: bool) -> mx.array:
        """x [N, 1, in], choice [N] of experts, ascending if `ordered` -> [N, 1, out], zero for text."""
        h, choice = images.of(x), images.of(choice)
        for weight in (self.down, self.up):
            h = mx.gather_mm(h, weight.swapaxes(-1, -2), rhs_indices=choice, sorted_indices=ordered)
        return images.spread(h).astype(x.dtype)

    def by_expert(self, x: mx.array, tokens: list[int], images: ImageRows) -> mx.array:
        """The same one expert at a time: x [N, in] sorted by expert, with tokens[e] *image* tokens of expert e
        -> [N, out]."""
        h, parts, start = images.of(x), [], 0
        for expert, count in enumerate(tokens):
            if count:
                parts.append(h[start : start + count] @ self.down[expert].T @ self.up[expert].T)
                start += count
        return images.spread(mx.concatenate(parts)).astype(x.dtype)
