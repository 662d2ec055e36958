"""Who read whom, and how an answer spread: the rounds of one solved problem as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals.report.svg import FIRST, MUTED, RULE, SECOND, THIRD, WIDTH, Colour, Plot, inline, panels, styled
from rsa.results import Round

MOST_CANDIDATES, MOST_ROUNDS = 48, 12
"""Candidates and rounds of a picture in which single candidates can still be told apart."""
_AGREES, _DIFFERS, _SILENT = ("o", FIRST), ("D", SECOND), ("o", THIRD)


def drawable(rounds: Sequence[Round]) -> bool:
    """Whether the rounds make a picture: more than one, and not too many candidates."""
    return 1 < len(rounds) <= MOST_ROUNDS and all(len(each.candidates) <= MOST_CANDIDATES for each in rounds)


@styled
def lineage(rounds: Sequence[Round], agreeing: Mapping[int, set[int]]) -> Plot:
    """Candidates as points, a column a round; a line joins each with those whose tails it read.

    agreeing  by place in `rounds`: candidates that gave the run's answer.
    """
    most = max(len(each.candidates) for each in rounds)
    figure, (axes,) = panels(height=max(150, 16 * most + 70))
    figure.subplots_adjust(left=0.07, right=1 - 30 / WIDTH)
    last = len(rounds) - 1
    answered = {place: agreeing.get(place, set()) for place in range(len(rounds))}
    for place, played in enumerate(rounds[1:], 1):
        for candidate in played.candidates:
            mine = candidate.index in answered[place]
            for parent in candidate.parents:
                # What led to the answer stands out from what did not.
                right = mine and parent in answered[place - 1]
                axes.plot(
                    [place - 1, place], [parent, candidate.index],
                    color=FIRST if right else RULE, linewidth=1.2 if right else 0.8, zorder=1 + right,
                )  # fmt: skip
    for place, played in enumerate(rounds):
        for candidate in played.candidates:
            silent = candidate.answer is None
            marker, colour = _SILENT if silent else _AGREES if candidate.index in answered[place] else _DIFFERS
            face = "none" if silent else colour
            axes.plot([place], [candidate.index], marker, color=colour, markerfacecolor=face, markersize=6, zorder=3)
    axes.set_xlim(-0.15, last + 0.15)
    axes.set_ylim(most - 0.5, -0.5)
    axes.set_xticks(range(len(rounds)), [_name(played) for played in rounds])
    axes.set_yticks(range(0, most, max(1, most // 8)))
    axes.text(0, 1.02, "candidate", transform=axes.transAxes, color=MUTED)
    axes.grid(visible=False)
    title = "Who read whom"
    text = "; ".join(
        f"{_name(played)}: {len(answered[place])} of {len(played.candidates)} candidates gave the run's answer"
        for place, played in enumerate(rounds)
    )
    text = f"A line joins a candidate with those whose tails it read. {text[0].upper()}{text[1:]}."
    legend: tuple[tuple[Colour, str], ...] = (
        ("first", "● gave the run's answer"),
        ("second", "◆ gave another one"),
        ("third", "○ gave none, or was not asked"),
    )
    return Plot("lineage", title, text, inline(figure, "lineage", title, text), legend)


def _name(played: Round) -> str:
    return f"round {played.round}" if played.kind == "population" else "selection"
