"""Token counts as people write them: `4096`, `4k`, `40K`, `1.5k`, `2M`. k is 1024 and M is 1024 * 1024."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_ACCEPTED = "write a whole number of tokens, such as 4096, 4k or 40K (k = 1024, M = 1024k, 1.5k = 1536)"
_PATTERN = re.compile(r"([0-9][0-9_]*)(\.[0-9]+)?([kKmM]?)", re.ASCII)
_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}
_LONGEST = 18  # characters; a longer number is a mistake, not a budget


def parse_size(value: object) -> int:
    """Read a token count from an int or from text with an optional unit.

    Raises ValueError, saying what is accepted, for anything else: also for a fraction of a token.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _PATTERN.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{value!r} is no size: {_ACCEPTED}")
    whole, fraction, unit = match.groups()
    scaled = int(whole) * _UNITS[unit.lower()]
    if fraction is None:
        return scaled
    extra, remainder = divmod(int(fraction[1:]) * _UNITS[unit.lower()], int(10 ** (len(fraction) - 1)))
    if remainder:
        raise ValueError(f"{value!r} is not a whole number of tokens: {_ACCEPTED}")
    return scaled + extra


MOST_TOKENS = 10**15
"""The largest limit on tokens together, more than anybody will generate."""
Tokens = Annotated[int, BeforeValidator(parse_size)]
"""An int field that also reads sizes such as `4k`."""
