"""Numbers in sentences, and sentences cut short."""

from __future__ import annotations


def plural(number: int, one: str, many: str = "") -> str:
    """`3 problems`, `1 problem`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def shortened(line: str, most: int) -> str:
    """At most so many characters; an ellipsis stands for what is missing."""
    return line if len(line) <= most else f"{line[: most - 1]}…"
