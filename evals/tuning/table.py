"""A tuning as people read it, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from evals.display import aligned, number, one_line
from evals.tuning.records import Trial, Tuned
from rsa.words import plural

MOST_ROWS = 12
"""Settings that the table has: those that no cheaper ones beat, dearest first left out where there are more."""


def tuned_lines(tuned: Tuned) -> list[str]:
    """The settings worth looking at, what was chosen and why, and what a reader should know."""
    signs = {tuned.start: "start", tuned.best: "best", tuned.chosen: "chosen"}
    rows = [("", "settings", "answer", "tokens")]
    for trial in worth_showing(tuned):
        rows.append((signs.get(trial.name, ""), trial.name, number(trial.answer), f"{trial.tokens:,.0f}"))
    standing = [trial for trial in tuned.trials if trial.stands]
    return [
        f"{tuned.benchmark}, {tuned.model}: {plural(len(standing), 'setting')} on {plural(tuned.problems, 'problem')}, "
        f"{len(tuned.trials) - len(standing):,} more on fewer; those that no cheaper ones beat, with 95% intervals",
        *aligned(rows),
        *tuned.conclusion,
        *(f"note: {one_line(note)}" for note in tuned.notes),
        f"{tuned.spent:,} of {tuned.budget:,} tokens were spent",
    ]


def worth_showing(tuned: Tuned) -> list[Trial]:
    """Of what could be chosen, cheapest first, whatever no cheaper settings beat; and what has a name of its own."""
    named = {tuned.start, tuned.best, tuned.chosen}
    front = {trial.name for trial in unbeaten(tuned.trials)}
    shown = [trial for trial in _by_cost(tuned.trials) if trial.name in front | named]
    spare = [trial.name for trial in shown if trial.name not in named][MOST_ROWS - len(named) :]
    return [trial for trial in shown if trial.name not in spare]


def unbeaten(trials: Iterable[Trial]) -> list[Trial]:
    """Of what could be chosen, cheapest first, whatever is more accurate than everything cheaper."""
    found: list[Trial] = []
    for trial in _by_cost(trials):
        if trial.stands and (not found or (trial.answer.value or 0.0) > (found[-1].answer.value or 0.0)):
            found.append(trial)
    return found


def _by_cost(trials: Iterable[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (trial.tokens, -(trial.answer.value or 0.0)))
