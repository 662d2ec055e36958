"""What a story is about: the settings of a run, a model with its faults, and what that model writes."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Any

from simulation.choices import Choices

from engine.api import GenerationRequest
from engine.byte_tokenizer import THINK_CLOSE
from engine.errors import EngineError, OutOfMemoryError
from engine.script import Script
from rsa import Problem, RSAConfig

WORDS = ("so", "then", "é", "漢字", "12", "thus", "\n", "no", "wait", "x=3")
GARBLED = 800
"""Dice from which on a model writes bytes that are no UTF-8: as a text they become more tokens than they were."""
STOPS = (
    (),
    (),
    (),
    ("consensus:.5",),
    ("consensus:1",),
    ("decided",),
    ("beta:.7",),
    ("beta:.8", "decided"),
    ("decided", "consensus:.5"),
    ("quorum:2",),
)
SLOW_S = 4.0
"""Seconds that pass at most at once."""


_CHOOSING: tuple[dict[str, Any], ...] = (
    {"select": "vote"},
    {"select": "vote"},
    {"select": "aggregate"},
    {"select": "first"},
    {"select": "pooled"},
    {"select": "vote", "stop": ("answered",)},
    {"select": "vote", "parents": "distinct"},
    {"select": "tournament", "n": 4, "answer_budget": 24},  # else answers hardly ever differ
)


@dataclass(frozen=True)
class World:
    """Everything that is the same whatever happens in a story.

    dice      seeds what the model writes: it depends on the request, prompt included, and on nothing else.
    failing   of so many candidates one fails by itself; 0: none, 1: all.
    model     what `ScriptedEngine` is told of the model.
    problems  solved at the same time on one engine.
    """

    settings: dict[str, Any]
    model: dict[str, Any]
    dice: int
    failing: int
    problems: tuple[Problem, ...]
    config: RSAConfig = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", RSAConfig(**self.settings))

    @property
    def limited(self) -> bool:
        """A limit may end a run, or a quorum have candidates answer: how far it finds those that run is a matter of who
        was quick."""
        return self.config.limits.can_end_early or self.concludes

    @property
    def concludes(self) -> bool:
        """A policy may have candidates answer early."""
        return any(policy.startswith("quorum") for policy in self.config.stop)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Policies that may end a round before it is whole."""
        return tuple(policy for policy in self.config.stop if policy.partition(":")[0] in ("decided", "beta"))

    @property
    def undecided(self) -> RSAConfig:
        """The settings without the policy that must change no answer."""
        return RSAConfig(**{**self.settings, "stop": tuple(each for each in self.config.stop if each != "decided")})

    def script(self, request: GenerationRequest) -> Script:
        """What the model writes for a request."""
        said = "\n".join(message.text for message in request.messages)
        name = f"{self.dice} {request.sampling.seed} {said}"
        dice = random.Random(hashlib.blake2b(name.encode(), digest_size=8).digest())
        error: EngineError | None = None
        if self.failing and dice.randrange(self.failing) == 0:
            error = OutOfMemoryError(f"no room for {request.id}")
        script = _written(dice, error)
        if self.dice < GARBLED or script.never_ends:
            return script
        noise = dice.choices(range(0x80, 0x100), k=dice.randrange(30))
        return replace(script, token_ids=(*noise, THINK_CLOSE, *script.answer.encode()))


def _written(dice: random.Random, error: EngineError | None) -> Script:
    """Short and long reasoning, loops, answers and none; of three answers, so that some agree."""
    words = " ".join(dice.choices(WORDS, k=dice.randrange(12)))
    answer = dice.choice((rf"\boxed{{{dice.randrange(3)}}}", rf"It is \boxed{{{dice.randrange(2)}}} é.", "Who knows?"))
    kind = dice.randrange(8)
    if kind == 0:
        return Script("ab", answer, never_ends=True, error=error, fail_after=dice.randrange(300))
    if kind == 1:
        words = " ".join(str(dice.randrange(10**6)) for _ in range(200))
        return Script(words, answer, never_ends=True, error=error, fail_after=dice.randrange(40))
    return Script(words, answer, error=error, fail_after=dice.randrange(20))


def drawn(choices: Choices) -> World:
    """The world of a story; all zeros are one candidate, one round, no limits and no faults."""
    n = 1 + choices.pick(4)
    c = 1 + choices.pick(min(n, 3))
    beta = choices.of((24, 7, 60, 24, 7, 60, 24, 700))
    settings: dict[str, Any] = {
        "n": n,
        "c": c,
        "t": choices.pick(3),
        "beta": beta,
        "tau": min(beta, choices.of((16, 5, 600))),
        "answer_budget": choices.of((24, 6)),
        "seed": choices.pick(4),
        **choices.of(_CHOOSING),
        "carry": choices.of(("reasoning", "reasoning", "answer_or_reasoning", "full")),
        "answers": choices.of(("final", "every")),
        "stop": choices.of(STOPS),
        "limits": _limits(choices),
    }
    if settings["select"] != "vote":
        settings["stop"] = tuple(policy for policy in settings["stop"] if policy != "decided")
    conclude = not choices.one_in(8)
    settings["force_answer"] = conclude and not choices.one_in(4)
    model = {
        "thinks": not choices.one_in(4),
        "conclude": conclude,
        "max_rows": choices.of((None, None, 1, 2)),
        "context_tokens": choices.of((None, None, None, 900, 600)),
    }
    problems = tuple(Problem(f"why {number}?") for number in range(1 + choices.one_in(6)))
    dice, failing = choices.pick(1000), choices.of((0, 0, 4, 2, 1))
    settings["waves"] = _waves(choices, settings["n"])
    return World(settings, model, dice=dice, failing=failing, problems=problems)


def _waves(choices: Choices, n: int) -> tuple[int, ...]:
    """Mostly all at once."""
    first = choices.of((0, 0, 0, *range(1, n)))
    return (first, n - first) if first else ()


def _limits(choices: Choices) -> dict[str, Any]:
    match choices.pick(8):
        case 4:
            return {"total_tokens": choices.of((100, 30, 300))}
        case 5:
            return {"deadline_s": choices.of((10.0, 3.0))}
        case 6:
            return {"total_tokens": choices.of((100, 30, 300)), "deadline_s": choices.of((10.0, 3.0))}
        case 7:
            return {"prompt_tokens": choices.of((500, 440))}
        case _:
            return {}
