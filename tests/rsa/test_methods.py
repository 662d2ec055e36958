"""Methods as settings: each is what its name says, whatever else is asked for."""

from typing import Any

import pytest

from engine.scripted import ScriptedEngine
from evals.headline import headline_of
from rsa import MarkovianRSA
from rsa.errors import ConfigError
from rsa.settings.config import RSAConfig
from rsa.settings.methods import method_settings


@pytest.mark.parametrize(
    ("method", "t", "c", "carry"),
    [
        ("single", 0, 1, "reasoning"),
        ("vote", 0, 1, "reasoning"),
        ("rsa", 2, 4, "reasoning"),
        ("markovian", 2, 1, "reasoning"),
        ("full-rsa", 2, 4, "full"),
    ],
)
def test_what_each_method_is(method: str, t: int, c: int, carry: str) -> None:
    config = RSAConfig(**method_settings(method, {"n": 8}, measured=True))
    assert (config.n, config.t, config.c, config.carry) == (8, t, c, carry)
    assert config.answers == "every"
    config = RSAConfig(**method_settings(method, {}))
    assert (config.n, config.t, config.c, config.carry) == (1 if method == "single" else 16, t, c, carry)
    assert config.answers == "final"


def test_whole_traces_are_as_long_as_beta() -> None:
    assert RSAConfig(**method_settings("full-rsa", {"beta": 900, "tau": 100})).tail_tokens == 900


def test_a_single_rollout_needs_no_other_setting() -> None:
    assert RSAConfig(**method_settings("single", {"n": 1})).n == 1
    assert RSAConfig(**method_settings("single", {"n": 1}, measured=True)).n == 1


def test_a_program_names_a_method() -> None:
    rsa = MarkovianRSA(ScriptedEngine("x"), method="vote", n=3)
    assert (rsa.config.n, rsa.config.t, rsa.config.c) == (3, 0, 1)
    again = MarkovianRSA(ScriptedEngine("x"), config=RSAConfig(n=5), method="markovian")
    assert (again.config.n, again.config.t, again.config.c) == (5, 2, 1)
    with pytest.raises(ConfigError, match="t = 1 contradicts method = vote"):
        MarkovianRSA(ScriptedEngine("x"), method="vote", t=1)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("single", {"t": 2}, "t = 2 contradicts method = single"),
        ("single", {"n": 2}, "n = 2 contradicts"),
        ("markovian", {"c": 4}, "c = 4 contradicts"),
        ("votes", {}, "did you mean 'vote'"),
    ],
)
def test_contradictions_are_named(method: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        method_settings(method, settings)


def test_the_headline_of_a_vote_is_the_vote() -> None:
    assert headline_of("vote") == "vote"
    assert headline_of("rsa") == "candidates"
