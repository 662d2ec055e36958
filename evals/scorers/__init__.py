"""Metrics: what an answer is worth, given the gold answer. `make` builds one by its name.

math       symbolic equivalence                          gold: LaTeX, a number, or a solution that ends in one of
                                                         these: in a box, or after ####
integer    the same, of a gold that is an integer        gold: `204`, `025`, 204
choice     the letter of an option                       gold: a letter, or an index from 0; field: options
anls       closeness of spelling                         gold: a text or several; setting: threshold
vqa        agreement with annotators                     gold: their answers, as texts or {"answer": ...}
mathvista  an option, number or list, as MathVista does  gold: a text; fields: question_type, answer_type, ...
mmmu       an option or a short answer, as MMMU does     gold: a letter, a text, several; fields: question_type, options
countdown  the checker of evals.tasks.countdown          gold: {"numbers": [7, 5, 9, 2], "target": 24}
chain      the checker of evals.tasks.chain              gold: {"start": 43, "ops": [["+", 5], ["*", 3]]}
sums       the checker of evals.tasks.sums               gold: {"terms": [4821, 93, -120]}

A package of one's own adds a metric by an entry point, under which a benchmark's file and `--metric` find it:

    [project.entry-points."rsa.scorers"]
    exact = "my_package:ExactScorer"

`ExactScorer()` returns an `evals.scorers.protocol.Scorer`; the names of its parameters are the metric's settings.

All of ours read the text after the last `</think>`; where a `<think>` stays open, there is no answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from evals.errors import BenchmarkError
from evals.tasks.registry import TASKS
from rsa.answers.math_pool import MathWorkers
from rsa.errors import did_you_mean

if TYPE_CHECKING:
    from evals.scorers.protocol import Scorer

__all__ = ["GROUP", "make", "names"]

GROUP = "rsa.scorers"
"""The entry-point group of metrics; an entry's object takes a metric's settings, if it has any, and gives a scorer."""
_OURS = {
    "math": "symbolic:MathScorer",
    "integer": "symbolic:IntegerScorer",
    "choice": "choice:ChoiceScorer",
    "anls": "anls:AnlsScorer",
    "vqa": "vqa:VqaScorer",
    "mathvista": "mathvista:MathVistaScorer",
    "mmmu": "mmmu:MmmuScorer",
}
"""Our metrics, those of generated tasks apart: a module of this package, and the class in it."""


def names() -> list[str]:
    """The metrics that there are, ours first; none is imported."""
    others = sorted({point.name for point in entry_points(group=GROUP)})
    return list(dict.fromkeys([*_OURS, *TASKS, *others]))


def make(metric: str, *, settings: Mapping[str, JsonValue] | None = None, math: MathWorkers | None = None) -> Scorer:
    """The scorer of a metric.

    settings  of the metric, as a benchmark's file gives them; of ours only `anls` has any.
    math      processes to compare with, for metrics that need them (by a parameter of that name); they stay the
              caller's to close. By default a scorer has its own.

    Raises BenchmarkError for an unknown metric or setting, for a setting's value that makes no sense, and for a metric
    of another package that cannot be made.
    """
    if metric not in (*_OURS, *TASKS) and metric not in names():  # looking through all packages takes a while
        raise BenchmarkError(
            f"no metric is called {metric!r}{did_you_mean(metric, names()) or '.'} There are {', '.join(names())}"
        )
    if metric in TASKS:
        from evals.scorers.tasks import TaskScorer

        return _built(metric, partial(TaskScorer, TASKS[metric]), settings or {}, math)
    if metric in _OURS:
        return _built(metric, EntryPoint(metric, f"evals.scorers.{_OURS[metric]}", GROUP).load(), settings or {}, math)
    return _of_others(metric, settings or {}, math)


def _built(
    metric: str, build: Callable[..., Any], settings: Mapping[str, JsonValue], math: MathWorkers | None
) -> Scorer:
    parameters = inspect.signature(build).parameters
    known = [name for name in parameters if name != "math"]
    for name in settings:
        if name not in known:
            near, has = did_you_mean(name, known), f"has {', '.join(known)}" if known else "has none"
            raise BenchmarkError(f"metric {metric}: no setting is called {name!r}{near}. It {has}")
    given: dict[str, Any] = {**settings, **({"math": math} if "math" in parameters else {})}
    scorer: Scorer = build(**given)
    return scorer


def _of_others(metric: str, settings: Mapping[str, JsonValue], math: MathWorkers | None) -> Scorer:
    """A scorer of another package, whose faults are told as that package's."""
    points = {point.value: point for point in entry_points(group=GROUP, name=metric)}
    if len(points) > 1:
        packages = " and ".join(sorted(_package(point) for point in points.values()))
        raise BenchmarkError(f"the metric {metric!r} is brought by {packages}: remove one of them")
    (point,) = points.values()
    try:
        scorer = _built(metric, point.load(), settings, math)
    except BenchmarkError:
        raise
    except Exception as error:  # another's module may run into anything
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BenchmarkError(
            f"the metric {metric!r} cannot be made from {point.value} ({what}): "
            f"install the package {_package(point)} again, or ask its makers"
        ) from error
    missing = [name for name in ("check", "score", "group", "__aenter__", "__aexit__") if not hasattr(scorer, name)]
    if missing:
        raise BenchmarkError(f"{point.value} gives no scorer: it has no {', '.join(missing)}. Ask its makers")
    return scorer


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
