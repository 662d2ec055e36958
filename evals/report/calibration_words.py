"""The section of a report about calibration: sentences, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evals.calibration import Bin
from evals.replay.figures import Figures
from evals.report import calibration_plots as draw
from evals.report.calibrating import FEWEST_PROBLEMS, STEPS, Calibration, RoundCalibration, Which
from evals.report.svg import Plot
from evals.report.text import points
from evals.stats import Estimate
from rsa.words import plural

_ROUNDS: dict[Which, str] = {"first": "round 0", "final": "the final round"}
_MEASURES = {
    "tail": "at the end of its reasoning (tail)",
    "mean": "in all that it wrote (mean)",
    "lowest": "in the least likely stretch (lowest)",
    "entropy": "by how few other tokens were likely, too (entropy)",
}
_RULES = {
    "decided": "ends the last round when its vote cannot change any more",
    "beta": "ends a round when its leader is likely enough to stay ahead of the next answer",
    "consensus": "ends the run after a round in which so many agree",
    "bayes": "ends the run after a round whose leader is likely enough to stay ahead",
}


@dataclass(frozen=True, slots=True)
class ShareRow:
    """Runs in which about as many candidates agree; `bins` by round, None where there is none."""

    name: str
    bins: tuple[Bin | None, ...]


@dataclass(frozen=True, slots=True)
class RankRow:
    """One measure of confidence; `ranks` by round."""

    name: str
    ranks: tuple[Estimate | None, ...]


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A rule of stop, and what it means; `why` where it has no figures."""

    name: str
    meaning: str
    figures: Figures | None
    why: str = ""

    @property
    def saved(self) -> tuple[float | None, float | None]:
        """Shares of the recorded tokens and steps; None where there were none."""
        ratios = (self.figures.tokens_ratio, self.figures.steps_ratio) if self.figures else (None, None)
        tokens, steps = (None if ratio is None else 1 - ratio for ratio in ratios)
        return tokens, steps


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """The section as drawn; `rounds` name the columns of tables."""

    sentences: tuple[str, ...]
    rounds: tuple[str, ...] = ()
    shares: tuple[ShareRow, ...] = ()
    plots: tuple[Plot, ...] = ()
    ranks: tuple[RankRow, ...] = ()
    rules: tuple[RuleRow, ...] = ()
    notes: tuple[str, ...] = ()


def calibration_view(found: Calibration | None) -> CalibrationView:
    """What there is to say; a sentence alone where there is too little."""
    if found is None:
        return CalibrationView((f"This takes {FEWEST_PROBLEMS} problems at least.",))
    if not found.runs:
        return CalibrationView(("There is no run with candidates that can be read, so that nothing is known of this.",))
    rounds = tuple(reversed(found.rounds))  # the final one first: it is what counts
    return CalibrationView(
        sentences=tuple(_sentences(rounds)),
        rounds=tuple(_ROUNDS[each.which] for each in rounds),
        shares=_share_rows(rounds),
        plots=_plots(rounds),
        ranks=_rank_rows(rounds),
        rules=_rule_rows(found),
        notes=tuple(_notes(found)),
    )


def _sentences(rounds: tuple[RoundCalibration, ...]) -> Iterator[str]:
    errors = [
        f"{points(each.error).removeprefix('+')} points in {_ROUNDS[each.which]}"
        for each in rounds
        if each.error is not None
    ]
    if errors:
        yield (
            f"Taken for the chance that the leading answer is right, the share of the candidates that agree on it is "
            f"off by {' and '.join(errors)}: the mean distance over {STEPS} equal steps of the share, weighted by runs "
            "(expected calibration error)."
        )
    silent = [f"{each.silent:,} in {_ROUNDS[each.which]}" for each in rounds if each.silent]
    if silent:
        yield f"Left out here: runs without a leading answer that could be scored, {' and '.join(silent)}."
    if not any(each.tenths for each in rounds):
        yield "How sure the model was of each candidate was not recorded, or nobody answered."


def _share_rows(rounds: tuple[RoundCalibration, ...]) -> tuple[ShareRow, ...]:
    lows = sorted({each.low for played in rounds for each in played.shares})
    by_round = [{each.low: each for each in played.shares} for played in rounds]
    return tuple(
        ShareRow(f"{100 * low:.0f} to {100 * (low + 1 / STEPS):.0f}%", tuple(bins.get(low) for bins in by_round))
        for low in lows
    )


def _plots(rounds: tuple[RoundCalibration, ...]) -> tuple[Plot, ...]:
    drawn = []
    for picture, bins in (
        (draw.right_by_share, {_ROUNDS[each.which]: each.shares for each in rounds}),
        (draw.right_by_quarter, {_ROUNDS[each.which]: each.quarters for each in rounds}),
        (draw.right_by_tenth, {_ROUNDS[each.which]: each.tenths for each in rounds}),
    ):
        if any(bins.values()):
            drawn.append(picture({name: each for name, each in bins.items() if each}))
    return tuple(drawn)


def _rank_rows(rounds: tuple[RoundCalibration, ...]) -> tuple[RankRow, ...]:
    rows = (RankRow(words, tuple(each.ranks.get(name) for each in rounds)) for name, words in _MEASURES.items())
    return tuple(row for row in rows if any(row.ranks))


def _rule_rows(found: Calibration) -> tuple[RuleRow, ...]:
    meant = ((each, _RULES.get(each.rule.split(":")[0], "")) for each in found.rules)
    rows = tuple(RuleRow(each.rule or "as it ran", meaning, each.figures, each.why) for each, meaning in meant)
    return rows if len(rows) > 1 else ()


def _notes(found: Calibration) -> Iterator[str]:
    if found.problems < found.of:
        yield f"Of {found.of:,} problems, {found.problems:,} were read for this, evenly spread over all."
    if found.unread:
        yield f"Left out here: {plural(found.unread, 'run')} that cannot be read."
    if found.rules[0].figures is None:
        yield f"What rules of stop would have saved cannot be said: {found.rules[0].why}."
    elif found.limited:
        yield (
            f"{plural(found.limited, 'run')} met a limit of tokens or time: what the tokens that a rule saves would "
            "have been spent on is not known."
        )
