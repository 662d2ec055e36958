"""Configuration, sizes, profiles, models: what is accepted, and what a mistake is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import COUNTABLE
from rsa.compose import model_names, model_spec, open_engine
from rsa.errors import ConfigError
from rsa.settings import resources
from rsa.settings.config import MOST_CANDIDATES, MOST_ROUNDS, Limits, RSAConfig
from rsa.settings.profiles import load_config, profile_names
from rsa.settings.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        *(("4096", 4096), ("4k", 4096), ("40K", 40960), ("1.5k", 1536), ("0.5k", 512), ("2M", 2 << 20)),
        *((" 8k ", 8192), ("1_000", 1000), (77, 77)),
    ],
)
def test_sizes(text: object, tokens: int) -> None:
    assert parse_size(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "4kk", "4 k", "-4k", "1.3", "0.3k", "1e3", "٤", "9" * 30, 4.0, None, True])
def test_bad_sizes_say_what_is_accepted(text: object) -> None:
    with pytest.raises(ValueError, match="such as 4096, 4k or 40K"):
        parse_size(text)


@pytest.mark.parametrize("name", ["n", "t", "beta", "answer_budget", "top_k", "seed"])
@given(over=st.integers(1, 10**30))
def test_no_number_is_taken_that_would_fill_the_memory(name: str, over: int) -> None:
    """Ten million candidates were begun without a word; 10**23 of them ended in an OverflowError."""
    most = {"n": MOST_CANDIDATES, "t": MOST_ROUNDS, "seed": 2**64 - 1}.get(name, COUNTABLE - 1)
    assert getattr(load_config(None, {name: most}), name) == most
    with pytest.raises(ConfigError, match=f"{name} = .*: should be less than"):
        load_config(None, {name: most + over})


def test_a_number_that_cannot_be_spelled_out() -> None:
    with pytest.raises(ConfigError, match="n = <int too large to be shown>: should be less"):
        load_config(None, {"n": 10**5000})


@pytest.mark.parametrize("limits", [5000, False, "4k", [1], 1.5])
def test_limits_are_a_table(limits: object, tmp_path: Path) -> None:
    for overrides in ({"limits": limits}, {}):
        (tmp_path / "p.toml").write_text(f"limits = {json.dumps(limits)}")
        with pytest.raises(ConfigError, match=r"limits = .*: should be a table"):
            load_config(str(tmp_path / "p.toml") if not overrides else None, overrides)


@given(tokens=st.integers(0, 10**9))
def test_a_number_is_its_own_size(tokens: int) -> None:
    assert parse_size(str(tokens)) == tokens == parse_size(tokens)


PAPER = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}


def test_defaults_are_the_recommended_profile_but_for_its_sampling() -> None:
    assert RSAConfig() == load_config()
    assert RSAConfig(**PAPER) == load_config("paper-16k")
    assert all(getattr(RSAConfig(), name) is None for name in PAPER)


# The table of the method's description: N, C, T, beta, tau.
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("paper-40k", (16, 4, 2, 40960, 4096)),
        ("paper-16k", (16, 4, 2, 16384, 4096)),
        ("paper-8k", (16, 4, 2, 8192, 4096)),
        ("markovian-8k", (16, 1, 4, 8192, 4096)),
        ("apex-high", (16, 4, 8, 16384, 4096)),
        ("apex-xhigh", (32, 4, 8, 32768, 4096)),
        ("light", (8, 4, 2, 8192, 4096)),
    ],
)
def test_profiles(name: str, numbers: tuple[int, ...]) -> None:
    config = load_config(name)
    assert (config.n, config.c, config.t, config.beta, config.tau) == numbers
    assert name in profile_names()


def test_layers_of_settings(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('n = 6\nbeta = "1k"\ntau = 64\n[limits]\ntotal_tokens = "2k"\n')
    config = load_config(str(mine), {"n": 5, "limits": {"deadline_s": 3}})
    assert (config.n, config.beta, config.tau) == (5, 1024, 64)
    assert config.limits == Limits(total_tokens=2048, deadline_s=3)
    # A model's own settings count unless a profile is asked for.
    assert load_config(None, {}, defaults={"beta": 8192}).beta == 8192
    assert load_config("light", {}, defaults={"n": 3}).n == 8


def test_what_was_asked_for_is_known_and_survives_json() -> None:
    config = load_config(None, {"n": 2}, defaults={"beta": "1k", "tau": 256})
    assert config.model_fields_set == {"n"}
    assert (config.c, config.beta) == (2, 1024)
    read = RSAConfig.model_validate_json(config.model_dump_json())
    assert (read, read.model_fields_set) == (config, {"n"})
    assert read.replace(seed=3).model_fields_set == {"n", "seed"}
    assert read.replace(seed=3).beta == 1024, "a default that is a model's own is kept"
    assert read.with_defaults(top_k=5).model_fields_set == {"n"}
    assert {"n", "c", "beta"} < load_config("light").model_fields_set
    with pytest.raises(ConfigError, match="'asked'"):
        load_config(None, {"asked": ["n"]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 0}, ["n = 0", "greater than or equal to 1"]),
        ({"c": 5, "n": 3}, ["c = 5", "n = 3"]),
        ({"tau": "8k", "beta": "4k"}, ["tau = 8192", "beta = 4096"]),
        ({"bta": 3}, ["unknown setting 'bta'", "did you mean 'beta'"]),
        ({"zzz": 3}, ["unknown setting 'zzz'"]),
        ({"beta": "4q"}, ["beta", "'4q' is no size", "40K"]),
        (
            {"select": "vot"},
            ["select = 'vot'", "did you mean 'vote'?", "vote, weighted, pooled, tournament, aggregate, first"],
        ),
        ({"select": "vote:3"}, ["select = 'vote:3'", "vote takes no number, not 1"]),
        ({"select": "weighted:0"}, ["select = 'weighted:0'", "0 is no temperature: 0.05 or more"]),
        ({"select": "tournament:1.5"}, ["select = 'tournament:1.5'", "1.5 is no number of rounds: 1 or more"]),
        ({"select": "tournament:1:2"}, ["tournament takes 1 number: rounds (None unless given), not 2"]),
        ({"parents": "confident:0"}, ["parents = 'confident:0'", "0 is no temperature: more than 0"]),
        ({"parents": "unifrom"}, ["parents = 'unifrom'", "did you mean 'uniform'?"]),
        ({"stop": "beta"}, ["stop = 'beta'", "beta takes 1 number: probability, not 0"]),
        ({"stop": "beta:half"}, ["stop = 'beta:half'", "'half' is no number"]),
        ({"stop": "beta:nan"}, ["stop = 'beta:nan'", "'nan' is no number"]),
        ({"stop": "quorum:2.5"}, ["stop = 'quorum:2.5'", "2.5 is no number of candidates"]),
        ({"stop": "decided", "select": "first"}, ["stop = decided", "select = vote, not 'first'"]),
        ({"waves": "4,4", "n": 9}, ["waves = 4,4", "8 candidates", "n = 9"]),
        ({"waves": "4,0,4", "n": 8}, ["waves.1 = 0", "greater than or equal to 1"]),
        ({"waves": "4,x", "n": 8}, ["waves = '4,x'", "should be numbers with commas between them"]),
        ({"waves": " ,"}, ["waves = ' ,'", "should be numbers with commas between them"]),
        ({"stop": ",,"}, ["stop = ',,': should be policies with commas between them"]),
        ({"waves": 8, "n": 8}, ["waves = 8: should be numbers, in a list or with commas between them"]),
        ({"stop": 3}, ["stop = 3: should be policies, in a list or with commas between them"]),
        ({"limits": {"total_tokens": 2**63}}, ["total_tokens = 9223372036854775808", "to 1000000000000000"]),
        ({"stop": "answered:2"}, ["stop = 'answered:2'", "answered takes no number, not 1"]),
        ({"stop": "consensus:0"}, ["stop = 'consensus:0'", "0 is no share: more than 0, at most 1"]),
        ({"stop": "consensus:1.5"}, ["stop = 'consensus:1.5'", "1.5 is no share"]),
        ({"limits": {"total_tokns": 1}}, ["'total_tokns'", "'total_tokens'"]),
        ({"limits": {"deadline_s": -1}}, ["deadline_s = -1"]),
        ({"temperature": float("nan")}, ["temperature"]),
    ],
)
def test_mistakes_are_named(settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RSAConfig(**settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_give_way_to_what_was_asked_for() -> None:
    """`rsa solve --n 2` must not fail because of a C that nobody mentioned."""
    config = load_config(overrides={"n": 2, "beta": "1k"})
    assert (config.n, config.c, config.beta, config.tau) == (2, 2, 1024, 1024)
    assert load_config(overrides={"beta": 100}, defaults={"beta": "1k", "tau": 256}).tau == 100
    assert (load_config(overrides={"n": 8}).c, load_config(overrides={"beta": "8k"}).tau) == (4, 4096)
    for clash in ({"n": 2, "c": 4}, {"beta": 10, "tau": 20}):
        with pytest.raises(ConfigError, match="is more than"):
            load_config(overrides=clash)
    with pytest.raises(ConfigError, match="c = 4 is more than n = 2"):
        load_config("paper-16k", {"n": 2})


def test_replace_checks_again() -> None:
    config = RSAConfig(beta=4096)
    assert config.replace(n=8).n == 8
    with pytest.raises(ConfigError, match="tau = 4096"):
        config.replace(beta=1024)
    with pytest.raises(ConfigError, match="unknown setting"):
        config.replace(nn=8)


def test_config_survives_json() -> None:
    config = RSAConfig(limits=Limits(total_tokens=5), stop="consensus:.5")
    assert RSAConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [("n = = 3", "no valid TOML"), ("nn = 3", "did you mean 'n'"), ('beta = "4x"', "is no size")],
)
def test_bad_profile_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(str(path))


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no profile is called 'papr-16k'; did you mean 'paper-16k'"):
        load_config("papr-16k")
    with pytest.raises(ConfigError, match=r"no profile file at .*nowhere\.toml"):
        load_config("nowhere.toml")
    with pytest.raises(ConfigError, match="no model is called 'nanno'; did you mean 'nano'"):
        open_engine("nanno")


def test_models() -> None:
    assert {"nano", "zaya1-8b", "zaya1-vl-8b"} <= set(model_names())
    assert model_spec("zaya1-8b").path == "Zyphra/ZAYA1-8B"
    assert model_spec("someone/model").path == "someone/model"
    for name in model_names():
        load_config(None, {}, defaults=model_spec(name).rsa)


def test_configs_are_found_in_a_wheel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "rsa"
    (package / "_configs" / "profiles").mkdir(parents=True)
    (package / "_configs" / "profiles" / "only.toml").touch()
    monkeypatch.setattr(resources, "__file__", str(package / "settings" / "resources.py"))
    assert resources.names("profiles") == ["only"]
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "a" / "b" / "settings" / "resources.py"))
    with pytest.raises(ConfigError, match="installation is incomplete"):
        resources.names("profiles")
