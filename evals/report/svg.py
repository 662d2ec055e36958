"""From a matplotlib figure to SVG inside a page.

Colours are placeholders that become CSS variables, and the type is the page's own, so that a picture follows the
page from light to dark, and from screen to paper. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
Colour = Literal["ink", "muted", "rule", "first", "second", "third"]

WIDTH, HEIGHT = 400, 260
"""The size of a plot in points: a page shows two side by side, a phone one."""
INK, MUTED, RULE, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", FIRST: "first", SECOND: "second", THIRD: "third"}
DASHED = (0, (3, 2))
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "markovian-rsa",
    "font.size": 12.0,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.75,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
}
_MARGINS = (42, 72, 44, 24)  # points: left, right (for the names of the lines), bottom, top
_NOT_NEEDED = re.compile(
    r'<metadata>.*?</metadata>|<style type="text/css">.*?</style>|<!--.*?-->|(?<=>)\s+(?=<)'
    r'| transform="rotate\(-0 [^"]*"|font-family: [^;"]*; ?',
    re.DOTALL,
)
_FONT = re.compile(r"font: (?:[a-z]+ )*([\d.]+px) [^;\"]*")
_BREAK = re.compile(r" ?\n")
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]*)')


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and its words: what it shows, and what is to be seen. `legend`: (colour, sign and meaning)."""

    name: str
    title: str
    text: str
    svg: Markup
    legend: tuple[tuple[Colour, str], ...] = ()


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Run a function that draws within this module's style; nothing of it stays behind."""

    @wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import rc_context

        with rc_context(_STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawing


def panels(rows: int = 1, height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with panels one below the other, `height` points in all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    left, right, bottom, top = _MARGINS
    axes = figure.subplots(rows, 1, squeeze=False, sharex=True)
    figure.subplots_adjust(left / WIDTH, bottom / height, 1 - right / WIDTH, 1 - top / height, hspace=0.45)
    return figure, [each for row in axes for each in row]


def inline(figure: Figure, name: str, title: str, text: str) -> Markup:
    """The figure as an SVG element; `name` is unique in the page and prefixes all ids."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    _, _, drawing = file.getvalue().partition("<svg")
    _, _, drawing = drawing.partition(">")
    drawing = _BREAK.sub(" ", _FONT.sub(r"font-size: \1", _NOT_NEEDED.sub("", drawing)))
    used = {target for _, target in _REFERENCE.findall(drawing)}
    drawing = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", drawing)
    drawing = _REFERENCE.sub(lambda match: f"{match[1].removeprefix('xlink:')}{name}-{match[2]}", drawing)
    for placeholder, variable in _VARIABLES.items():
        drawing = drawing.replace(placeholder, f"var(--{variable})")
    width, height = (72 * inches for inches in figure.get_size_inches())
    return Markup(
        f'<svg class="plot" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>'
    ) + Markup(drawing)
