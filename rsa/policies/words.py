"""What policies decided, in words for people."""

from __future__ import annotations

from rsa.answers.checking import mark_of
from rsa.policies import registry, selecting
from rsa.results import Decision, RunResult, Vote
from rsa.settings.methods import is_ruled
from rsa.words import plural, shortened

_SHOWN_CHARACTERS = 80


def in_words(decision: Decision) -> str:
    """A decision in a line: what ends, by which policy, and the numbers that say why."""
    numbers = ", ".join(f"{name} {_short(value)}" for name, value in decision.numbers.items())
    why = f"{decision.policy}{f' ({numbers})' if numbers else ''}"
    if decision.action == "end":
        return f"the run ends after round {decision.round} by {why}{_led_by(decision.vote)}"
    what = "cuts off" if decision.action == "cut" else "asks for the answers of"
    return f"{why} {what} the candidates of round {decision.round} that still write, at {decision.at:,} tokens"


def chosen(result: RunResult) -> str:
    """How the answer was chosen, where the votes of its round do not say it; else the empty text."""
    if is_ruled(result.config):
        return _ruled(result)
    played = selecting.up_to_answers(selecting.Played.of(result))
    if played is None or (result.selection is not None and result.selection.votes):
        return ""
    why = registry.select_policy(result.config.select).why(played)
    return f"chosen by {result.config.select}: {why}" if why else ""


def _ruled(result: RunResult) -> str:
    """What `auto` did, and why."""
    number = result.answered_from_round
    if number is None or result.config.t == 0:
        return ""
    if number > 0:
        return f"auto: nobody answered before round {number}: the answer is the vote of round {number}"
    answered = (
        f"{sum(vote.count for vote in result.votes)} of {plural(result.config.n, 'candidate')} of round 0 answered"
    )
    return f"auto: {answered}, so no round followed: the answer is their vote"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _led_by(vote: Vote | None) -> str:
    if vote is None:
        return ""
    mark = mark_of(vote.check)
    answer = shortened(" ".join(vote.answer.split()), _SHOWN_CHARACTERS)
    return f": {vote.count} of {vote.of} agree on {answer}{f' ({mark})' if mark else ''}"
