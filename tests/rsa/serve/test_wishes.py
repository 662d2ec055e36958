"""What requests wish for: names and efforts lead to settings, and two that contradict each other to neither."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import ModelInfo, RecommendedSampling
from rsa import load_config, profile_names
from rsa.serve import aliases
from rsa.serve.errors import ApiError
from rsa.serve.models import Served
from rsa.serve.settings import ServedModel
from rsa.serve.wishes import MOST, PROFILES, REASONING_TOKENS, Effort, Wishes, routed, run_config, samplings
from rsa.settings.methods import load_method

SERVED = Served([ServedModel(name="nano", opens="nano"), ServedModel(name="other", opens="openai:x")])
MODEL = ModelInfo(name="m", sampling=RecommendedSampling(temperature=0.6, top_k=20))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(0, 100),
    "min_p": st.floats(0, 1),
    "seed": st.integers(0, 2**64 - 1),
}


def config_of(wishes: Wishes, name: str = "nano:rsa") -> dict[str, Any]:
    return run_config(wishes, SERVED.route(name), SERVED).values()


@given(st.fixed_dictionaries({}, optional=FIELDS), st.sampled_from(["nano", "other"]))
def test_fields_are_settings_by_another_way(fields: dict[str, Any], model: str) -> None:
    seed = {"seed": 3, **fields}
    said = config_of(Wishes(**seed), f"{model}:rsa")
    assert said == config_of(Wishes(rsa=seed), f"{model}:rsa") == config_of(Wishes(**seed, rsa=seed), f"{model}:rsa")
    assert said == load_method(None, None, seed, defaults=SERVED.settings_of(model)).values()


@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_two_wishes_that_differ_are_refused_with_both_values(data: st.DataObject, name: str) -> None:
    one, other = data.draw(FIELDS[name]), data.draw(FIELDS[name])
    if one == other:
        assert config_of(Wishes(**{name: one}, rsa={name: other, "seed": one if name == "seed" else 0}))
        return
    with pytest.raises(ApiError) as refused:
        run_config(Wishes(**{name: one}, rsa={name: other}), SERVED.route("nano:rsa"), SERVED)
    assert str(refused.value) == f"{name} = {one} contradicts rsa.{name} = {other}: leave one out"
    assert refused.value.param == name


@pytest.mark.parametrize("profile", profile_names())
def test_a_profile_has_three_names(profile: str) -> None:
    by_model = config_of(Wishes(seed=1), f"nano:rsa-{profile}")
    assert by_model == load_config(profile, {"seed": 1}).values()
    assert by_model == config_of(Wishes(seed=1, rsa={"profile": profile}))
    for effort in [effort for effort, named in PROFILES.items() if named == profile]:
        assert by_model == config_of(Wishes(seed=1, effort=effort))


@pytest.mark.parametrize("name", sorted(MOST))
@given(over=st.integers(1, 10**18))
def test_no_client_makes_a_run_that_the_server_cannot_hold(name: str, over: int) -> None:
    """One request for 10**9 candidates had the system kill the server."""
    assert config_of(Wishes(rsa={name: MOST[name]}))[name] == MOST[name]
    with pytest.raises(ApiError, match=f"rsa.{name} = .* is more than {MOST[name]}") as refused:
        config_of(Wishes(rsa={name: MOST[name] + over}))
    assert (refused.value.status, refused.value.param) == (400, f"rsa.{name}")


def test_every_effort_means_something() -> None:
    efforts = {*get_args(Effort)} - {"none"}
    assert efforts == {*PROFILES} == {*REASONING_TOKENS}
    assert {*PROFILES.values()} <= {*profile_names()}


def test_names_of_the_proxy() -> None:
    asked = {"rsa_n": 8, "rsa_k": 3, "rsa_t": 1, "tail_window_len": 64, "short_resp_len": 512, "rsa_final_n": 1}
    config = config_of(Wishes(seed=1, aliases=aliases.settings_of({**asked, "rsa_debug": True, "use_pacore": None})))
    ours = {"n": 8, "c": 3, "t": 1, "tau": 64, "beta": 512, "select": "aggregate"}
    assert config == config_of(Wishes(seed=1, rsa=ours))
    for name, (value, carry) in aliases.CARRIES.items():
        assert aliases.settings_of({name: value}) == {name: ("carry", carry)}
        assert aliases.settings_of({name: not value}) == {}


def test_who_wishes_for_settings_of_a_run_gets_one() -> None:
    plain, run = SERVED.route("nano"), SERVED.route("nano:rsa")
    assert routed(plain, Wishes(seed=1, temperature=0.5)) == plain
    for wishes in (Wishes(pro=True), Wishes(rsa={"n": 4}), Wishes(aliases={"rsa_n": ("n", 4)})):
        assert routed(plain, wishes).rsa
        assert routed(run, wishes) == run


def test_seeds_are_drawn_where_none_is_asked_for() -> None:
    assert config_of(Wishes())["seed"] != config_of(Wishes())["seed"]
    one, other = samplings(Wishes(choices=2), MODEL)
    assert one.seed != other.seed
    assert samplings(Wishes(seed=5), MODEL) == samplings(Wishes(seed=5), MODEL)


def test_a_completion_is_sampled_as_the_makers_say() -> None:
    (drawn,) = samplings(Wishes(seed=2**64 - 1, top_p=0.5, max_tokens=9, stop=("x",), effort="low"), MODEL)
    assert (drawn.temperature, drawn.top_k, drawn.top_p) == (0.6, 20, 0.5)
    assert (drawn.max_tokens, drawn.stop, drawn.reasoning_budget) == (9, ("x",), 4096)
    assert [each.seed for each in samplings(Wishes(seed=2**64 - 1, choices=2), MODEL)] == [2**64 - 1, 0]
