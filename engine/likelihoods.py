"""How likely the tokens of a completion were.

All numbers are of the model's own distribution: at temperature 1, before any filter, in nats. It is what servers
report, it says the same whatever a run's settings are, and it is there at temperature 0, where a draw is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

_LogProbability = Annotated[float, Field(le=0.0, allow_inf_nan=False)]
_Entropy = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Likelihood(NamedTuple):
    """Of one drawn token: its log-probability, and the entropy of what it was drawn from; None: nobody says."""

    log_probability: float
    entropy: float | None = None


class Likelihoods(BaseModel):
    """Of the tokens of a completion, one number for each of its `token_ids`.

    log_probabilities  None for a token that was not drawn (a forced tag, a cue), or that a server says nothing of.
    entropies          of the distributions that the tokens were drawn from, None where `log_probabilities` is; all None
                       from an engine that reports none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    log_probabilities: tuple[_LogProbability | None, ...]
    entropies: tuple[_Entropy | None, ...] | None = None

    @classmethod
    def of(cls, tokens: Sequence[Likelihood | None]) -> Self:
        """Those of a completion's tokens in order. What rounding took beyond 0 is 0."""
        told = any(token is not None and token.entropy is not None for token in tokens)
        return cls(
            log_probabilities=tuple(None if token is None else min(token.log_probability, 0.0) for token in tokens),
            entropies=tuple(_entropy(token) for token in tokens) if told else None,
        )

    def first(self, tokens: int) -> Self:
        """Those of the first tokens."""
        entropies = None if self.entropies is None else self.entropies[:tokens]
        return self.model_copy(update={"log_probabilities": self.log_probabilities[:tokens], "entropies": entropies})


def _entropy(token: Likelihood | None) -> float | None:
    return None if token is None or token.entropy is None else max(token.entropy, 0.0)
