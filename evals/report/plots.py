"""The pictures of a report as inline SVG, drawn by matplotlib.

Colours are placeholders that become CSS variables, and the type is the page's own, so that a picture follows the
page from light to dark, and from screen to paper. The same figures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from evals.report.reading import Lengths
from evals.report.svg import (
    DASHED,
    FIRST,
    HEIGHT,
    INK,
    MUTED,
    RULE,
    SECOND,
    THIRD,
    Colour,
    Plot,
    inline,
    panels,
    styled,
)
from evals.report.text import percent, short
from evals.results import RoundStats
from evals.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6
"""Panels of a picture that has one for each round."""
_BINS = 40
_ENDINGS: tuple[tuple[Colour, str], ...] = (
    ("first", "■ ended by itself"),
    ("second", "■ closed for it at β"),
    ("third", "■ cut off: a budget, a limit or repetition"),
)
PointKind = Literal["given up", "no rounds", "rounds", "chosen"]
_POINTS: dict[PointKind, tuple[str, str, int, str]] = {
    "given up": (THIRD, "o", 4, "none"),
    "no rounds": (FIRST, "o", 5, ""),
    "rounds": (SECOND, "s", 5, ""),
    "chosen": (INK, "D", 8, ""),
}
"""How settings that were tried are drawn: colour, marker, size, and what it is filled with, if not with its colour."""
_POINT_LEGEND: dict[PointKind, tuple[Colour, str]] = {
    "chosen": ("ink", "◆ chosen"),
    "no rounds": ("first", "● without rounds"),
    "rounds": ("second", "■ with rounds"),
    "given up": ("third", "○ given up, on fewer problems"),
}
_NOTHING = Estimate(value=None, problems=0, clusters=0)


@dataclass(frozen=True, slots=True)
class _Series:
    label: str
    colour: str
    marker: str
    line: Any
    values: Sequence[Estimate]


@dataclass(frozen=True, slots=True)
class Point:
    """Settings that were tried."""

    tokens: float
    worth: Estimate
    kind: PointKind


def _series(rounds: Sequence[RoundStats]) -> list[_Series]:
    """Mean, vote and best of k by round, k the largest that all rounds have; a series without a value is left out."""
    most = max(set.intersection(*(set(each.best_of) for each in rounds)), default=1)
    series = [
        _Series("mean", FIRST, "o", "-", [each.mean for each in rounds]),
        _Series("vote", INK, "s", "-", [each.vote for each in rounds]),
        _Series(f"best of {most}", THIRD, "^", DASHED, [each.best_of.get(most, _NOTHING) for each in rounds]),
    ]
    return [
        each for each in series if each.label != "best of 1" and any(value.value is not None for value in each.values)
    ]


@styled
def accuracy_by_round(rounds: Sequence[RoundStats]) -> Plot:
    """Mean, vote and best of N by round, with their intervals."""
    series = _series(rounds)
    figure, (axes,) = panels()
    shift = 0.035 * max(1, len(rounds) - 1)
    for place, each in enumerate(series):
        x = [played.round + (place - 1) * shift for played in rounds]
        _line(axes, x, each)
    _label_ends(axes, [(each.label, each.values[-1].value, each.colour) for each in series])
    axes.set_xticks([played.round for played in rounds], [str(played.round) for played in rounds])
    axes.set_xlim(rounds[0].round - 0.3 - shift, rounds[-1].round + 0.3 + shift)
    axes.set_xlabel("round")
    percent_axis(axes, "score")
    text = "; ".join(f"{each.label} {_course(each.values)}" for each in series)
    return titled(
        figure, "accuracy", "Score by round", f"{text[0].upper()}{text[1:]}. Upright lines are 95% intervals."
    )


@styled
def accuracy_by_tokens(rounds: Sequence[RoundStats]) -> Plot:
    """The same against what it costs: tokens generated per problem until the end of the round."""
    figure, (axes,) = panels()
    x = [played.tokens for played in rounds]
    series = _series(rounds)
    for each in series:
        _line(axes, x, each, intervals=False)
    for played in rounds:
        if played.mean.value is not None:
            axes.annotate(
                f"round {played.round}" if played is rounds[0] else str(played.round),
                (played.tokens, played.mean.value),
                xytext=(0, -15), textcoords="offset points", ha="center", color=MUTED, fontsize=11,
            )  # fmt: skip
    _label_ends(axes, [(each.label, each.values[-1].value, each.colour) for each in series])
    axes.set_xlim(0, max(x) * 1.04 or 1)
    _token_ticks(axes)
    axes.set_xlabel("tokens generated per problem")
    percent_axis(axes, "score")
    cost = f"{short(x[0])} tokens after round {rounds[0].round}, {short(x[-1])} after round {rounds[-1].round}"
    return titled(figure, "tokens", "Score against tokens", f"Per problem: {cost}.")


@styled
def accuracy_by_cost(points: Sequence[Point], front: Sequence[tuple[float, Estimate]]) -> Plot:
    """Settings that were tried, each by what it is worth and what it costs; a line joins those of `front`."""
    figure, (axes,) = panels()
    line = [(tokens, each.value) for tokens, each in front if each.value is not None]
    axes.plot([tokens for tokens, _ in line], [value for _, value in line], color=RULE, linewidth=1.75, zorder=1)
    for kind, (colour, marker, size, face) in _POINTS.items():
        there = [(each.tokens, each.worth) for each in points if each.kind == kind and each.worth.value is not None]
        axes.plot(
            [tokens for tokens, _ in there], [worth.value or 0.0 for _, worth in there], marker, color=colour,
            markerfacecolor=face or colour, markersize=size, zorder=3 if kind == "chosen" else 2,
        )  # fmt: skip
        for tokens, worth in there if kind == "chosen" else ():
            if worth.low is not None and worth.high is not None:
                axes.plot([tokens, tokens], [worth.low, worth.high], color=colour, linewidth=1.25, zorder=3)
    axes.set_xscale("log")
    _cost_ticks(axes, [each.tokens for each in points])
    axes.set_xlabel("tokens generated per problem")
    percent_axis(axes, "score")
    text = f"{len(points)} settings. The line joins those that no cheaper ones beat; the upright one is a 95% interval."
    drawn = {each.kind for each in points}
    legend = tuple(meaning for kind, meaning in _POINT_LEGEND.items() if kind in drawn)
    return titled(figure, "cost", "Score against tokens", text, legend)


@styled
def best_of_k(played: RoundStats) -> Plot:
    """Expected best of k candidates of one round: what a perfect selection could make of them."""
    ks = sorted(played.best_of)
    figure, (axes,) = panels()
    series = _Series("best of k", THIRD, "^", DASHED, [played.best_of[k] for k in ks])
    _line(axes, [float(k) for k in ks], series)
    if played.vote.value is not None:
        axes.axhline(played.vote.value, color=INK, linewidth=1.5)
    ends = [("best of k", played.best_of[ks[-1]].value, THIRD), ("vote", played.vote.value, INK)]
    _label_ends(axes, ends)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_xlim(ks[0] * 0.9, ks[-1] * 1.1)
    axes.set_xlabel("k candidates")
    percent_axis(axes, "score")
    text = "Expected: " + ", ".join(f"{percent(played.best_of[k].value)} of {k}" for k in ks)
    return titled(figure, "best-of", "Best of k candidates", f"{text}. Upright lines are 95% intervals.")


@styled
def changes(rounds: Sequence[RoundStats]) -> Plot:
    """Votes that became right and that became wrong, from each round to the next."""
    later = rounds[1:]
    figure, (axes,) = panels(height=210)
    x = [played.round for played in later]
    for sign, colour, counts in (
        (1, FIRST, [played.became_right for played in later]),
        (-1, SECOND, [played.became_wrong for played in later]),
    ):
        axes.bar(x, [sign * number for number in counts], width=min(0.5, 0.2 * (len(x) + 0.6)), color=colour)
        for place, number in zip(x, counts, strict=True):
            axes.annotate(
                f"{'✓' if sign > 0 else '✗'} {number}", (place, sign * number),
                xytext=(0, 4 * sign), textcoords="offset points",
                ha="center", va="bottom" if sign > 0 else "top", color=colour,
            )  # fmt: skip
    up = max(played.became_right for played in later)
    down = max(played.became_wrong for played in later)
    room = 0.25 * max(up, down)  # for the numbers
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.set_ylim(-down - room, up + room)
    axes.spines.bottom.set_visible(False)
    axes.tick_params(bottom=False)
    axes.set_yticks([])
    axes.set_xticks(x, [f"{number - 1} → {number}" for number in x])
    axes.set_xlim(x[0] - 0.8, x[-1] + 0.8)
    axes.set_xlabel("votes that became right ✓ and wrong ✗, from round to round")
    text = "; ".join(
        f"to round {played.round}: {played.became_right} became right, {played.became_wrong} became wrong"
        for played in later
    )
    return titled(figure, "changes", "Where the vote changed", f"{text[0].upper()}{text[1:]}.")


@styled
def reasoning_lengths(lengths: Mapping[int, Lengths], beta: int) -> Plot:
    """How long candidates reason in each round, and how that ended, against the budget beta."""
    numbers = _drawn_rounds(sorted(lengths))
    longest = max(max(each, default=0) for played in lengths.values() for each in _parts(played))
    # A budget far beyond every trace would press them all into the first bin.
    upper = beta if longest > 0.4 * beta else max(1.25 * longest, 1.0)
    figure, rows = panels(len(numbers), height=max(HEIGHT, 66 * len(numbers) + 66))
    edges = [upper * step / _BINS for step in range(_BINS + 1)]
    for axes, number in zip(rows, numbers, strict=True):
        floor = [0] * _BINS
        for part, colour in zip(_parts(lengths[number]), (FIRST, SECOND, THIRD), strict=True):
            top = [below + more for below, more in zip(floor, _binned(part, upper), strict=True)]
            axes.stairs(top, edges, baseline=floor, fill=True, color=colour)
            floor = top
        axes.set_ylim(0, 1.05 * max(*floor, 1))
        axes.set_yticks([])
        axes.set_xlim(0, upper * 1.03)
        axes.text(0, 1.04, f"round {number}", transform=axes.transAxes, color=MUTED, fontsize=11)
        if upper == beta:
            axes.axvline(beta, color=INK, linewidth=1, linestyle=DASHED)
        if axes is not rows[-1]:
            axes.tick_params(labelbottom=False)
    mark = f"β = {beta:,}" if upper == beta else f"β = {beta:,} →"
    rows[0].text(1.0, 1.04, mark, transform=rows[0].transAxes, ha="right", color=INK, fontsize=11)
    _token_ticks(rows[-1])
    rows[-1].set_xlabel("reasoning tokens of a candidate")
    return titled(figure, "lengths", "Reasoning lengths", _length_words(lengths, numbers), _ENDINGS)


def _parts(lengths: Lengths) -> tuple[Sequence[int], ...]:
    return lengths.itself, lengths.forced, lengths.cut


def _binned(values: Sequence[int], upper: float) -> list[int]:
    """How many values there are in each of _BINS equal steps from 0 to `upper`, which belongs to the last."""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(_BINS * value / upper))] += 1
    return counts


def _length_words(lengths: Mapping[int, Lengths], numbers: Sequence[int]) -> str:
    sentences = []
    for number in numbers:
        itself, forced, cut = (len(part) for part in _parts(lengths[number]))
        sentences.append(f"Round {number}: {itself:,} ended by themselves, {forced:,} closed at β, {cut:,} cut off.")
    left_out = len(lengths) - len(numbers)
    return " ".join(sentences) + (f" {left_out} rounds in between are not drawn." if left_out else "")


def _drawn_rounds(numbers: Sequence[int]) -> Sequence[int]:
    """At most MAX_PANELS of them: the first, and the last ones."""
    return numbers if len(numbers) <= MAX_PANELS else [numbers[0], *numbers[1 - MAX_PANELS :]]


# ---- what they share


def titled(figure: Figure, name: str, title: str, text: str, legend: tuple[tuple[Colour, str], ...] = ()) -> Plot:
    """A figure with its words; `name` is unique in the page."""
    return Plot(name, title, text, inline(figure, name, title, text), legend)


def _line(axes: Axes, x: Sequence[float], series: _Series, *, intervals: bool = True) -> None:
    """Points where there are values, joined, with their intervals."""
    known = [(place, each) for place, each in zip(x, series.values, strict=True) if each.value is not None]
    style: dict[str, Any] = {"color": series.colour, "marker": series.marker, "markersize": 5}
    axes.plot(
        [place for place, _ in known], [each.value or 0.0 for _, each in known],
        linestyle=series.line, linewidth=1.75, **style,
    )  # fmt: skip
    for place, each in known if intervals else ():
        if each.low is not None and each.high is not None:
            axes.plot([place, place], [each.low, each.high], color=series.colour, linewidth=1.25, alpha=0.55)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float | None, str]]) -> None:
    """Name lines where they end, to the right of the plot, the names kept a line apart."""
    gap, below = 0.075, -1.0
    for label, value, colour in sorted(
        ((label, value, colour) for label, value, colour in ends if value is not None), key=lambda end: end[1]
    ):
        below = max(value, below + gap)
        axes.annotate(
            label, (1.0, below), xycoords=axes.get_yaxis_transform(), xytext=(6, 0), textcoords="offset points",
            va="center", color=colour, annotation_clip=False,
        )  # fmt: skip


def percent_axis(axes: Axes, label: str) -> None:
    """0 to 100%, always: a difference looks as large as it is."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"])
    axes.text(0, 1.04, label, transform=axes.transAxes, color=MUTED)


def _token_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _cost_ticks(axes: Axes, tokens: Sequence[float]) -> None:
    """A few round numbers on a logarithmic axis, and room on both sides."""
    known = [each for each in tokens if each > 0] or [1.0]
    low, high = min(known) / 1.25, max(known) * 1.25
    steps = [factor * 10**power for power in range(10) for factor in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(inside, [short(step) for step in inside])
    axes.minorticks_off()


def _course(values: Sequence[Estimate]) -> str:
    """`31.2% → 56.3% → 75.0%`; of many rounds the first and the last."""
    told = [percent(each.value) for each in values]
    return " → ".join(told if len(told) <= MAX_PANELS else [told[0], "…", told[-1]])
