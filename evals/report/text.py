"""Words and figures of a report, and the template environment that keeps hostile text harmless.

What a model writes is data: it is escaped by the templates and made visible by `visible`, so that it can neither
become markup nor reorder, hide or overprint what stands around it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.stats import Estimate
from rsa.words import plural, shortened

NONE = "–"
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, without tab and line feed
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # directions, zero widths, annotations
    "\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"  # no characters, halves of pairs, tags
)


def visible(text: str) -> str:
    """The text with every character shown that a browser would obey, hide or refuse instead of drawing it.

    Control characters become their Unicode pictures (␀, ␛), the others their number (⟨U+202E⟩).
    """
    return _UNSEEN.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


@dataclass(frozen=True, slots=True)
class Clip:
    """A text as shown; `before` and `after` count the characters that are not."""

    text: str
    before: int = 0
    after: int = 0


def first_of(text: str, limit: int) -> Clip:
    """The first `limit` characters."""
    return Clip(text[:limit], after=max(0, len(text) - limit))


def last_of(text: str, limit: int) -> Clip:
    """The last `limit` characters: of a reasoning trace, those that the next round reads."""
    return Clip(text[max(0, len(text) - limit) :], before=max(0, len(text) - limit))


def in_a_line(text: str, limit: int = 120) -> str:
    """A text on one line, shortened."""
    return shortened(" ".join(text.split()), limit)


def percent(value: float | None) -> str:
    """0.625 as 62.5%; a dash for no value."""
    return NONE if value is None else f"{_signed_zero(100 * value):.1f}%".replace("-", "−")


def points(value: float) -> str:
    """A difference of two scores, signed: +12.5 percentage points as +12.5."""
    return f"{_signed_zero(100 * value):+.1f}".replace("-", "−")


def _signed_zero(value: float) -> float:
    return value if abs(value) >= 0.05 else 0.0


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float) -> str:
    """A number of tokens in a word: 940, 12.3k, 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.1f}".removesuffix(".0") + unit if scaled < 99.95 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.84 s, 42 s, 3 min 20 s, 1 h 12 min. A number and its unit do not part."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.2g}\xa0s" if seconds < 1 else f"{seconds:.1f}\xa0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}\xa0s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}\xa0h {minutes_left}\xa0min" if hours else f"{minutes}\xa0min {rest}\xa0s"


def moment(iso: str) -> str:
    """A date and time as people write it; what is none stays as it is."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = f" {at.tzname()}" if at.tzinfo else ""
    return f"{at.day} {at:%B %Y, %H:%M}{zone}"


def interval(estimate: Estimate) -> str:
    """`41.2 to 83.8%`; empty without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{percent(estimate.low).removesuffix('%')} to {percent(estimate.high)}"


@cache
def environment() -> Environment:
    """Templates of this package: all values are escaped and made visible, and a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tools = (percent, points, count, short, duration, plural, interval, in_a_line)
    environment.filters.update({tool.__name__: tool for tool in tools})
    return environment


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
