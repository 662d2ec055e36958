"""Which problems of a benchmark are wanted, and what is wrong with a wish that cannot be granted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from evals.data.benchmarks import LimitTakes
from evals.errors import DataError
from rsa.errors import did_you_mean
from rsa.words import listed

Options = dict[str, str | int | float | bool | list[str] | list[int] | None]
"""Options of a choice of problems, as `evals.results.DataInfo` records them."""
_HALF = re.compile("[\ud800-\udfff]")
MAX_NAMED = 5
"""Ids that a message lists."""


def rank(seed: int, key: object) -> bytes:
    """The place of `key` in the random order of a seed: its first k keys are a sample of size k."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Choice:
    """`--limit`, `--ids` and the seed of samples. `wanted` checks them."""

    limit: int | None
    ids: tuple[str, ...] | None
    seed: int

    @classmethod
    def wanted(cls, limit: int | None, ids: Sequence[str] | None, seed: int) -> Choice:
        """Raises DataError if nothing can be left."""
        if limit is not None and limit < 1:
            raise DataError(f"`limit` {limit} leaves no problem: ask for 1 or more")
        if ids is not None and not ids:
            raise DataError("`ids` leaves no problem: name one or more")
        return cls(limit, None if ids is None else tuple(dict.fromkeys(ids)), seed)

    def options(self, takes: LimitTakes) -> Options:
        """For the record; the seed only where it decides anything."""
        sampled = takes == "sample" and self.limit is not None
        return {
            "limit": self.limit,
            "ids": None if self.ids is None else list(self.ids),
            **({"seed": self.seed} if sampled else {}),
        }

    def select(self, ids: Sequence[str], takes: LimitTakes, place: str) -> list[int]:
        """Positions in `ids`, ascending. Raises DataError for an id that is not there."""
        chosen = list(range(len(ids)))
        if self.ids is not None:
            refuse_unknown(sorted(set(self.ids) - set(ids)), ids, place)
            wanted = set(self.ids)
            chosen = [position for position in chosen if ids[position] in wanted]
        if takes == "sample":
            chosen.sort(key=lambda position: rank(self.seed, ids[position]))
        return sorted(chosen[: self.limit])


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
