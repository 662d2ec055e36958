"""All randomness of a run, derived from its seed: no generator is shared and none is global."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Literal

Purpose = Literal["subset", "sample"]
_LEAST = 2.0**-53
"""The least number above 0 that `random()` returns."""


def derive(run_seed: int, problem_id: str, round_number: int, index: int, purpose: Purpose) -> int:
    """A 64-bit seed for one use; the same on every machine and Python version."""
    name = json.dumps([run_seed, problem_id, round_number, index, purpose], ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def draw(population: Sequence[int], size: int, seed: int) -> tuple[int, ...]:
    """`size` different members of `population`, uniformly, in random order; all of them if there are fewer.

    A Fisher-Yates shuffle on `random()`, the only method of random.Random whose sequence Python promises to
    keep from version to version.
    """
    rng = random.Random(seed)
    pool = list(population)
    size = min(size, len(pool))
    for position in range(size):
        other = position + int(rng.random() * (len(pool) - position))
        pool[position], pool[other] = pool[other], pool[position]
    return tuple(pool[:size])


def weighted_draw(population: Sequence[int], logits: Sequence[float], size: int, seed: int) -> tuple[int, ...]:
    """`size` different members of `population` one after the other, each with the probability that the softmax of the
    logits gives it among those that are left; all of them if there are fewer.

    Gumbel noise on each logit, largest first, is that draw. Each member's noise depends on its place alone.
    """
    rng = random.Random(seed)
    keys = [logit - math.log(-math.log(1.0 - (rng.random() or _LEAST))) for logit in logits]
    order = sorted(range(len(population)), key=lambda place: -keys[place])
    return tuple(population[place] for place in order[:size])
