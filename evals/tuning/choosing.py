"""Which settings are chosen, from what each was worth and what it cost, problem by problem.

Chosen are the cheapest settings that are not measurably worse than the best ones: the paired 95% interval of the
difference holds 0, and does not reach beyond MOST_LOSS. Unless they are measurably better than the settings that one
starts from, they must not cost more than these, nor lose more than MOST_LOSS to them. Where none are sure enough of
that, the sample is too small to tell, and one stays with what one had, or what gives the same answers for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.stats import CONFIDENCE, DIFFERENCES, Estimate, estimate, mean_of
from rsa.errors import ConfigError

MOST_LOSS = 0.1
"""What cheaper settings may cost of the accuracy, at most, to be chosen: the interval says that it is no more."""


@dataclass(frozen=True, slots=True)
class Option:
    """Settings that may be chosen; `values` and `tokens` by problem, the same problems for all options.

    answers  options of which this is the same give the same answers, whatever the problem.
    """

    name: str
    answers: str
    values: Mapping[str, float | None]
    tokens: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """The mean value; 0 if no problem has one."""
        return mean_of(list(self.values.values())) or 0.0

    @property
    def cost(self) -> float:
        """Mean tokens a problem."""
        return mean_of(list(self.tokens.values())) or 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    best     the most accurate settings.
    decided  False: the sample cannot tell, and `chosen` gives the answers of what one started from.
    loss     of the chosen ones to the best; `gain`: over what one started from. Paired, by problem.
    """

    chosen: Option
    best: Option
    start: Option
    decided: bool
    loss: Estimate
    gain: Estimate


def choose(
    options: Sequence[Option],
    start: Option,
    clusters: Mapping[str, str | None] | None = None,
    most_tokens: int | None = None,
) -> Choice:
    """The choice among options; `start` is one of them.

    most_tokens  that they may cost a problem. Where all that gives the answers of the start costs more, the best is the
                 measure of what may be lost and spent.

    Raises ConfigError if none costs so little.
    """
    affordable = [option for option in options if most_tokens is None or option.cost <= most_tokens]
    if not affordable:
        least = min(option.cost for option in options)
        raise ConfigError(
            f"`tokens_per_problem` = {most_tokens}: the cheapest settings that were tried take {least:,.0f}"
        )
    best = min(affordable, key=lambda option: (-option.accuracy, option.cost))
    same = [option for option in affordable if option.answers == start.answers]
    kept = min(same or [best], key=_cheapest)
    able = [option for option in affordable if _may_be_chosen(option, best, kept, clusters)]
    chosen = min(able or [kept], key=_cheapest)
    return Choice(
        chosen=chosen,
        best=best,
        start=start,
        decided=bool(able),
        loss=difference(best, chosen, clusters),
        gain=difference(chosen, start, clusters),
    )


def difference(first: Option, second: Option, clusters: Mapping[str, str | None] | None = None) -> Estimate:
    """How much better the first is, over the problems that have a value in both."""
    pairs = {key: (value, second.values.get(key)) for key, value in first.values.items()}
    known = {key: one - other for key, (one, other) in pairs.items() if one is not None and other is not None}
    return estimate(known, clusters, DIFFERENCES)


def _cheapest(option: Option) -> tuple[float, float]:
    """An order: cheaper ones first; of those that cost the same, better ones."""
    return option.cost, -option.accuracy


def _may_be_chosen(option: Option, best: Option, kept: Option, clusters: Mapping[str, str | None] | None) -> bool:
    loss, behind = difference(best, option, clusters), most(difference(kept, option, clusters))
    near = option.answers == best.answers or (not _measurable(loss) and most(loss) <= MOST_LOSS)
    no_worse = option.answers == kept.answers or behind <= MOST_LOSS
    return near and (behind < 0 or (no_worse and option.cost <= kept.cost))


def _measurable(found: Estimate) -> bool:
    """Whether 0 is outside of the interval."""
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def most(found: Estimate) -> float:
    """What a difference is at most, at 95%: the end of its interval, or where that has no width what may hide there."""
    if found.high is None:
        return DIFFERENCES[1]
    return (found.value or 0.0) + unseen(found) if found.se == 0 else found.high


def unseen(found: Estimate) -> float:
    """The share of problems that may be otherwise, at 95%, where all that were seen are alike: 1 - 0.05^(1/P) of P. The
    interval has no width there, and feigns certainty."""
    return float(1 - (1 - CONFIDENCE) ** (1 / found.clusters))
