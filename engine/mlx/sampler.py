"""Draws one token per row, each row with its own parameters and its own noise.

Every filter comes down to one threshold per row: a token may be drawn if its logit reaches it. The draw itself is
the Gumbel-max trick, `argmax(logits + temperature * noise)`: temperature 0 is greedy without a branch, and the noise
of a row depends on (its seed, how many tokens it has drawn) alone, so that a candidate draws the same tokens alone
or in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from engine.api import SamplingParams
from engine.mlx.plain_sampler import Draw, PlainSampler

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK64 = 2**64 - 1


def noise_key(seed: int, draw: int) -> int:
    """64 well-mixed bits of (seed, draw): the splitmix64 generator's output number `draw`."""
    z = (seed + (draw + 1) * _GOLDEN_GAMMA) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


class BatchSampler:
    """Samples for a fixed list of rows; make a new one when rows join or leave.

    Shapes: B rows, V tokens.
    """

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self._seeds = [row.seed for row in rows]
        self._sampler = PlainSampler(rows)

    def __call__(self, logits: mx.array, draws: Sequence[int], *, log_probabilities: bool = False) -> Draw:
        """Draw from logits [B, V]; `draws` says how many tokens each row has drawn before. Waits for nothing."""
        keys = [divmod(noise_key(seed, draw), 2**32) for seed, draw in zip(self._seeds, draws, strict=True)]
        words = mx.array(np.array(keys, dtype=np.uint32).reshape(-1, 2))
        return self._sampler(logits, words, log_probabilities=log_probabilities)
