"""The pictures of a report's calibration: how often what is surer is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evals.calibration import Bin
from evals.report.plots import percent_axis, titled
from evals.report.svg import DASHED, FIRST, MUTED, THIRD, Colour, Plot, panels, styled
from evals.report.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROUND_STYLES: tuple[tuple[Colour, str, str, Any], ...] = (("first", FIRST, "o", "-"), ("third", THIRD, "^", DASHED))
"""The final round, and round 0."""
_INTERVALS = "Upright lines are 95% intervals."


@styled
def right_by_share(rounds: Mapping[str, Sequence[Bin]]) -> Plot:
    """How often the leading answer is right, against the share of the candidates that agree on it; rounds by name."""
    figure, (axes,) = panels()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHED)
    for style, bins in zip(_ROUND_STYLES, rounds.values(), strict=False):
        _bins(axes, [each.sure for each in bins], bins, style)
    axes.set_xlim(0, 1.03)
    axes.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20", "40", "60", "80", "100%"])
    axes.set_xlabel("candidates that agree on the leading answer")
    percent_axis(axes, "leading answer is right")
    told = (
        ", ".join(f"{percent(each.worth)} right where {percent(each.sure)} agree" for each in _ends(bins))
        + f", in {name}"
        for name, bins in rounds.items()
    )
    text = f"{'; '.join(told)}. On the dashed line the share is the chance of being right. {_INTERVALS}"
    return titled(figure, "shares", "Right by agreement", text, _round_legend(rounds))


@styled
def right_by_quarter(rounds: Mapping[str, Sequence[Bin]]) -> Plot:
    """How often candidates are right, by how sure the model was of them among those of their own problem."""
    figure, (axes,) = panels()
    for place, (style, bins) in enumerate(zip(_ROUND_STYLES, rounds.values(), strict=False)):
        _bins(axes, [each.sure + 0.012 * place for each in bins], bins, style)
    axes.set_xlim(0, 1)
    axes.set_xticks([0.125, 0.375, 0.625, 0.875], ["least sure", "", "", "surest"])
    axes.set_xlabel("quarters of the answers to the same problem")
    percent_axis(axes, "answer is right")
    text = f"From the least sure quarter to the surest: {_risings(rounds)}. {_INTERVALS}"
    return titled(figure, "quarters", "Right by confidence, on one problem", text, _round_legend(rounds))


@styled
def right_by_tenth(rounds: Mapping[str, Sequence[Bin]]) -> Plot:
    """How often candidates are right, by how sure the model was of them among those of all problems."""
    figure, (axes,) = panels()
    for place, (style, bins) in enumerate(zip(_ROUND_STYLES, rounds.values(), strict=False)):
        _bins(axes, [(number + 0.5) / len(bins) + 0.012 * place for number in range(len(bins))], bins, style)
    axes.set_xlim(0, 1)
    axes.set_xticks([0.05, 0.5, 0.95], ["least sure", "", "surest"])
    axes.set_xlabel("tenths of the answers to all problems")
    percent_axis(axes, "answer is right")
    text = f"From the least sure tenth to the surest: {_risings(rounds)}. {_INTERVALS}"
    return titled(figure, "tenths", "Right by confidence, over all problems", text, _round_legend(rounds))


def _bins(axes: Axes, x: Sequence[float], bins: Sequence[Bin], style: tuple[Colour, str, str, Any]) -> None:
    """Bins as points with their intervals, joined."""
    _, colour, marker, line = style
    axes.plot(
        x, [each.worth for each in bins], color=colour, marker=marker, markersize=5, linestyle=line, linewidth=1.75
    )
    for place, each in zip(x, bins, strict=True):
        axes.plot([place, place], [each.least, each.most], color=colour, linewidth=1.25, alpha=0.55)


def _round_legend(rounds: Mapping[str, Sequence[Bin]]) -> tuple[tuple[Colour, str], ...]:
    signs = {"o": "●", "^": "▲"}
    return tuple((style[0], f"{signs[style[2]]} {name}") for style, name in zip(_ROUND_STYLES, rounds, strict=False))


def _risings(rounds: Mapping[str, Sequence[Bin]]) -> str:
    """`right 31.2% to 75.0% in the final round`, for each round."""
    return ", ".join(
        f"{' to '.join(percent(each.worth) for each in _ends(bins))} right in {name}" for name, bins in rounds.items()
    )


def _ends(bins: Sequence[Bin]) -> Sequence[Bin]:
    """The first and the last; one, if there is one."""
    return bins if len(bins) == 1 else (bins[0], bins[-1])
