"""Metrics: what an answer is worth, given the gold answer. `make` builds one by its name.

math       symbolic equivalence                          gold: LaTeX, or a number
integer    the same, of a gold that is an integer        gold: `204`, `025`, 204
choice     the letter of an option                       gold: a letter, or an index from 0; field: options
anls       closeness of spelling                         gold: a text or several; setting: threshold
vqa        agreement with annotators                     gold: their answers, as texts or {"answer": ...}
mathvista  an option, number or list, as MathVista does  gold: a text; fields: question_type, answer_type, ...
mmmu       an option or a short answer, as MMMU does     gold: a letter, a text, several; fields: question_type, options
countdown  the checker of evals.tasks.countdown          gold: {"numbers": [7, 5, 9, 2], "target": 24}
chain      the checker of evals.tasks.chain              gold: {"start": 43, "ops": [["+", 5], ["*", 3]]}
sums       the checker of evals.tasks.sums               gold: {"terms": [4821, 93, -120]}

All of them read the text after the last `</think>`; where a `<think>` stays open, there is no answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from evals.errors import BenchmarkError
from rsa.answers.math_pool import MathWorkers
from rsa.errors import did_you_mean

if TYPE_CHECKING:
    from evals.scorers.protocol import Scorer

__all__ = ["NAMES", "make"]

NAMES = ("math", "integer", "choice", "anls", "vqa", "mathvista", "mmmu", "countdown", "chain", "sums")


def make(metric: str, *, settings: Mapping[str, JsonValue] | None = None, math: MathWorkers | None = None) -> Scorer:
    """The scorer of a metric.

    settings  of the metric, as a benchmark's file gives them; only `anls` has any.
    math      processes to compare with, for metrics that need them; they stay the caller's to close. By default a
              scorer has its own.

    Raises BenchmarkError for an unknown metric or setting, and for a setting's value that makes no sense.
    """
    if metric not in NAMES:
        raise BenchmarkError(
            f"no metric is called {metric!r}{did_you_mean(metric, NAMES) or '.'} There are {', '.join(NAMES)}"
        )
    build = _class_of(metric)
    known = [name for name in inspect.signature(build).parameters if name != "math"]
    for name in settings or {}:
        if name not in known:
            near, has = did_you_mean(name, known), f"has {', '.join(known)}" if known else "has none"
            raise BenchmarkError(f"metric {metric}: no setting is called {name!r}{near}. It {has}")
    given: dict[str, Any] = dict(settings or {})
    if "math" in inspect.signature(build).parameters:
        given["math"] = math
    return build(**given)


def _class_of(metric: str) -> Callable[..., Scorer]:
    from evals.scorers import anls, choice, mathvista, mmmu, symbolic, tasks, vqa

    classes: dict[str, Callable[..., Scorer]] = {
        "math": symbolic.MathScorer,
        "integer": symbolic.IntegerScorer,
        "choice": choice.ChoiceScorer,
        "anls": anls.AnlsScorer,
        "vqa": vqa.VqaScorer,
        "mathvista": mathvista.MathVistaScorer,
        "mmmu": mmmu.MmmuScorer,
        "countdown": tasks.CountdownScorer,
        "chain": tasks.ChainScorer,
        "sums": tasks.SumsScorer,
    }
    return classes[metric]
