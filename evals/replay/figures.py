"""What variants come to: figures over the problems of an evaluation, or over runs without a gold answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import FiniteFloat

from evals.replay.variants import AS_RECORDED, Variant
from evals.stats import DIFFERENCES, Estimate, estimate, mean_of
from rsa.results import Record


class Figures(Record):
    """What one variant comes to.

    answer      what the runs' answers are worth; `difference`: from what was recorded, problem by problem. None where
                nobody knows what is right.
    same        share of the runs whose answer is the recorded one.
    answers     of each run, in order; None where candidates were drawn, and for an evaluation.
    tokens      generated, mean over problems; None if nothing was. `tokens_ratio`: to what was recorded.
    steps       of an engine that decodes at once what is begun together: the longest candidate of each round, or of
                each wave of it, added up; mean over problems. `steps_ratio`: to what was recorded.
    stopped     share of the runs that a policy ended early.
    muted       candidates a run, on average, that would have been made to answer; they count as without an answer.
    """

    name: str
    variant: Variant
    answer: Estimate | None
    difference: Estimate | None
    same: FiniteFloat | None
    answers: tuple[str | None, ...] | None = None
    tokens: FiniteFloat | None
    tokens_ratio: FiniteFloat | None
    steps: FiniteFloat | None
    steps_ratio: FiniteFloat | None
    stopped: FiniteFloat
    muted: FiniteFloat


class Replayed(Record):
    """What `rsa replay` finds in an evaluation, or in runs.

    folders     that were read: one of an evaluation, or those of runs.
    reproduced  runs: the policies that ran decide again as they did, to the bit. All of them, or nothing is told.
    draws       of a run's candidates, at most, where a variant has fewer.
    recorded    as it was; `variants`: what was asked for.
    candidates_digest   of the evaluation that was read: see `evals.results.EvalResults`.
    """

    kind: Literal["evaluation", "runs"]
    folders: tuple[str, ...]
    benchmark: str | None = None
    method: str | None = None
    metric: str | None = None
    problems: int
    reproduced: int
    draws: int
    recorded: Figures
    variants: tuple[Figures, ...]
    candidates_digest: str = ""
    notes: tuple[str, ...] = ()


class Replays(Record):
    """What `rsa replay --json` prints."""

    replays: tuple[Replayed, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run by one variant; `drawn`: the mean over draws of its candidates, without an answer."""

    value: float | None
    same: float
    tokens: float
    steps: float
    stopped: float
    muted: float
    answer: str | None = None
    drawn: bool = False

    @classmethod
    def mean(cls, draws: list[Measured]) -> Measured:
        """Of one run, over its draws."""

        def of(name: str) -> float:
            return mean_of([getattr(draw, name) for draw in draws]) or 0.0

        return cls(
            mean_of([draw.value for draw in draws]),
            of("same"),
            of("tokens"),
            of("steps"),
            of("stopped"),
            of("muted"),
            drawn=True,
        )


@dataclass(slots=True)
class Tally:
    """One variant over the runs seen so far, by problem."""

    variant: Variant
    runs: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))

    def figures(self, recorded: Tally, clusters: Mapping[str, str | None] | None) -> Figures:
        """What they come to.

        clusters  of the problems; None: nobody knows what is right.
        """
        values, before = self._by_problem("value"), recorded._by_problem("value")
        pairs = {key: (before.get(key), value) for key, value in values.items()}
        known = {key: now - was for key, (was, now) in pairs.items() if was is not None and now is not None}
        everyone = [run for runs in self.runs.values() for run in runs]
        told = clusters is None and not any(run.drawn for run in everyone)
        tokens, steps = self._mean("tokens"), self._mean("steps")
        return Figures(
            name=self.variant.name,
            variant=self.variant,
            answer=None if clusters is None else estimate(values, clusters),
            difference=None
            if clusters is None or self.variant.name == AS_RECORDED
            else estimate(known, clusters, DIFFERENCES),
            same=mean_of([run.same for run in everyone]),
            answers=tuple(run.answer for run in everyone) if told else None,
            tokens=tokens,
            tokens_ratio=_ratio(tokens, recorded._mean("tokens")),
            steps=steps,
            steps_ratio=_ratio(steps, recorded._mean("steps")),
            stopped=mean_of([run.stopped for run in everyone]) or 0.0,
            muted=mean_of([run.muted for run in everyone]) or 0.0,
        )

    def _by_problem(self, name: str) -> dict[str, float | None]:
        return {key: mean_of([getattr(run, name) for run in runs]) for key, runs in self.runs.items()}

    def _mean(self, name: str) -> float | None:
        return mean_of(list(self._by_problem(name).values()))


def _ratio(now: float | None, was: float | None) -> float | None:
    return now / was if now is not None and was else None
