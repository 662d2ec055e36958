"""Budgets that fit: prompt, tails, reasoning and answer of one candidate share the model's context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from engine.api import Engine, Message
from engine.errors import ImageError
from rsa.errors import ConfigError, ProblemError, PromptError
from rsa.problem import Problem
from rsa.prompts import MATCH, PromptSet
from rsa.results import BudgetName, Budgets
from rsa.settings.config import RSAConfig

SEAM_TOKENS = 4
"""Tokens that a tail may gain at its ends when it is decoded, and encoded again inside a prompt."""
TAG_TOKENS = 8
"""Tokens kept free for think tags, the end of a turn, and line breaks around them."""
MIN_ROOM_TOKENS = 32
"""The least room for tails and reasoning together: with less the method cannot work, which is an error and no
warning."""


@dataclass(frozen=True, slots=True)
class PromptLengths:
    """Tokens of the prompts of one problem: `initial`, aggregation with C empty tails, and a match between two."""

    initial: int
    aggregate: int
    match: int = 0


def plan(engine: Engine, config: RSAConfig, problem: Problem, prompts: PromptSet) -> Budgets:
    """The budgets of a run on this engine, before anything is generated or written.

    Raises ProblemError if the model cannot read the problem at all, its tools, or one of its images, PromptError for
    matches without a template, else as `fit_budgets`.
    """
    if config.compares and not prompts.compares:
        raise PromptError(
            f"prompts {prompts.name}: template {MATCH!r} is missing, and select = {config.select} needs it; the "
            "built-in files have one"
        )
    if problem.images and (why := engine.model.lacks("images")) is not None:
        raise ProblemError(f"the problem has images, but {why}, or leave them out")
    if problem.takes_tools and (why := engine.model.lacks("tools")) is not None:
        raise ProblemError(f"the problem has tools, but {why}, or leave them out")
    count = partial(engine.tokenizer.prompt_tokens, tools=problem.tools)
    for number, image in enumerate(problem.images, 1):
        try:
            count((Message(role="user", text=problem.text, images=(image,)),))
        except ImageError as error:
            raise ProblemError(f"image {number} of the problem cannot be used: {error}") from error
    lengths = PromptLengths(
        initial=count(prompts.initial(problem)),
        aggregate=count(prompts.aggregate(problem, [""] * config.c)),
        match=count(prompts.match(problem, ["", ""], ["", ""])) if config.compares else 0,
    )
    try:
        return fit_budgets(config, lengths, engine.model.context_tokens)
    except ProblemError as error:
        if not problem.images:
            raise
        without = count([message.model_copy(update={"images": ()}) for message in prompts.initial(problem)])
        raise ProblemError(
            f"{error} (images take {lengths.initial - without} tokens: use fewer or smaller ones)"
        ) from None


def fit_budgets(config: RSAConfig, lengths: PromptLengths, context_tokens: int | None) -> Budgets:
    """Lower beta, tau and the answer budget as far as the context and `limits.prompt_tokens` demand.

    Defaults give way to what was asked for as long as that leaves an eighth of the context for reasoning and
    `MIN_ROOM_TOKENS` for a tail. Then the answer gives way first (to an eighth of the context), then the tails together
    get two thirds of what is left at most, and the reasoning the rest. What fits is not touched; None: the context is
    not known.

    Raises ProblemError if the problem alone does not fit, ConfigError if `config.strict` and something that was asked
    for had to be lowered, or if `limits.prompt_tokens` leaves no room for tails.
    """
    tails = config.most_tails
    longest = max(lengths.initial, lengths.aggregate if config.aggregates else 0, lengths.match)
    _check_prompt_limit(config, lengths, longest)
    beta, tau, answer = config.beta, _tau_within_limit(config, longest, tails), config.answer_budget
    needed = longest + tails * (tau + SEAM_TOKENS) + beta + answer + TAG_TOKENS
    exceeded = context_tokens if context_tokens is not None and needed > context_tokens else None
    if exceeded is not None:
        beta, tau, answer = _lowered(config, tau, longest, tails, exceeded)
    bound = longest + tails * (tau + SEAM_TOKENS)
    if config.limits.prompt_tokens is not None:
        bound = min(bound, config.limits.prompt_tokens)
    budgets = Budgets(
        beta=beta,
        tau=tau,
        answer_budget=answer,
        asked=_asked(config),
        initial_prompt=lengths.initial,
        prompt_bound=bound,
    )
    if not budgets.changes:
        return budgets
    lowered = _explain(config, exceeded, longest, tails, budgets)
    if config.strict:
        raise ConfigError(f"{lowered} (strict: not lowered)")
    return budgets.model_copy(update={"lowered": lowered})


def _asked(config: RSAConfig) -> dict[BudgetName, int]:
    """The budgets that somebody asked for."""
    given = config.model_fields_set
    asked: dict[BudgetName, int] = {"beta": config.beta} if "beta" in given else {}
    # Whole traces are carried by that name: their length is beta's.
    if ("beta" if config.carry == "full" else "tau") in given:
        asked["tau"] = config.tail_tokens
    if "answer_budget" in given:
        asked["answer_budget"] = config.answer_budget
    return asked


def _check_prompt_limit(config: RSAConfig, lengths: PromptLengths, longest: int) -> None:
    limit = config.limits.prompt_tokens
    if limit is None:
        return
    if lengths.initial > limit:
        raise ProblemError(
            f"the problem's prompt has {lengths.initial} tokens, limits.prompt_tokens allows {limit}: "
            "raise the limit or shorten the problem"
        )
    tails = config.most_tails
    if tails and longest + tails * (SEAM_TOKENS + 1) > limit:
        what = (
            f"an aggregation prompt of c = {config.c}" if config.aggregates else "a prompt that compares two attempts"
        )
        raise ConfigError(
            f"{what} has {longest} tokens without its tails, limits.prompt_tokens = {limit} leaves no room for them: "
            f"raise the limit{' or lower c' if config.aggregates else ''}"
        )


def _tau_within_limit(config: RSAConfig, longest: int, tails: int) -> int:
    limit = config.limits.prompt_tokens
    if limit is None or tails == 0:
        return config.tail_tokens
    return min(config.tail_tokens, (limit - longest) // tails - SEAM_TOKENS)


def _lowered(config: RSAConfig, tau: int, longest: int, tails: int, context: int) -> tuple[int, int, int]:
    # An eighth of the context is ample for an answer; tiny contexts still get a usable one.
    answer = min(config.answer_budget, max(context // 8, min(256, context // 4)))
    spared = _sparing_what_was_asked(config, (config.beta, tau, answer), longest, tails, context)
    if spared is not None:
        return spared
    room = context - longest - answer - TAG_TOKENS - tails * SEAM_TOKENS
    if room < MIN_ROOM_TOKENS:
        raise ProblemError(
            f"the problem does not fit: its prompt has {longest} tokens, and of the model's context of "
            f"{context} only {max(room, 0)} are left for reasoning beside {answer} for the answer; shorten the "
            "problem or use a model with a longer context"
        )
    if tails and tails * tau + config.beta > room:
        tau = max(1, min(tau, 2 * room // (3 * tails)))
    beta = min(config.beta, room - tails * tau)
    if beta < 1:
        lower = ": lower c" if config.aggregates else ""
        raise ConfigError(f"{tails} tails leave no room for reasoning in a context of {context} tokens{lower}")
    return beta, min(tau, beta) if tails else tau, answer


def _sparing_what_was_asked(
    config: RSAConfig, budgets: tuple[int, int, int], longest: int, tails: int, context: int
) -> tuple[int, int, int] | None:
    """Budgets that fit with only defaults lowered; None if that would leave one of them next to nothing.

    budgets  beta, tau and answer budget; the answer as low as a default may be.
    """
    asked = config.model_fields_set
    beta, tau, answer = budgets
    if "answer_budget" in asked:
        answer = config.answer_budget
    room = context - longest - answer - TAG_TOKENS - tails * SEAM_TOKENS
    tail_gives_way = "tau" not in asked and config.carry != "full"
    if tails and tail_gives_way and tails * tau + beta > room:
        share = room - beta if "beta" in asked else 2 * room // 3
        tau = min(tau, share // tails)
    if "beta" not in asked:
        beta = min(beta, room - tails * tau)
    enough = beta >= min(config.beta, context // 8) and (not tails or min(config.tau, MIN_ROOM_TOKENS) <= tau <= beta)
    return (beta, tau, answer) if enough and tails * tau + beta <= room else None


def _explain(config: RSAConfig, context: int | None, longest: int, tails: int, used: Budgets) -> str:
    # A default counts as what it was lowered to: it is not what does not fit.
    asked = f"prompt {longest}"
    if tails:
        asked += f" + {tails} x tau {used.asked.get('tau', used.tau)}"
    asked += f" + beta {used.asked.get('beta', used.beta)}"
    asked += f" + answer {used.asked.get('answer_budget', used.answer_budget)}"
    bounds = [f"the model's context of {context}"] if context is not None else []
    if config.limits.prompt_tokens is not None:
        bounds.append(f"limits.prompt_tokens = {config.limits.prompt_tokens}")
    lowered = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in used.changes.items())
    return f"{asked} tokens do not fit {' and '.join(bounds)} tokens; lowered: {lowered}"
