"""Two evaluations side by side: the mean of the differences problem by problem, which cancels how hard problems are.

A difference is that of the second from the first: positive if the second is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from engine.api import ModelInfo
from evals.errors import ResultsError
from evals.folder import read_results
from evals.results import EvalResults, ProblemStats
from evals.stats import DIFFERENCES, Estimate, estimate, mean_of
from rsa.results import Record

SAME_DATA = ("kind", "name", "config", "split", "revision", "columns")
"""Fields of `DataInfo` that must agree for two problems of one id to be the same problem."""

SELECTING = ("limit", "ids")
"""Options of generated problems that choose among them; every other one changes what they are."""


class Contrast(Record):
    """One figure of both, over the problems that have it in both: each one's mean, and the paired difference."""

    first: float | None
    second: float | None
    difference: Estimate


class Comparison(Record):
    """What `rsa compare` prints.

    problems     that are in both; `only_first` and `only_second` others.
    headline     of each evaluation's own headline number: `headlines` names what that is of.
    final_mean   of the final round's candidates; `vote` of their majority; `answer` of the one answer of each run.
    tokens       generated per problem, mean over the shared problems that ran in both (None: there are none);
                 `tokens_ratio`: the second's over the first's.
    """

    benchmark: str
    metric: str
    methods: tuple[str, str]
    models: tuple[str, str]
    headlines: tuple[str, str]
    problems: int
    only_first: int
    only_second: int
    headline: Contrast
    final_mean: Contrast
    vote: Contrast
    answer: Contrast
    tokens: tuple[float | None, float | None]
    tokens_ratio: float | None
    notes: tuple[str, ...] = ()


def compare(first: str | Path, second: str | Path, *, trust: bool = False) -> Comparison:
    """Compare the evaluations in two folders. Raises ResultsError if they have no problem, or no measure, in common.

    trust  what was changed in them since it was written is taken as it is, not refused; a note says so.
    """
    return compare_results(read_results(first, trust=trust), read_results(second, trust=trust))


def compare_results(first: EvalResults, second: EvalResults) -> Comparison:
    """As `compare`, of results in memory."""
    _check_comparable(first, second)
    ours = {problem.id: problem for problem in first.problems}
    theirs = {problem.id: problem for problem in second.problems}
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise ResultsError("the two evaluations have no problem in common: give both the same `limit`, `ids` and seeds")
    clusters = {key: ours[key].cluster for key in shared}

    def contrast(value: Callable[[ProblemStats], float | None]) -> Contrast:
        return _contrast({key: (value(ours[key]), value(theirs[key])) for key in shared}, clusters)

    spent = _spent([(ours[key].tokens, theirs[key].tokens) for key in shared])
    return Comparison(
        benchmark=first.benchmark,
        metric=first.metric,
        methods=(first.method, second.method),
        models=(first.model.name, second.model.name),
        headlines=(first.headline, second.headline),
        problems=len(shared),
        only_first=len(ours) - len(shared),
        only_second=len(theirs) - len(shared),
        headline=contrast(lambda problem: problem.value),
        final_mean=contrast(lambda problem: problem.final_mean),
        vote=contrast(lambda problem: problem.final_vote),
        answer=contrast(lambda problem: problem.answer),
        tokens=spent,
        tokens_ratio=spent[1] / spent[0] if spent[0] and spent[1] is not None else None,
        notes=tuple(_notes(first, second)),
    )


def _check_comparable(first: EvalResults, second: EvalResults) -> None:
    options = sorted({**first.data.options, **second.data.options}) if first.data.kind == "generated" else []
    for what, one, other in (
        ("benchmark", first.benchmark, second.benchmark),
        ("metric", first.metric, second.metric),
        *((f"data {key}", getattr(first.data, key), getattr(second.data, key)) for key in SAME_DATA),
        *(
            (f"data option {key}", first.data.options.get(key), second.data.options.get(key))
            for key in options
            if key not in SELECTING
        ),
    ):
        if one != other:
            raise ResultsError(f"these cannot be compared: {what} is {one!r} in the first and {other!r} in the second")


def _contrast(pairs: Mapping[str, tuple[float | None, float | None]], clusters: Mapping[str, str | None]) -> Contrast:
    known = {key: (one, other) for key, (one, other) in pairs.items() if one is not None and other is not None}
    return Contrast(
        first=mean_of([one for one, _ in known.values()]),
        second=mean_of([other for _, other in known.values()]),
        difference=estimate({key: other - one for key, (one, other) in known.items()}, clusters, DIFFERENCES),
    )


def _spent(pairs: Iterable[tuple[float | None, float | None]]) -> tuple[float | None, float | None]:
    """Tokens of each, mean over the problems that ran in both."""
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    return mean_of([one for one, _ in both]), mean_of([other for _, other in both])


def _called(model: ModelInfo) -> str:
    """A model's name, and what of its running makes other tokens."""
    bits = model.details.get("kv_bits")
    return model.name if bits is None else f"{model.name} with {bits}-bit keys and values"


def _notes(first: EvalResults, second: EvalResults) -> list[str]:
    """What a reader should know before believing the difference."""
    notes = []
    if first.model.fingerprint != second.model.fingerprint:
        notes.append(f"the models differ: {_called(first.model)} and {_called(second.model)}")
    if first.headline != second.headline:
        notes.append(
            f"the headline numbers are of {first.headline} in the first and of the {second.headline} in the second"
        )
    if first.epochs != second.epochs:
        notes.append(f"epochs differ: {first.epochs} and {second.epochs}")
    if first.prompt_sha256 != second.prompt_sha256:
        notes.append("the prompts differ")
    for which, results in (("first", first), ("second", second)):
        if results.budget is not None:
            notes.append(f"the {which}: {results.budget.sentence} {results.budget.ends}")
        notes += [f"the {which}: {warning}" for warning in results.warnings]
    return notes
