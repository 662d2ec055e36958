"""The figures of an evaluation in words and short tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.api import ModelInfo
from evals.report.text import count, duration, interval, moment, percent, points, short
from evals.report.views import RIGHT, WRONG, Tone
from evals.results import DataInfo, EvalResults, EvalTimings, ProblemStats
from evals.scorers.protocol import ScoreStatus
from evals.stats import DIFFERENCES, SCORES, Estimate, estimate
from rsa.settings.config import RSAConfig
from rsa.settings.methods import Method
from rsa.settings.suitability import sampling_of
from rsa.words import plural

METHODS: dict[Method, str] = {
    "auto": "Markovian RSA while nobody answers",
    "single": "Independent rollouts",
    "vote": "Majority vote of independent rollouts",
    "rsa": "Markovian RSA",
    "markovian": "Markovian continuation, each candidate from its own tail",
    "full-rsa": "Recursive self-aggregation with whole traces",
}
_SCORER = {
    "candidates": "a candidate of the final round",
    "vote": "the majority vote of the final round",
    "answer": "the answer of a run",
}
_BECAME: dict[tuple[Tone, bool], str] = {
    ("right", False): "became right",
    ("wrong", False): "became wrong",
    ("right", True): "became right in every epoch",
    ("wrong", True): "no longer right in every epoch",
}
_NAMED = 12
"""Problems named in a sentence."""
Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Headline:
    """What the evaluation found, for people. `figure`: the number; `what`: of whom; then sentences."""

    figure: str
    what: str
    sentences: tuple[str, ...]


def headline(results: EvalResults) -> Headline:
    """The headline number, what it is of, and how far to trust it."""
    config = results.config
    times = f" × {plural(results.epochs, 'epoch')}" if results.epochs > 1 else ""
    rounds = f" × {config.t + 1} rounds" if config.t else ""
    size = f"{plural(results.data.selected, 'problem')}{times} × {plural(config.n, 'candidate')}{rounds}"
    what = f"{METHODS[results.method]} with {results.model.name}: {size}"
    shared = () if results.budget is None else (f"{results.budget.sentence} {results.budget.ends}.",)
    return Headline(percent(results.mean.value), what, (_found(results), *_trust(results.mean), *shared))


def _found(results: EvalResults) -> str:
    if results.mean.value is None:
        return "No problem has a candidate that could be scored, so there is no number."
    scorer = (
        _SCORER[results.headline] if results.config.t else _SCORER[results.headline].replace(" of the final round", "")
    )
    over = plural(results.mean.problems, "problem")
    return f"On average over {over}, {scorer} scores {percent(results.mean.value)} (metric: {results.metric})."


def _trust(mean: Estimate) -> list[str]:
    if mean.value is None:
        return []
    if mean.low is None or mean.high is None:
        return ["One problem is too few to say how far to trust it."]
    clusters = f", which come in {mean.clusters:,} independent groups" if mean.clusters < mean.problems else ""
    if mean.low == mean.high:
        return ["All problems scored the same, so their spread does not say how far to trust it."]
    said = [f"The 95% interval for problems like these is {interval(mean)}{clusters}."]
    ends = " and ".join(percent(end) for end in SCORES if end in (mean.low, mean.high))
    if ends:
        said.append(f"It is cut off at {ends}, where scores end: there are too few problems for it to be sharp.")
    return said


def gains(results: EvalResults) -> list[str]:
    """What rounds and votes add, paired by problem: each problem is compared with itself."""
    said = []
    if len(results.rounds) > 1:
        differences = [_minus(each.final_mean, each.means[0] if each.means else None) for each in results.problems]
        said.append(_gain("From round 0 to the final round, the mean of the candidates", _paired(results, differences)))
    if results.config.n > 1:
        differences = [_minus(each.final_vote, each.final_mean) for each in results.problems]
        said.append(
            _gain(
                "From the mean of the final candidates to their majority vote, the score", _paired(results, differences)
            )
        )
    return [sentence for sentence in said if sentence]


def _paired(results: EvalResults, differences: list[float | None]) -> Estimate:
    ids = [problem.id for problem in results.problems]
    clusters = {each.id: each.cluster for each in results.problems}
    return estimate(dict(zip(ids, differences, strict=True)), clusters, DIFFERENCES)


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _gain(words: str, change: Estimate) -> str:
    if change.value is None:
        return ""
    verb = "rises" if change.value > 0 else "falls"
    size = f"{verb} by {points(abs(change.value)).removeprefix('+')} points" if change.value else "stays as it is"
    if change.low is None or change.high is None:
        return f"{words} {size}."
    return f"{words} {size} (95% interval of the change: {points(change.low)} to {points(change.high)})."


def at_a_glance(results: EvalResults, timings: EvalTimings | None) -> list[tuple[str, str, str]]:
    """(name, value, note) of the figures that people look for first."""
    shown = [("Final answer", percent(results.answer.value), interval(results.answer))]
    if results.rounds:
        final = results.rounds[-1]
        if results.headline != "vote":
            shown.append(("Majority vote", percent(final.vote.value), interval(final.vote)))
        else:
            shown.append(("Mean of candidates", percent(final.mean.value), interval(final.mean)))
        if len(final.best_of) > 1:
            k = max(final.best_of)
            shown.append((f"Best of {k}", percent(final.best_of[k].value), interval(final.best_of[k])))
        shown.append(("Tokens per problem", short(final.tokens), f"{short(results.usage.completion_tokens)} in all"))
    if timings is not None:
        shown.append(("Time", duration(timings.wall_s), f"{timings.tokens_per_s:,.0f} tokens/s"))
    return shown


def statuses(results: EvalResults) -> list[ScoreStatus]:
    """The statuses that occur, in the order in which they first do."""
    return list(dict.fromkeys(status for played in results.rounds for status, many in played.statuses.items() if many))


@dataclass(frozen=True, slots=True)
class Changes:
    """Problems whose vote changed in one step, as (id, anchor); `more` are not named."""

    tone: Tone
    sign: str
    words: str
    problems: tuple[tuple[str, str], ...]
    more: int


def changes(results: EvalResults, anchors: Mapping[str, str]) -> list[Changes]:
    """Which problems the vote got right, and which it lost, round by round."""
    found = []
    for number in range(1, len(results.rounds)):
        for badge, went in ((RIGHT, _became_right), (WRONG, _became_wrong)):
            ids = [problem.id for problem in results.problems if went(problem, number)]
            if ids:
                words = f"Round {number - 1} to {number}, {_BECAME[badge.tone, results.epochs > 1]}"
                named = tuple((name, anchors[name]) for name in ids[:_NAMED])
                found.append(Changes(badge.tone, badge.sign, words, named, len(ids) - len(named)))
    return found


def _became_right(problem: ProblemStats, number: int) -> bool:
    before, now = _votes(problem, number)
    return before is not None and now is not None and before < 1.0 <= now


def _became_wrong(problem: ProblemStats, number: int) -> bool:
    before, now = _votes(problem, number)
    return before is not None and now is not None and now < 1.0 <= before


def _votes(problem: ProblemStats, number: int) -> tuple[float | None, float | None]:
    """Of the round before, and of this one; None where a run ended earlier."""
    return (problem.votes[number - 1], problem.votes[number]) if number < len(problem.votes) else (None, None)


def facts(results: EvalResults, timings: EvalTimings | None) -> list[tuple[str, Facts]]:
    """What was run, with what, on what: tables of (name, value)."""
    return [
        ("Method", settings(results.config, method=results.method)),
        ("Data", _data(results)),
        ("Model", model_facts(results.model)),
        ("Software and machine", _where(results, timings)),
    ]


def settings(config: RSAConfig, method: str | None = None) -> Facts:
    """The settings that matter: those that the others leave without effect are left out."""
    rows = [("method", method)] if method else []
    rows += [("N, candidates a round", count(config.n)), ("T, aggregation rounds", count(config.t))]
    if config.t:
        rows += [("C, tails in a prompt", count(config.c)), ("carry", config.carry)]
        rows += [("τ, tokens of a tail", count(config.tau))] if config.carry != "full" else []
    rows += [
        ("β, reasoning tokens", count(config.beta)),
        ("answer tokens", count(config.answer_budget)),
        ("sampling", _sampling(config)),
        ("seed", str(config.seed)),
        ("select", config.select),
        ("answers", "of every round" if config.answers_every_round else "of the final round"),
        ("at β", "an answer is asked for" if config.force_answer else "no answer is asked for"),
        ("task", config.task),
    ]
    if config.stop:
        rows.append(("stop", ", ".join(config.stop)))
    if config.parents != "uniform":
        rows.append(("parents", config.parents))
    limits = {name: value for name, value in config.limits.model_dump().items() if value is not None}
    rows += [(f"limit {name}", f"{value:,g}") for name, value in limits.items()]
    return rows


def _sampling(config: RSAConfig) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in sampling_of(config).items())


def _data(results: EvalResults) -> Facts:
    data = results.data
    rows = [("benchmark", results.benchmark), ("metric", results.metric), ("source", _source(data))]
    rows += [("revision", brief(data.revision))] if data.revision else []
    rows.append(("problems", f"{data.selected:,}" + (f" of {data.rows:,}" if data.rows else "")))
    rows += [(f"column {name}", " or ".join(names)) for name, names in data.columns.items()]
    rows += [(name, _option(value)) for name, value in data.options.items() if value is not None]
    rows += [("epochs", count(results.epochs)), ("prompts, SHA-256", brief(results.prompt_sha256))]
    return rows


def _source(data: DataInfo) -> str:
    parts = " ".join(part for part in (data.config, data.split) if part)
    return f"{data.name}{f' ({parts})' if parts else ''}, {data.kind}"


def _option(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def model_facts(model: ModelInfo) -> Facts:
    """What is known of a model."""
    rows = [("name", model.name)]
    rows += [("context", f"{model.context_tokens:,} tokens")] if model.context_tokens else []
    rows += [("fingerprint", brief(model.fingerprint))] if model.fingerprint else []
    if not model.exact_tokens:
        rows.append(("token counts", "approximate, an estimate: β, τ and all counts are"))
    return rows + [(name, str(value)) for name, value in model.details.items() if value is not None]


def _where(results: EvalResults, timings: EvalTimings | None) -> Facts:
    rows = [("started", moment(timings.started_at))] if timings else []
    rows += machine_facts(timings.machine if timings else {})
    return rows + sorted(results.versions.items())


def brief(digest: str) -> str:
    """A digest as far as people compare it."""
    return digest if len(digest) <= 20 else f"{digest[:16]}…"


def machine_facts(machine: Mapping[str, Any]) -> Facts:
    """What is known of a machine."""
    return [(name, str(value)) for name, value in machine.items() if value is not None]
