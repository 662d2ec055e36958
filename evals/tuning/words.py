"""What a tuning does and comes to, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from evals.display import number
from evals.tuning.choosing import most, unseen
from evals.tuning.records import Tuned
from evals.tuning.space import Family
from rsa.words import plural


def recorded(family: Family, problems: int, best: float, tokens: float) -> str:
    """That a family was recorded, for who waits."""
    return f"{family.name}: {plural(problems, 'problem')}, best {best:.3f}, {tokens:,.0f} tokens a problem to record"


def budget_ended(budget: int, problems: int) -> str:
    """That the budget ended a rung before its end."""
    return (
        f"the budget of {budget:,} tokens ended within a rung: what it recorded is not used, and settings are compared "
        f"on {plural(problems, 'problem')}"
    )


def conclusion(tuned: Tuned) -> Iterator[str]:
    """What was chosen and why, and what it is worth."""
    yield _choice(tuned)
    yield _worth(tuned)


def _choice(tuned: Tuned) -> str:
    best, chosen, start = map(tuned.trial, (tuned.best, tuned.chosen, tuned.start))
    if not tuned.decided:
        points, margin = 100 * (tuned.loss.value or 0.0), 100 * (most(tuned.loss) - (tuned.loss.value or 0.0))
        kept = "these" if chosen.name == start.name else f"their answers ({chosen.name})"
        return (
            f"The sample of {plural(tuned.problems, 'problem')} cannot tell them apart: the best settings "
            f"({best.name}) and those that were started from differ by {points:.0f} points (± {margin:.0f}). The "
            f"profile keeps {kept}; give more problems or a larger --budget."
        )
    if chosen.name == start.name:
        return f"The settings that were started from stand: nothing cheaper is as good ({chosen.name})."
    rounds = int(str(chosen.settings["t"]))
    what = plural(rounds, "round") if rounds else "no rounds"
    there = sum(trial.stands for trial in tuned.trials)
    return (
        f"Chosen: {chosen.name}, so {what} of aggregation; of {plural(there, 'setting')} the cheapest not measurably "
        f"worse than the best; {_against(tuned)} the settings that were started from, for "
        f"{_ratio(chosen.tokens, start.tokens)} of their tokens."
    )


def _against(tuned: Tuned) -> str:
    points, margin = round(100 * (tuned.gain.value or 0.0)), tuned.gain.margin
    if points == 0 and not margin:
        return "as good as"
    which = "better" if points >= 0 else "worse"
    return f"{abs(points)} points{'' if margin is None else f' (± {100 * margin:.0f})'} {which} than"


def _ratio(now: float, was: float) -> str:
    return f"{100 * now / was:.0f}%" if was else "an unknown share"


def _worth(tuned: Tuned) -> str:
    hidden = f", which may hide {100 * unseen(tuned.expected):.0f} points" if tuned.expected.se == 0 else ""
    expected = f"Expected accuracy: {number(tuned.expected)}{hidden}, for {tuned.tokens:,.0f} tokens a problem"
    if tuned.checked is None:
        return (
            f"{expected}, by the problems that it was chosen by, and so probably too high: the budget did not suffice "
            "for others."
        )
    return f"{expected}, measured on {plural(tuned.checked.problems, 'problem')} that nothing was chosen by."
