"""Numbers and lists in sentences, and sentences cut short."""

from __future__ import annotations

from collections.abc import Sequence


def plural(number: int, one: str, many: str = "") -> str:
    """`3 problems`, `1 problem`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def shortened(line: str, most: int) -> str:
    """At most so many characters; an ellipsis stands for what is missing."""
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shown(value: object, most: int = 60) -> str:
    """Whatever somebody gave, in one line of a message: at most so many characters of its `repr`."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists inside each other without end
        text = f"<{type(value).__name__} too large to be shown>"
    return shortened(" ".join(text.split()), most)


def in_one_line(text: str) -> str:
    """A text whose characters that cannot be printed, line breaks among them, are shown as `�`."""
    return "".join(char if char.isprintable() else "�" for char in text)


def as_given(value: object) -> str:
    """What somebody gave, in one line of a message: a text as they wrote it, anything else as `shown`."""
    return in_one_line(value) if isinstance(value, str) else shown(value)


def listed(items: Sequence[str], most: int, between: str = ", ") -> str:
    """The first of some items, `most` of them, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return between.join(items[:most]) + more
