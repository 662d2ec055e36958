"""Draws a token for each row in two or three kernels, without a sort, a copy of the logits or noise in memory.

What `engine.mlx.sampler` states in plain operations: `argmax(logit + temperature * noise)` over the tokens whose scaled
logit (over the temperature) reaches a threshold. The threshold is never computed. A *record* is a token whose score is
the best among those of its logit or more: what the row would draw if the threshold was at its logit. A row of n tokens
has about log(n) records at most, and the draw is the first of them (best score first) that reaches the threshold, which
one can tell by how many tokens, of what mass, are likelier than it.

    propose   a block a slice of a row: noise, scores, the slice's records, its largest logit and sums over exponentials
    count     where token top_k is, in two steps; only if a row has top_k and top_p, which is of what top_k leaves
    weigh     a block a slice: count and mass of the tokens likelier than each record of the row; only with these two
    choose    a block a row: the first record that is allowed

Sums are in an order that depends on the vocabulary's size alone, so that a row draws in any batch what it draws alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial

import mlx.core as mx

from engine.api import SamplingParams
from engine.mlx.kernels import sampling_bodies as bodies
from engine.mlx.kernels.launch import Kernel
from engine.mlx.plain_sampler import COLDEST, Draw

_UNFILTERED, _BY_MIN_P, _BY_TOP, _BY_BOTH = range(4)
"""The filters of a row, by what it takes to apply them."""

_OUT_OF_REACH = -20.0
"""Nats below the likeliest token from which on no noise makes up for it: Gumbel noise of 32 random bits lies between
-3.1 and 16.7. (But for bits that are all zero, once in 4e9: the draw would then differ once in e^20 times that.)"""

_MOST_TOKENS = 2**24
"""Token ids and counts are kept as floats, which beyond this are not exact."""

_THREADS = 256
_PAIRS = 8
"""Pairs of tokens of a thread: the generator makes the noise of two tokens at once, half a row apart."""

_MOST = 48
"""Room for records. With equal logits, where they are most, their number in a row of V tokens is about Poisson of
log(V) + 0.6: more than 48 of 262,272 once in 1e13 rows. The last would then be the likeliest token."""

_HELD = 8
"""Records that a thread keeps at hand while it looks through those of a row: 8 times 256 are more than a vocabulary of
262,272 usually has."""

_PARTS, _BINS = 16, 512
"""Blocks of a row in `count`, and bins of each of its steps: two part 32 nats into pieces of 1.2e-4."""


class KernelSampler:
    """As `engine.mlx.plain_sampler.PlainSampler`: B rows, V tokens; V below 2^24."""

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self._filters = max((_filters(row) for row in rows), default=_UNFILTERED)
        self._params = mx.array([_parameters(row) for row in rows], dtype=mx.float32)  # [B, PARAMETERS]

    def __call__(self, logits: mx.array, keys: mx.array, *, likelihoods: bool) -> Draw:
        """Draw from logits [B, V]; keys [B, 2] are the two words of each row's noise, in uint32."""
        if logits.dtype not in (mx.float32, mx.bfloat16):
            logits = logits.astype(mx.float32)
        tokens, finite, told = _compiled(self._filters, likelihoods)(logits, self._params, keys)
        return Draw(tokens, finite, told if likelihoods else None)


@cache
def _compiled(filters: int, likelihoods: bool) -> Callable[[mx.array, mx.array, mx.array], list[mx.array]]:
    """The kernels for rows of such filters, put together once for each shape: to do so at every draw takes the host
    longer than it takes the device to run them."""
    return mx.compile(partial(_draw, filters=filters, likelihoods=likelihoods))


def _draw(logits: mx.array, params: mx.array, keys: mx.array, *, filters: int, likelihoods: bool) -> list[mx.array]:
    """Tokens [B], whether logits are finite [B], likelihoods [B, 2] or anything."""
    batch, vocab = logits.shape
    slices = -(-vocab // (2 * _PAIRS * _THREADS))
    launch = partial(_launch, dtype=logits.dtype, rows=batch, likelihoods=likelihoods)
    records, stats = launch(
        bodies.PROPOSE, logits, params, keys, across=slices,
        outputs=[((batch, slices, _MOST, 3), mx.float32), ((batch, slices, 8), mx.float32)],
    )  # fmt: skip
    weights = stats  # `choose` reads none then
    if filters >= _BY_TOP:
        kernel, place = bodies.WEIGH, []
        if filters == _BY_BOTH:
            made = ((batch, _PARTS, _BINS), mx.int32)
            (bins,) = launch(bodies.COUNT, logits, params, stats, across=_PARTS, outputs=[made])
            place = launch(
                bodies.RECOUNT, logits, params, stats, bins, across=_PARTS, outputs=[made, ((batch, 2), mx.int32)]
            )
            kernel = bodies.WEIGH_BOTH
        (weights,) = launch(
            kernel, logits, params, stats, records, *place, across=slices,
            outputs=[((batch, slices, _MOST + 2, 2), mx.float32)],
        )  # fmt: skip
    return launch(
        bodies.CHOOSE, logits, params, stats, records, weights, across=1,
        outputs=[((batch,), mx.uint32), ((batch,), mx.bool_), ((batch, 2), mx.float32)],
    )  # fmt: skip


def _launch(
    kernel: Kernel,
    *inputs: mx.array,
    dtype: mx.Dtype,
    rows: int,
    likelihoods: bool,
    across: int,
    outputs: list[tuple[tuple[int, ...], mx.Dtype]],
) -> list[mx.array]:
    """A kernel with `across` blocks for each row."""
    constants: dict[str, int | mx.Dtype] = {
        "T": dtype, "LIKELIHOODS": int(likelihoods), "PAIRS": _PAIRS, "THREADS": _THREADS, "WARPS": _THREADS // 32,
        "MOST": _MOST, "HELD": _HELD, "PARTS": _PARTS, "BINS": _BINS,
    }  # fmt: skip
    return kernel(*inputs, blocks=(across, rows, 1), threads=_THREADS, outputs=outputs, constants=constants)


def _parameters(row: SamplingParams) -> list[float]:
    """In the order of the enumeration Parameter in the kernels' texts."""
    log_min_p = math.log(row.min_p) if row.min_p > 0 else -math.inf
    top_k = min(row.top_k, _MOST_TOKENS) if row.top_k > 0 else _MOST_TOKENS
    sharpness = 1 / max(row.temperature, COLDEST)
    return [row.temperature, sharpness, max(log_min_p, _OUT_OF_REACH), row.top_p, top_k, _filters(row)]


def _filters(row: SamplingParams) -> int:
    if row.top_p < 1 and row.top_k > 0:
        return _BY_BOTH
    if row.top_p < 1 or row.top_k > 0:
        return _BY_TOP
    return _BY_MIN_P if row.min_p > 0 else _UNFILTERED
