"""What follows from measured speeds and from memory: how long a profile takes, and what fits. Arithmetic only.

A step of B rows, each with L tokens, is taken to last `base + B row + B L token` seconds: weights and launches, what
each row computes, and its caches. A prompt of P tokens is taken to last `P token + P P square`. The parts are those
that come nearest to what was measured, none of them negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np

from engine.api import Memory
from rsa.command.speeds import Reading, Writing
from rsa.settings.config import RSAConfig

PROBLEM_TOKENS = 512
"""Tokens that a problem and the words around it are taken to have."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of a step and of a prompt: see above."""

    base_s: float
    row_s: float
    token_s: float
    prompt_token_s: float
    prompt_square_s: float

    @classmethod
    def fit(cls, writings: Sequence[Writing], readings: Sequence[Reading]) -> Self:
        """From at least one measurement of each kind. With rows or contexts of one number only, what would tell how
        time grows with it is taken to be nothing."""
        steps = [(1.0, w.rows, w.rows * w.context_tokens) for w in writings]
        prompts = [(r.prompt_tokens, r.prompt_tokens**2) for r in readings]
        return cls(
            *_nearest(steps, [writing.step_s for writing in writings]),
            *_nearest(prompts, [reading.seconds for reading in readings]),
        )

    def reading_s(self, tokens: int) -> float:
        """Seconds for a prompt of so many tokens."""
        return tokens * self.prompt_token_s + tokens**2 * self.prompt_square_s

    def writing_s(self, rows: int, prompt: int, tokens: int) -> float:
        """Seconds in which so many rows write so many tokens each, at once, after prompts of one length."""
        lengths = tokens * prompt + tokens * (tokens - 1) / 2  # summed over the steps
        return tokens * (self.base_s + rows * self.row_s) + rows * self.token_s * lengths


@dataclass(frozen=True, slots=True)
class Room:
    """What a machine holds.

    context_tokens  that a completion may have with its prompt; None: not known.
    max_rows        that decode together; None: not known.
    """

    memory: Memory
    context_tokens: int | None
    max_rows: int | None

    def holds(self, rows: int, tokens: int) -> bool:
        """Whether there is room for so many rows of so many tokens each, at once."""
        return self.memory.cache_bytes(rows, tokens) <= self.memory.room_bytes

    def rows(self, at_most: int, tokens: int) -> int:
        """How many of so many rows of so many tokens each decode at once; 0: not even one."""
        return _most(lambda rows: self.holds(rows, tokens), min(at_most, self.max_rows or at_most))

    def beta(self, rows: int, prompt: int) -> int:
        """The largest beta with which so many candidates fit at once, each with such a prompt and its whole reasoning;
        0: none."""
        if self.max_rows is not None and rows > self.max_rows:
            return 0
        longest = self.context_tokens or _most_that_fit(lambda tokens: self.holds(rows, tokens))
        return _most(lambda beta: self.holds(rows, prompt + beta), max(longest - prompt, 0))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a run. Either `seconds`, with `rows` candidates at once where they are fewest, or why it does not run."""

    seconds: float | None = None
    rows: int = 0
    obstacle: str = ""


def last_prompt(config: RSAConfig) -> int:
    """Tokens of the longest prompt of a run."""
    return PROBLEM_TOKENS + config.most_tails * min(config.tail_tokens, config.beta)


def estimate(config: RSAConfig, speed: Speed, room: Room) -> Estimate:
    """How long a run takes if every candidate uses its whole beta; answers are not counted.

    A round reads its prompts one after the other, round 0 only one; then its candidates write, as many at once as there
    is room for when they are done.
    """
    longest = last_prompt(config) + config.beta
    if room.context_tokens is not None and longest > room.context_tokens:
        return Estimate(obstacle=f"needs {longest:,} tokens of context, the model has {room.context_tokens:,}")
    seconds, fewest = 0.0, config.n
    for number in range(config.t + 1):
        prompt = last_prompt(config) if number else PROBLEM_TOKENS
        rows = room.rows(config.n, prompt + config.beta)
        if not rows:
            return Estimate(obstacle=f"the caches of one candidate of {longest:,} tokens do not fit into memory")
        whole, rest = divmod(config.n, rows)
        seconds += (config.n if number else 1) * speed.reading_s(prompt)
        seconds += whole * speed.writing_s(rows, prompt, config.beta)
        seconds += speed.writing_s(rest, prompt, config.beta) if rest else 0.0
        fewest = min(fewest, rows)
    return Estimate(seconds, fewest)


def _most(fits: Callable[[int], bool], at_most: int) -> int:
    """The largest number from 1 to `at_most` that fits, where all smaller ones do too; 0: none."""
    least, most = 0, at_most
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def _most_that_fit(fits: Callable[[int], bool]) -> int:
    """As `_most`, up to 2^31."""
    bound = 1
    while bound < 2**31 and fits(bound):
        bound *= 2
    return _most(fits, bound)


def _nearest(rows: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[float, ...]:
    """The numbers x, none negative, for which `rows @ x` is nearest to `values`, all positive, by relative error.

    There are few of them, so all subsets that are not zero are tried, and of equally good ones the first counts.
    """
    matrix = np.asarray(rows, dtype=float) / np.asarray(values, dtype=float)[:, None]
    width = matrix.shape[1]
    best, nearest = np.zeros(width), float(len(values))
    for size in range(1, width + 1):
        for some in combinations(range(width), size):
            chosen = matrix[:, some]
            scale = np.abs(chosen).max(axis=0)
            found, _, rank, _ = np.linalg.lstsq(chosen / scale, np.ones(len(values)), rcond=None)
            error = float(np.sum((chosen / scale @ found - 1) ** 2))
            if rank == size and (found >= 0).all() and error < nearest - 1e-12:
                best = np.zeros(width)
                best[list(some)] = found / scale
                nearest = error
    return tuple(float(number) for number in best)
