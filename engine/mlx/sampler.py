"""Draws one token per row, each row with its own parameters and its own noise.

Every filter comes down to one threshold per row: a token may be drawn if its logit reaches it. The draw itself is
the Gumbel-max trick, `argmax(logits + temperature * noise)`: temperature 0 is greedy without a branch, and the noise
of a row depends on (its seed, how many tokens it has drawn) alone, so that a candidate draws the same tokens alone
or in any batch.

Where kernels of our own are wanted (engine/mlx/kernels), they do the same with the same noise, and sums in another
order: they may differ where two scores, or the mass of a nucleus and its bound, agree but for their rounding. Of equal
scores, both draw the token with the smallest id.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from engine.api import SamplingParams
from engine.mlx.kernels import launch
from engine.mlx.kernels.sampling import KernelSampler
from engine.mlx.plain_sampler import Draw, PlainSampler

_GOLDEN_GAMMA, _MIX_1, _MIX_2 = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)
_1, _27, _30, _31, _32 = np.array([1, 27, 30, 31, 32], dtype=np.uint64)


def noise_keys(seeds: npt.NDArray[np.uint64], draws: Sequence[int]) -> npt.NDArray[np.uint32]:
    """64 well-mixed bits of each (seed, draw), as two words, the upper first: [B, 2].

    They are the splitmix64 generator's output number `draw` (from 0) of that seed.
    """
    z = seeds + (np.array(draws, dtype=np.uint64) + _1) * _GOLDEN_GAMMA
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    z ^= z >> _31
    words = np.empty((len(z), 2), dtype=np.uint32)
    words[:, 0], words[:, 1] = z >> _32, z  # of z the lower half
    return words


class BatchSampler:
    """Samples for a fixed list of rows; make a new one when rows join or leave.

    Shapes: B rows, V tokens.
    """

    def __init__(self, rows: Sequence[SamplingParams]) -> None:
        self._seeds = np.array([row.seed for row in rows], dtype=np.uint64)
        both = any(row.top_k > 0 and row.top_p < 1 for row in rows)
        by_kernels = launch.wanted() and kernel_trouble(both) is None
        self._sampler = KernelSampler(rows) if by_kernels else PlainSampler(rows)

    def __call__(self, logits: mx.array, draws: Sequence[int], *, likelihoods: bool = False) -> Draw:
        """Draw from logits [B, V]; `draws` says how many tokens each row has drawn before. Waits for nothing."""
        keys = mx.array(noise_keys(self._seeds, draws))
        return self._sampler(logits, keys, likelihoods=likelihoods)


def slow_sampling() -> tuple[str, ...]:
    """What makes sampling slower here than it could be, a sentence for people each."""
    why = kernel_trouble(both=False) if launch.wanted() else None
    return () if why is None else (f"sampling is slower than it could be: kernels of our own do not run here ({why})",)


@cache
def kernel_trouble(both: bool) -> str | None:
    """Why the kernels do not draw here what plain operations draw; None if they do. `both`: with top_k and top_p at
    once, which takes more of them. It takes the time to compile them, which the first draw would wait for otherwise."""
    rows = [
        SamplingParams(),
        SamplingParams(temperature=0.0),
        SamplingParams(min_p=0.1),
        SamplingParams(temperature=0.6, top_p=0.9, top_k=40 if both else 0),
    ]
    logits = mx.random.normal((len(rows), 5000), key=mx.random.key(1)) * 2
    keys = mx.arange(2 * len(rows), dtype=mx.uint32).reshape(-1, 2)
    try:
        for likelihoods in (False, True):
            plain, ours = (
                sampler(rows)(logits, keys, likelihoods=likelihoods) for sampler in (PlainSampler, KernelSampler)
            )
            if plain.tokens.tolist() != ours.tokens.tolist():
                return "they draw other tokens"
            if not _alike(plain.likelihoods, ours.likelihoods):
                return "they take tokens for more or less likely"
    except Exception as error:  # a compiler, a driver: whatever they say
        return str(error).splitlines()[0][:200]
    return None


def _alike(one: mx.array | None, other: mx.array | None) -> bool:
    return one is other if one is None or other is None else bool(mx.allclose(one, other, atol=1e-3).item())
