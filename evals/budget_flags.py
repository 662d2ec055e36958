"""The flags of `rsa eval` about what may be spent: by all problems together, and by each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer


def _flag(**options: Any) -> Any:
    return typer.Option(rich_help_panel="Budgets", show_default="none", **options)


TotalTokensFlag = Annotated[
    str | None, _flag(metavar="TOKENS", help="Limit on all tokens of all problems together, shared out by need.")
]
DeadlineFlag = Annotated[float | None, _flag(metavar="SECONDS", help="Limit on the time of the whole evaluation.")]
TokensPerProblemFlag = Annotated[str | None, _flag(metavar="TOKENS", help="Limit on all tokens of each problem.")]
SecondsPerProblemFlag = Annotated[float | None, _flag(metavar="SECONDS", help="Limit on the time of each problem.")]
PER_PROBLEM = {"tokens_per_problem": "total_tokens", "seconds_per_problem": "deadline_s"}
"""Flags that limit each problem, as keys of `rsa.settings.config.Limits`."""


def budget_asked(total_tokens: str | None, deadline_s: float | None) -> dict[str, Any]:
    """The limits of the whole evaluation by name, as they are kept. Raises ConfigError."""
    from evals.budget import SetBudget

    return (SetBudget.of(total_tokens, deadline_s) or SetBudget()).model_dump()


def with_limits(settings: dict[str, Any], per_problem: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run with what limits each problem, by the names of the flags."""
    limits = {PER_PROBLEM[flag]: value for flag, value in per_problem.items() if value is not None}
    return {**settings, "limits": {**settings.get("limits", {}), **limits}} if limits else settings
