"""Draws tokens by MLX's own operations: for CPUs, and what kernels are held against.

Nothing is decided on the host, which would have to wait for the logits: what is computed depends on the rows' settings
and on shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from engine.api import SamplingParams
from engine.mlx.cpu import exp_nonpositive, on_cpu

_SORTED = 512
"""Tokens of a row that a CPU sorts to find a nucleus. A sort there takes 140 ns a token, to halve the row by partitions
until so few are left 20."""


COLDEST = 1e-5
"""The temperature that stands for 0 where logits are divided by it: at temperature 0, probabilities are 0 and 1, and so
they are at this."""

_UNTHINKABLE = -1e4
"""Nats below the likeliest token that stand for infinitely many: times a probability of 0 they are 0, and no NaN."""

_PIECE = 32768
"""Numbers that a CPU takes at a time where it adds up exponentials. The memory of more is fetched anew from the system
for each operation, which makes it half as long again."""


class Draw(NamedTuple):
    """What is drawn for B rows.

    tokens  [B] token ids.
    finite  [B] booleans; False where the logits hold NaN or infinity, or nothing but -infinity. The token is none then.
    likelihoods  [B, 2] log-probability of each token, and what it was expected to be, the negative entropy: in nats, of
                 the model's own distribution (temperature 1, no filter). None if nobody asked.
    """

    tokens: mx.array
    finite: mx.array
    likelihoods: mx.array | None = None


class PlainSampler:
    """Samples for a fixed list of B rows, from V tokens."""

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self._greedy = all(row.temperature == 0 for row in rows)
        self._temperature = mx.array([[row.temperature] for row in rows])  # [B, 1]
        self._sharpness = mx.array([[1 / max(row.temperature, COLDEST)] for row in rows])  # [B, 1]
        self._filters = _Filters(rows)

    def __call__(self, logits: mx.array, keys: mx.array, *, likelihoods: bool) -> Draw:
        """Draw from logits [B, V]; keys [B, 2] are the two words of each row's noise, in uint32."""
        tokens = self._tokens(logits, keys)
        best = mx.max(logits, axis=-1)
        finite = mx.isfinite(best)  # a NaN is the largest of all
        return Draw(tokens, finite, _likelihoods(logits, tokens, best) if likelihoods else None)

    def _tokens(self, logits: mx.array, keys: mx.array) -> mx.array:
        if self._greedy:
            return mx.argmax(logits, axis=-1)
        logits = logits.astype(mx.float32)
        noise = mx.vmap(lambda key: mx.random.gumbel(logits.shape[-1:], key=key))(keys)  # [B, V]
        scores = logits + self._temperature * noise
        if self._filters.any:
            scores = mx.where(self._filters.allowed(logits * self._sharpness), scores, -mx.inf)
        return mx.argmax(scores, axis=-1)


def _likelihoods(logits: mx.array, tokens: mx.array, best: mx.array) -> mx.array:
    batch, vocab = logits.shape
    best = best[:, None].astype(mx.float32)
    piece = max(1, _PIECE // batch) if on_cpu() else vocab
    total = expected = mx.zeros((batch, 1))
    for first in range(0, vocab, piece):
        below = mx.maximum(logits[:, first : first + piece].astype(mx.float32) - best, _UNTHINKABLE)
        mass = _exp(below)
        total = total + mx.sum(mass, axis=-1, keepdims=True)
        expected = expected + mx.sum(mass * below, axis=-1, keepdims=True)
    drawn = mx.take_along_axis(logits, tokens[:, None], axis=-1).astype(mx.float32) - best
    return mx.concatenate([drawn, expected / total], axis=-1) - mx.log(total)


class _Filters:
    """The filters of B rows. Ties at a threshold are all within it, and the likeliest token always is."""

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self.any = any(row.min_p > 0 or row.top_k > 0 or row.top_p < 1 for row in rows)
        self._min_p = any(row.min_p > 0 for row in rows)
        self._log_min_p = mx.array([[math.log(row.min_p) if row.min_p > 0 else -math.inf] for row in rows])  # [B, 1]
        self._top_k = mx.array([[row.top_k] for row in rows], dtype=mx.int32)  # [B, 1], 0: none
        self._most_top_k = max((row.top_k for row in rows), default=0)
        self._top_p = mx.array([[row.top_p] for row in rows])  # [B, 1]
        self._some_top_p = any(row.top_p < 1 for row in rows)
        self._nuclei_of_heads = all(row.top_k > 0 for row in rows if row.top_p < 1)

    def allowed(self, scaled: mx.array) -> mx.array:
        """True where a token may be drawn [B, V], by logits over the temperature [B, V] in float32."""
        best = mx.max(scaled, axis=-1, keepdims=True)
        edge = best + self._log_min_p if self._min_p else mx.full(best.shape, -mx.inf)
        if not self._most_top_k and not self._some_top_p:
            return scaled >= edge
        head = mass = None
        if self._most_top_k:
            head = _likeliest(scaled, min(self._most_top_k, scaled.shape[-1]))  # [B, K]
            last = mx.clip(self._top_k, 1, head.shape[-1]) - 1
            edge = mx.maximum(edge, mx.where(self._top_k > 0, mx.take_along_axis(head, last, axis=-1), -mx.inf))
            mass = mx.where(mx.arange(head.shape[-1])[None] <= last, _exp(head - best), 0.0)
        if not self._some_top_p:
            return scaled >= edge
        if head is not None and mass is not None and self._nuclei_of_heads:
            kept = mx.sum(mass, axis=-1, keepdims=True)
            nucleus = _last_within(head, mass, self._target(kept))
            return scaled >= mx.maximum(edge, mx.where(self._top_p < 1, nucleus, -mx.inf))
        everything = _exp(scaled - best)  # [B, V]
        kept = mx.sum(everything, axis=-1, keepdims=True)
        if mass is not None:
            kept = mx.where(self._top_k > 0, mx.sum(mass, axis=-1, keepdims=True), kept)
        return (everything >= least_of_nucleus(everything, self._target(kept))) & (scaled >= edge)

    def _target(self, kept: mx.array) -> mx.array:
        """The mass [B, 1] that the tokens before any of the nucleus do not reach, of the mass that top_k keeps."""
        return mx.where(self._top_p < 1, self._top_p * kept, mx.inf)


def _exp(x: mx.array) -> mx.array:
    """exp(x) for x <= 0."""
    return exp_nonpositive(x) if on_cpu() else mx.exp(x)


def least_of_nucleus(mass: mx.array, target: mx.array) -> mx.array:
    """The smallest mass [B, 1] such that the larger ones of the row [B, V] together are less than the target [B, 1];
    the largest, if there is none.

    A CPU halves the row as often as it takes: partitioned at the middle, the half that holds the edge is kept, and the
    mass of the other, if that is the larger one, remembered. GPUs sort faster than they partition.
    """
    before = mx.zeros_like(target)
    if on_cpu():
        halvings = max(0, math.ceil(math.log2(mass.shape[-1] / _SORTED)))
        missing = -mass.shape[-1] % 2**halvings
        if missing:
            mass = mx.pad(mass, [(0, 0), (0, missing)])
        rows = mx.arange(mass.shape[0])
        for _ in range(halvings):
            half = mass.shape[-1] // 2
            halves = mx.partition(mass, half, axis=-1).reshape(-1, 2, half)  # [B, smaller ones and larger ones, V / 2]
            above = before + mx.sum(halves[:, 1], axis=-1, keepdims=True)
            beyond = above < target
            before = mx.where(beyond, above, before)
            mass = halves[rows, mx.where(beyond[:, 0], 0, 1)]
    mass = _likeliest(mass, mass.shape[-1])
    return _last_within(mass, mass, target - before)


def _likeliest(values: mx.array, count: int) -> mx.array:
    """The largest values of each row [B, count], largest first."""
    if count < values.shape[-1]:
        values = mx.topk(values, count, axis=-1)
    return -mx.sort(-values, axis=-1)


def _last_within(values: mx.array, mass: mx.array, target: mx.array) -> mx.array:
    """The last of the values [B, K], which fall, before which the mass is less than the target [B, 1]; or the first."""
    within = (mx.cumsum(mass, axis=-1) - mass < target) | (mx.arange(values.shape[-1])[None] == 0)
    return mx.min(mx.where(within, values, mx.inf), axis=-1, keepdims=True)
