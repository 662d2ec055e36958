"""Draws one token per row, each row with its own parameters and its own noise.

Every filter comes down to one threshold per row: a token may be drawn if its logit reaches it. The draw itself is
the Gumbel-max trick, `argmax(logits + temperature * noise)`: temperature 0 is greedy without a branch, and the noise
of a row depends on (its seed, how many tokens it has drawn) alone, so that a candidate draws the same tokens alone
or in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from engine.api import SamplingParams

_HEAD_TOKENS = 1024
"""The number of likeliest tokens among which nuclei are looked for; a full sort only when they hold too little mass. At
262,272 tokens and 16 rows a partition takes 35 ms on a CPU, a sort 430."""

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK64 = 2**64 - 1


def noise_key(seed: int, draw: int) -> int:
    """64 well-mixed bits of (seed, draw): the splitmix64 generator's output number `draw`."""
    z = (seed + (draw + 1) * _GOLDEN_GAMMA) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


class Draw(NamedTuple):
    """What is drawn for B rows.

    tokens  [B] token ids.
    finite  [B] booleans; False where the logits hold NaN or infinity, or nothing but -infinity. The token is none then.
    """

    tokens: mx.array
    finite: mx.array


class BatchSampler:
    """Samples for a fixed list of rows; make a new one when rows join or leave.

    Shapes: B rows, V tokens.
    """

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self._seeds = [row.seed for row in rows]
        self._greedy = all(row.temperature == 0 for row in rows)
        self._temperature = mx.array([[row.temperature] for row in rows])  # [B, 1]
        # A filtered row at temperature 0 has probabilities of 0 and 1; a tiny temperature says the same.
        self._sharpness = mx.array([[1 / max(row.temperature, 1e-5)] for row in rows])  # [B, 1]
        self._min_p = any(row.min_p > 0 for row in rows)
        self._log_min_p = mx.array([[math.log(row.min_p) if row.min_p > 0 else -math.inf] for row in rows])
        self._top = any(row.top_p < 1 or row.top_k > 0 for row in rows)
        self._top_p = mx.array([[row.top_p] for row in rows])  # [B, 1]
        self._top_k = mx.array([[row.top_k if row.top_k > 0 else 2**31 - 1] for row in rows])  # [B, 1]
        self._max_top_k = max((row.top_k for row in rows), default=0)

    def __call__(self, logits: mx.array, draws: Sequence[int]) -> Draw:
        """Draw from logits [B, V]; `draws` says how many tokens each row has drawn before."""
        return Draw(self._tokens(logits, draws), mx.isfinite(mx.max(logits, axis=-1)))  # a NaN is the largest of all

    def _tokens(self, logits: mx.array, draws: Sequence[int]) -> mx.array:
        if self._greedy:
            return mx.argmax(logits, axis=-1)
        logits = logits.astype(mx.float32)
        if self._min_p or self._top:
            allowed = logits * self._sharpness >= self._thresholds(logits * self._sharpness)
            logits = mx.where(allowed, logits, -mx.inf)
        return mx.argmax(logits + self._temperature * self._noise(draws, logits.shape[-1]), axis=-1)

    def _noise(self, draws: Sequence[int], vocab: int) -> mx.array:
        keys = np.array(
            [divmod(noise_key(seed, draw), 2**32) for seed, draw in zip(self._seeds, draws, strict=True)],
            dtype=np.uint32,
        )
        return mx.vmap(lambda key: mx.random.gumbel((vocab,), key=key))(mx.array(keys))  # [B, V]

    def _thresholds(self, scaled: mx.array) -> mx.array:
        """Lowest logit (over temperature) that each row may draw: [B, 1]."""
        best = mx.max(scaled, axis=-1, keepdims=True)
        threshold = best + self._log_min_p
        if not self._top:
            return threshold
        vocab = scaled.shape[-1]
        log_total = mx.logsumexp(scaled, axis=-1, keepdims=True)  # [B, 1]
        head_tokens = max(_HEAD_TOKENS, self._max_top_k)
        if vocab > 4 * head_tokens:
            head = -mx.sort(-mx.topk(scaled, head_tokens, axis=-1), axis=-1)  # [B, head], likeliest first
            if self._covers(head, log_total):
                return mx.maximum(threshold, self._nucleus_edge(head, log_total))
        head = -mx.sort(-scaled, axis=-1)
        return mx.maximum(threshold, self._nucleus_edge(head, log_total))

    def _covers(self, head: mx.array, log_total: mx.array) -> bool:
        """True if every row's nucleus lies within `head`, so that cutting the rest off changes nothing."""
        mass = mx.sum(mx.exp(head - log_total), axis=-1, keepdims=True)
        return bool(mx.all((mass >= self._top_p) | (self._top_k <= head.shape[-1])).item())

    def _nucleus_edge(self, head: mx.array, log_total: mx.array) -> mx.array:
        """Logit of the last token of each row's nucleus, top-k first and top-p of what it leaves: [B, 1].

        head [B, K] is sorted, likeliest first. A token belongs to the nucleus while the mass before it is below
        top_p; the first always does. top_p = 1 keeps all.
        """
        within_k = mx.arange(head.shape[-1])[None] < self._top_k
        mass = mx.where(within_k, mx.exp(head - log_total), 0.0)
        kept_total = mx.where(
            self._top_k <= head.shape[-1], mx.sum(mass, axis=-1, keepdims=True), 1.0
        )  # without top-k the nucleus is measured against the whole vocabulary
        before = mx.cumsum(mass, axis=-1) - mass
        inside = within_k & ((before < self._top_p * kept_total) | (self._top_p >= 1))
        inside = inside | (mx.arange(head.shape[-1])[None] == 0)
        edge = mx.min(mx.where(inside, head, mx.inf), axis=-1, keepdims=True)
        unfiltered = (self._top_p >= 1) & (self._top_k > head.shape[-1])
        return mx.where(unfiltered, -mx.inf, edge)
