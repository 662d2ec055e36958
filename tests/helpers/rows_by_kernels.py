"""Rows that decode by kernels together, each held against itself alone on the plain path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from engine.mlx.comparing import relative_rms
from engine.mlx.kernels.attention import PAGE

VOCAB = 96
"""Words of the models."""
_MOST_OFF = 0.03
"""How far logits in bfloat16 may be apart, root mean square over that of the logits."""


class Rows:
    """Of the same model twice: `paged` decodes by kernels, `plain` does not."""

    def __init__(self, paged: Any, plain: Any) -> None:
        self.paged, self.plain = paged, plain
        self.together: Any = None
        self.alone: list[Any] = []

    def join(self, prompt: Sequence[int], copies: int = 1) -> None:
        """Rows of one prompt."""
        caches = prefilled(self.plain, [prompt])
        self._extend(self.paged.batch_cache(caches, [0] * copies))
        self.alone += [self.plain.copy_cache(caches) for _ in range(copies)]

    def join_padded(self, prompts: Sequence[Sequence[int]], places: Sequence[int]) -> None:
        """Rows of prompts that shared a pass."""
        self._extend(self.paged.batch_cache(prefilled(self.plain, prompts), places))
        self.alone += [prefilled(self.plain, [prompts[place]]) for place in places]

    def keep(self, places: Sequence[int]) -> None:
        """Let the others go."""
        self.together.filter(places)
        self.alone = [self.alone[place] for place in places]

    def step(self, first: int) -> None:
        """Feed a token to each row; both ways must give the same logits, up to rounding."""
        fed = [(first + 5 * i) % VOCAB for i in range(len(self.alone))]
        found = self.paged(mx.array(fed)[:, None], [self.together])[:, 0]
        mx.eval(found, self.together.state)
        for i, (token, caches) in enumerate(zip(fed, self.alone, strict=True)):
            off = relative_rms(found[i], self.plain(mx.array([[token]]), caches)[0, 0])
            assert off < _MOST_OFF, f"row {i} is off by {off:.1%}"

    def come_and_go(self, data: st.DataObject) -> None:
        """Steps among which rows of any length join, leave and change places, as hypothesis draws them."""
        self.join(tokens(5))
        for step in range(data.draw(st.integers(1, 5), "steps")):
            if len(self.alone) < 6:
                count = data.draw(st.sampled_from([1, 2, 60, PAGE - 2, PAGE, 2 * PAGE - 1]), "prompt")
                self.join(tokens(count, step), copies=data.draw(st.integers(1, 2), "copies"))
            order = data.draw(st.permutations(range(len(self.alone))), "order")
            self.keep(order[: data.draw(st.integers(1, len(order)), "kept")])
            self.step(step)

    def _extend(self, more: Sequence[Any]) -> None:
        (rows,) = more
        if self.together is None:
            self.together = rows
        else:
            self.together.extend(rows)


def tokens(count: int, seed: int = 0) -> list[int]:
    """So many, as the seed says."""
    drawn: list[int] = np.random.default_rng(seed).integers(0, VOCAB, count).tolist()
    return drawn


def prefilled(model: Any, prompts: Sequence[Sequence[int]]) -> Sequence[Any]:
    """Caches of some prompts, computed in one pass."""
    lengths = [len(prompt) for prompt in prompts]
    padding = [max(lengths) - length for length in lengths]
    caches: Sequence[Any] = model.make_cache(len(prompts))
    for cache in caches if len(prompts) > 1 else ():
        cache.prepare(lengths=lengths, right_padding=padding)
    ids = [[*prompt, *[0] * pad] for prompt, pad in zip(prompts, padding, strict=True)]
    mx.eval(model(mx.array(ids), caches)[0, -1], [cache.state for cache in caches])
    for cache in caches if len(prompts) > 1 else ():
        cache.finalize()
    return caches
