"""Budgets are fitted to the context, and never touched when they fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsa.budgets import SEAM_TOKENS, TAG_TOKENS, PromptLengths, fit_budgets
from rsa.errors import ConfigError, ProblemError
from rsa.settings.config import Limits, RSAConfig

K = 1024
LENGTHS = PromptLengths(initial=100, aggregate=200)


@pytest.mark.parametrize(
    ("context", "settings", "fitted"),
    [
        (None, {"beta": 40 * K}, (40 * K, 4 * K, 40 * K)),
        (128 * K, {"beta": 40 * K}, (40 * K, 4 * K, 40 * K)),
        # The user's own case: ZAYA1-VL has 32,768 positions. tau stays, beta and the answer drop.
        (32 * K, {"beta": 40 * K}, (32 * K - 200 - 4 * K - 24 - 16 * K, 4 * K, 4 * K)),
        (32 * K, {"beta": 8 * K}, (8 * K, 4 * K, 4 * K)),
        (32 * K, {"beta": 8 * K, "answer_budget": K}, (8 * K, 4 * K, K)),
        # T = 0 has no tails: all the room is for reasoning.
        (32 * K, {"beta": 40 * K, "t": 0}, (32 * K - 100 - 4 * K - 8, 4 * K, 4 * K)),
        (32 * K, {"beta": 40 * K, "c": 1}, (32 * K - 200 - 4 * K - 12 - 4 * K, 4 * K, 4 * K)),
        # Where tails would take too much, they get two thirds of the room together.
        (4 * K, {"beta": 40 * K}, (4096 - 200 - 512 - 24 - 4 * 560, 560, 512)),
        (K, {}, (1024 - 200 - 256 - 24 - 4 * 90, 90, 256)),
        # The last aggregation reads tails, though no round does.
        (32 * K, {"beta": 40 * K, "t": 0, "select": "aggregate"}, (32 * K - 200 - 4 * K - 24 - 16 * K, 4 * K, 4 * K)),
        # Carry `full` hands on whole traces: their length gives way like a tail's.
        (32 * K, {"beta": 16 * K, "carry": "full"}, (32 * K - 200 - 4 * K - 24 - 4 * 4741, 4741, 4 * K)),
    ],
)
def test_table(context: int | None, settings: dict[str, object], fitted: tuple[int, int, int]) -> None:
    config = RSAConfig(**settings)
    budgets = fit_budgets(config, LENGTHS, context)
    assert (budgets.beta, budgets.tau, budgets.answer_budget) == fitted
    lowered = budgets.changes
    assert (budgets.lowered is None) == (not lowered)
    if lowered:
        assert str(context) in str(budgets.lowered)
        said = str(budgets.lowered).partition("; lowered: ")[2].split(", ")
        assert said == [f"{name} {was} -> {now}" for name, (was, now) in lowered.items()]
        with pytest.raises(ConfigError, match="strict"):
            fit_budgets(config.replace(strict=True), LENGTHS, context)


@given(
    context=st.integers(600, 200_000),
    initial=st.integers(10, 400),
    sizes=st.tuples(st.integers(1, 8), st.integers(0, 3)),
    beta=st.integers(1, 60_000),
    answer=st.integers(1, 60_000),
)
def test_what_is_fitted_fits(context: int, initial: int, sizes: tuple[int, int], beta: int, answer: int) -> None:
    n, t = sizes
    config = RSAConfig(n=n, c=n, t=t, beta=beta, tau=max(1, beta // 4), answer_budget=answer)
    lengths = PromptLengths(initial, initial + 50)
    try:
        budgets = fit_budgets(config, lengths, context)
    except (ProblemError, ConfigError):
        assert context < 2000
        return
    assert 1 <= budgets.tau <= budgets.beta or t == 0
    assert budgets.beta <= config.beta
    assert budgets.answer_budget <= config.answer_budget
    tails = n if t else 0
    assert budgets.prompt_bound + budgets.beta + budgets.answer_budget + TAG_TOKENS <= context
    assert budgets.prompt_bound == initial + (50 if t else 0) + tails * (budgets.tau + SEAM_TOKENS)


@pytest.mark.parametrize(
    ("context", "settings", "fitted"),
    [
        # The newcomer's own case: only a default, the answer, does not fit.
        (8 * K, {"beta": 300, "tau": 100}, (300, 100, K)),
        (8 * K, {}, (8192 - 200 - 1024 - 24 - 4 * 1157, 1157, K)),
        # Tails that nobody asked for make room for the reasoning that somebody did.
        (8 * K, {"beta": 6000}, (6000, 236, K)),
        (8 * K, {"tau": 1200}, (2144, 1200, K)),
        (8 * K, {"answer_budget": 3000}, (8192 - 200 - 3000 - 24 - 4 * 828, 828, 3000)),
        (8 * K, {"t": 0, "answer_budget": 4000}, (8192 - 100 - 4000 - 8, 4 * K, 4000)),
    ],
)
def test_defaults_give_way_without_a_word(
    context: int, settings: dict[str, object], fitted: tuple[int, int, int]
) -> None:
    config = RSAConfig(**settings, strict=True)
    budgets = fit_budgets(config, LENGTHS, context)
    assert (budgets.beta, budgets.tau, budgets.answer_budget) == fitted
    assert budgets.lowered is None


def test_a_warning_counts_a_default_as_what_it_was_lowered_to() -> None:
    message = fit_budgets(RSAConfig(beta=20_000, tau=100), LENGTHS, 8 * K).lowered
    assert message is not None
    assert message.startswith("prompt 200 + 4 x tau 100 + beta 20000 + answer 1024 tokens do not fit")
    assert message.endswith("; lowered: beta 20000 -> 6544")


@given(
    context=st.integers(600, 40_000),
    asked=st.fixed_dictionaries(
        {},
        optional={"beta": st.integers(1, 60_000), "tau": st.integers(1, 9000), "answer_budget": st.integers(1, 60_000)},
    ),
)
def test_what_was_asked_for_is_lowered_only_with_a_word(context: int, asked: dict[str, int]) -> None:
    if asked.get("tau", 0) > asked.get("beta", 16 * K) or ("beta" in asked and "tau" not in asked):
        asked["tau"] = min(asked.get("tau", 4 * K), asked.get("beta", 16 * K))
    config = RSAConfig(**asked)
    try:
        budgets = fit_budgets(config, LENGTHS, context)
    except (ProblemError, ConfigError):
        return
    assert budgets.prompt_bound + budgets.beta + budgets.answer_budget + TAG_TOKENS <= context
    kept = all(getattr(budgets, name) == value for name, value in asked.items())
    assert (budgets.lowered is None) == kept
    again = RSAConfig.model_validate_json(config.model_dump_json())
    assert fit_budgets(again, LENGTHS, context) == budgets, "a resumed run has the same budgets"


def test_a_prompt_that_alone_does_not_fit_is_an_error() -> None:
    with pytest.raises(ProblemError, match=r"4000 tokens.*4096"):
        fit_budgets(RSAConfig(), PromptLengths(4000, 4000), 4096)
    limited = RSAConfig(limits=Limits(prompt_tokens=50))
    with pytest.raises(ProblemError, match=r"100 tokens.*50"):
        fit_budgets(limited, LENGTHS, None)


def test_the_prompt_limit_shortens_tails() -> None:
    budgets = fit_budgets(RSAConfig(limits=Limits(prompt_tokens=1000)), LENGTHS, None)
    assert (budgets.tau, budgets.beta, budgets.prompt_bound) == (196, 16 * K, 1000)
    assert budgets.lowered is None, "the tails' length was a default"
    asked = fit_budgets(RSAConfig(tau=4 * K, limits=Limits(prompt_tokens=1000)), LENGTHS, None)
    assert "limits.prompt_tokens = 1000" in str(asked.lowered)
    with pytest.raises(ConfigError, match="no room"):
        fit_budgets(RSAConfig(limits=Limits(prompt_tokens=210)), LENGTHS, None)
