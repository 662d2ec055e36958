"""What all runs of an evaluation may take together, and what became of it. How it is shared out: `evals.allotment`."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self

from pydantic import Field, ValidationError

from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.policies.tournament import most_matches
from rsa.requests import MATCH_ANSWER, MATCH_BETA
from rsa.results import Record, StopReason
from rsa.settings.config import RSAConfig, in_plain_words
from rsa.settings.sizes import MOST_TOKENS, Tokens
from rsa.words import plural

Ended = StopReason | Literal["failed", "unbegun"]
"""Why a run ended: as it says itself, or because it failed, or was not begun for want of tokens or time."""
TAG_TOKENS = 64
"""Tokens of a candidate beside its budgets, at most: those that end its reasoning, or begin its answer for it."""
_ENDED: dict[Ended, str] = {
    "finished": "played all rounds",
    "policy": "were decided early",
    "set_tokens": "ended where the tokens did",
    "set_deadline_s": "ended where the time did",
    "total_tokens": "ended at a limit of their own",
    "deadline_s": "ended at a limit of their own",
    "no_candidates": "failed",
    "failed": "failed",
    "unbegun": "were not begun",
}
ENDS: tuple[Ended, ...] = tuple(_ENDED)
"""The ends that there are, in the order in which they are told."""
ALL_AGREE = "consensus:1"
"""The policy that decides a problem unless the settings say when to stop: who is unanimous gains nothing by a round."""


class SetBudget(Record):
    """What all runs of an evaluation may take together. None: no limit.

    total_tokens  that are generated.
    deadline_s    seconds from the start of the evaluation; time before a resume counts, time in between does not.
    """

    total_tokens: Tokens | None = Field(None, ge=1, le=MOST_TOKENS)
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)

    @property
    def sentence(self) -> str:
        """In words."""
        tokens = None if self.total_tokens is None else f"{self.total_tokens:,} tokens"
        time = None if self.deadline_s is None else f"{self.deadline_s:g} seconds"
        limits = " and ".join(filter(None, (tokens, time)))
        return f"Budget of all problems together: {limits}, shared out round by round."

    @classmethod
    def of(cls, total_tokens: int | str | None, deadline_s: float | None) -> Self | None:
        """The budget of these limits; None without any. Raises ConfigError."""
        if total_tokens is None and deadline_s is None:
            return None
        try:
            return cls.model_validate({"total_tokens": total_tokens, "deadline_s": deadline_s})
        except ValidationError as error:
            raise ConfigError(in_plain_words(error)) from None

    def settings_for(self, config: RSAConfig, shard: str | None = None) -> RSAConfig:
        """The settings of the runs that share it. Raises ConfigError for runs that it cannot be shared out to."""
        if shard is not None:
            raise ConfigError(
                "a budget of the whole evaluation cannot be shared out among shards, which do not know of each other: "
                "limit each problem, with `tokens_per_problem` or `seconds_per_problem`"
            )
        config = _stopping_when_decided(config)
        if not config.answers_every_round:
            raise ConfigError("answers = final: a budget of the whole evaluation needs those of every round")
        if self.total_tokens is None:
            return config
        if config.t == 0:
            raise ConfigError(
                "`total_tokens` of the whole evaluation are shared out round by round, and t = 0 has but one: "
                "limit each problem with `tokens_per_problem`, or give a method with rounds"
            )
        if (most := most_tokens(config)) > self.total_tokens:
            raise ConfigError(
                f"`total_tokens` = {self.total_tokens} of the whole evaluation is less than a round of one problem may "
                f"take: {most}, by n, beta and answer_budget; raise it, or lower those"
            )
        return config


def _stopping_when_decided(config: RSAConfig) -> RSAConfig:
    """The settings, with a consensus that ends a run unless they say when to stop."""
    return config if config.stop or "stop" in config.model_fields_set else config.with_defaults(stop=(ALL_AGREE,))


def most_tokens(config: RSAConfig) -> int:
    """What a round of a run may generate at most, the last aggregation that selects the answer, or all matches,
    included."""
    select = registry.select_policy(config.select)
    candidates = (config.n + select.aggregates) * (config.beta + config.answer_budget + TAG_TOKENS)
    match = min(config.beta, MATCH_BETA) + min(config.answer_budget, MATCH_ANSWER) + TAG_TOKENS
    return candidates + (most_matches(config.n) * match if select.compares else 0)


class BudgetSpent(SetBudget):
    """What became of a budget.

    tokens  generated by all runs.
    ended   runs by why they ended.
    """

    tokens: int
    ended: dict[Ended, int]

    @property
    def ends(self) -> str:
        """How runs ended, in words."""
        counts: Counter[str] = Counter()
        for why, runs in self.ended.items():
            counts[_ENDED.get(why, f"ended by {why}")] += runs
        ends = ", ".join(f"{count} {words}" for words, count in counts.items())
        return f"{self.tokens:,} tokens were spent; of {plural(counts.total(), 'run')} {ends}"
