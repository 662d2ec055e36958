"""What policies of `stop` decide, as it is recorded: of those that are asked, in the order of the settings, the first
that has something to say. A live run and a replay both ask here."""

from __future__ import annotations

from collections.abc import Sequence

from rsa.policies import registry
from rsa.policies.stopping import Standing, Stop
from rsa.results import Decision, Round, Vote

ANSWERS_AFTER = 64
"""Tokens between a level and the place at which candidates are made to answer, at least: rows of a batch are a few
steps apart when the level is settled, and none of them has passed the place by then."""


def within(policies: Sequence[str], number: int, wave: range, standing: Standing) -> Decision | None:
    """What is decided in a round that stands so, while this wave is at work; None: it goes on."""
    for policy in policies:
        stop = registry.stop_policy(policy).within(standing)
        if stop is not None:
            place = {"at": _takes_effect(stop, standing.at), "wave": (wave.start, wave.stop)}
            return _decision(number, policy, stop, standing.votes).model_copy(update=place)
    return None


def after(policies: Sequence[str], rounds: Sequence[Round]) -> Decision | None:
    """Whether the run ends with the last of these rounds, which another one would follow; None: it goes on."""
    for policy in policies:
        stop = registry.stop_policy(policy).after(rounds)
        if stop is not None:
            return _decision(rounds[-1].round, policy, stop, rounds[-1].votes)
    return None


def _takes_effect(stop: Stop, level: int) -> int:
    """The tokens at which what is decided at a level takes effect."""
    return level if stop.action == "cut" else -(-level // ANSWERS_AFTER) * ANSWERS_AFTER + ANSWERS_AFTER


def _decision(number: int, policy: str, stop: Stop, votes: Sequence[Vote]) -> Decision:
    leader = votes[0] if votes else None
    return Decision(round=number, policy=policy, action=stop.action, numbers=dict(stop.numbers), vote=leader)
