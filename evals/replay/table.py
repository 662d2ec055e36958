"""A replay as people read it, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from evals.display import aligned, number, one_line
from evals.replay.figures import Figures, Replayed, Replays
from rsa.words import plural, shortened

_ANSWER_CHARACTERS = 40
STEPS = (
    "steps: the longest candidate of each round, or wave, added up: of an engine that decodes these at once; no seconds"
)


def replay_lines(replays: Replays) -> list[str]:
    """Every table, with what a reader should know below it."""
    return [line for replayed in replays.replays for line in _table(replayed)]


def _table(replayed: Replayed) -> Iterator[str]:
    yield _title(replayed)
    yield f"as recorded: reproduced {replayed.reproduced:,} of {replayed.reproduced:,}"
    everything = (replayed.recorded, *replayed.variants)
    if replayed.kind == "evaluation":
        rows: list[tuple[str, ...]] = [("", "answer", "difference", "tokens", "x", "steps x")]
        rows += [(each.name, *_worth(each), *_costs(each)) for each in everything]
    elif len(replayed.folders) == 1:
        rows = [("", "answer", "tokens", "x", "steps x")]
        rows += [(each.name, _answer(each), *_costs(each)) for each in everything]
    else:
        rows = [("", "same answer", "tokens", "x", "steps x")]
        rows += [(each.name, _share(each.same), *_costs(each)) for each in everything]
    yield from aligned(rows)
    for note in notes(replayed):
        yield f"note: {one_line(note)}"


def _title(replayed: Replayed) -> str:
    if replayed.kind == "runs":
        return f"{plural(replayed.problems, 'run')}, of which nobody knows the right answers"
    where = f"{replayed.benchmark}, {replayed.method}, in {one_line(replayed.folders[0])}"
    problems = plural(replayed.problems, "problem")
    return f"{where}: {problems}; the runs' answers, scored by {replayed.metric}; 95% intervals, by problem"


def notes(replayed: Replayed) -> Iterator[str]:
    """What a reader should know before believing the figures."""
    if replayed.variants:
        yield STEPS
    for each in replayed.variants:
        if each.muted:
            yield (
                f"{each.name}: {each.muted:.1f} candidates a run would have been made to answer; what they would have "
                "said was not generated, so that they count as without an answer"
            )
    if any(each.variant.n is not None or each.variant.method == "single" for each in replayed.variants):
        yield f"fewer candidates: the mean over up to {replayed.draws:,} draws of each run's"
    yield from replayed.notes


def _worth(figures: Figures) -> tuple[str, str]:
    assert figures.answer is not None, "it is an evaluation"
    difference = "-" if figures.difference is None else number(figures.difference, signed=True)
    return number(figures.answer), difference


def _answer(figures: Figures) -> str:
    if figures.answers is None:
        return f"the same in {_share(figures.same)}"
    return "-" if figures.answers[0] is None else shortened(one_line(figures.answers[0]), _ANSWER_CHARACTERS)


def _costs(figures: Figures) -> tuple[str, str, str]:
    tokens = "-" if figures.tokens is None else f"{figures.tokens:,.0f}"
    return tokens, _ratio(figures.tokens_ratio), _ratio(figures.steps_ratio)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
