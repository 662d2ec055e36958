"""Which problems of a benchmark are wanted, and what is wrong with a wish that cannot be granted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from evals.data.benchmarks import LimitTakes
from evals.data.shard import Shard
from evals.errors import DataError
from rsa.errors import did_you_mean
from rsa.words import listed

T = TypeVar("T")
Options = dict[str, str | int | float | bool | list[str] | list[int] | None]
"""Options of a choice of problems, as `evals.results.DataInfo` records them."""
SHARD = "shard"
"""The name of the option that says which shard was chosen; the whole has none."""
_HALF = re.compile("[\ud800-\udfff]")
_SHOWN_BITS = 128
"""Numbers of more bits are not spelled out; those of tens of thousands cannot be."""
MAX_NAMED = 5
"""Ids that a message lists."""


def rank(seed: int, key: object) -> bytes:
    """The place of `key` in the random order of a seed: its first k keys are a sample of size k."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Choice:
    """`--limit`, `--ids`, the seed of samples, and the shard of what they leave. `wanted` checks them."""

    limit: int | None
    ids: tuple[str, ...] | None
    seed: int
    shard: Shard | None = None

    @classmethod
    def wanted(cls, limit: int | None, ids: Sequence[str] | None, seed: int, shard: Shard | None = None) -> Choice:
        """Raises DataError if nothing can be left."""
        if not 0 <= seed < 2**64:
            shown = f" {seed}" if seed.bit_length() <= _SHOWN_BITS else ""
            raise DataError(f"`data_seed`{shown} is out of range: should be 0 to 2**64 - 1")
        if limit is not None and limit < 1:
            raise DataError(f"`limit` {limit} leaves no problem: ask for 1 or more")
        if ids is not None and not ids:
            raise DataError("`ids` leaves no problem: name one or more")
        return cls(limit, None if ids is None else tuple(dict.fromkeys(ids)), seed, shard)

    def options(self, takes: LimitTakes) -> Options:
        """For the record; the seed only where it decides anything."""
        sampled = takes == "sample" and self.limit is not None
        return {
            "limit": self.limit,
            "ids": None if self.ids is None else list(self.ids),
            **({"seed": self.seed} if sampled else {}),
            **({SHARD: str(self.shard)} if self.shard is not None else {}),
        }

    def part(self, problems: Sequence[T]) -> Sequence[T]:
        """What of the chosen problems the shard has. Raises DataError if not every shard has a problem."""
        return problems if self.shard is None else self.shard.part(problems)

    def holds(self, place: int) -> bool:
        """Whether the shard has the problem at a place of the chosen ones, counted from 0."""
        return self.shard is None or self.shard.holds(place)

    def select(self, ids: Sequence[str], takes: LimitTakes, place: str) -> list[int]:
        """Positions in `ids`, ascending. Raises DataError for an id that is not there, and if the shard has nothing."""
        chosen = list(range(len(ids)))
        if self.ids is not None:
            refuse_unknown(sorted(set(self.ids) - set(ids)), ids, place)
            wanted = set(self.ids)
            chosen = [position for position in chosen if ids[position] in wanted]
        if takes == "sample":
            chosen.sort(key=lambda position: rank(self.seed, ids[position]))
        return list(self.part(sorted(chosen[: self.limit])))


def check_distinct(ids: Sequence[str], place: str) -> None:
    """Raises DataError if two problems have one id, for an id that no file can hold, or if there are none at all."""
    if not ids:
        raise DataError(f"{place} has no problems")
    seen: set[str] = set()
    for one in ids:
        if _HALF.search(one):
            raise DataError(f"{place}: the id {one!r} has half a character (a lone surrogate) in it: give it another")
        if one in seen:
            raise DataError(f"{place}: two problems have the id {one!r}; ids must differ")
        seen.add(one)


def refuse_unknown(unknown: Sequence[str], known: Sequence[str], place: str, like: Sequence[str] = ()) -> None:
    """Raises DataError if any id is unknown, with the nearest of those `known`, or what ids are `like`."""
    if not unknown:
        return
    near = did_you_mean(unknown[0], known)
    examples = ", ".join(like or known[:2])
    hint = near or (f"; ids are like {examples}" if examples else "")
    raise DataError(f"`ids`: {place} has no problem {listed(unknown, MAX_NAMED)}{hint}")
