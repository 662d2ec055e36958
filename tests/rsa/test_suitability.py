"""What suits a model: who decides on its sampling, and that the decision is written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import ModelInfo, RecommendedSampling
from engine.scripted import ScriptedEngine
from rsa import MarkovianRSA
from rsa.errors import ConfigError
from rsa.runlog import read_events, read_run
from rsa.settings.config import RSAConfig
from rsa.settings.profiles import load_config
from rsa.settings.suitability import aggregates, sampling_of, suited

pytestmark = pytest.mark.anyio
MAKERS = RecommendedSampling(temperature=0.6, top_p=0.9, top_k=20)
OURS = {"architecture": "zaya1_vl"}
Values = tuple[float | None, float | None, int | None, float | None]


def values(config: RSAConfig) -> Values:
    return config.temperature, config.top_p, config.top_k, config.min_p


@pytest.mark.parametrize(
    ("config", "model", "found"),
    [
        (RSAConfig(), ModelInfo(name="m"), (0.7, 0.95, 0, 0.0)),
        (RSAConfig(), ModelInfo(name="m", sampling=MAKERS), (0.6, 0.9, 20, 0.0)),
        (RSAConfig(), ModelInfo(name="m", sampling=MAKERS, details=OURS), (1.0, 1.0, 0, 0.0)),
        (RSAConfig(), ModelInfo(name="m", details={"architecture": "llama"}), (0.7, 0.95, 0, 0.0)),
        (RSAConfig(temperature=0.0), ModelInfo(name="m", sampling=MAKERS), (0.0, 0.9, 20, 0.0)),
        (load_config("paper-8k"), ModelInfo(name="m", sampling=MAKERS), (1.0, 1.0, 0, 0.0)),
        (load_config("paper-8k", {"top_p": 0.5}), ModelInfo(name="m", sampling=MAKERS), (1.0, 0.5, 0, 0.0)),
        (load_config("light"), ModelInfo(name="m", sampling=MAKERS), (0.6, 0.9, 20, 0.0)),
        (load_config(defaults={"top_k": 3}), ModelInfo(name="m", sampling=MAKERS), (0.6, 0.9, 3, 0.0)),
    ],
)
def test_the_first_that_says_something_decides(config: RSAConfig, model: ModelInfo, found: Values) -> None:
    settled = suited(config, model)
    assert values(settled) == found
    assert settled.model_fields_set == config.model_fields_set, "nobody asked for what was settled"
    assert suited(settled, ModelInfo(name="another")) == settled


def test_what_the_engine_cannot_do_gives_way_unless_it_was_asked_for() -> None:
    model = ModelInfo(name="far", conclude=False)
    settled = suited(RSAConfig(), model)
    assert not settled.force_answer
    assert "force_answer" not in settled.model_fields_set
    assert suited(settled, model) == settled
    says = "force_answer cannot be had: far cannot be made to answer in the midst of its reasoning"
    with pytest.raises(ConfigError, match=says):
        suited(RSAConfig(force_answer=True), model)
    assert not suited(RSAConfig(force_answer=False), model).force_answer


@pytest.mark.parametrize("asked", ["none", "summary", "tokens", None])
@pytest.mark.parametrize("able", [True, False])
def test_confidence_is_had_where_it_can_be(asked: Any, able: bool) -> None:
    model = ModelInfo(name="far", logprobs=able)
    config = RSAConfig() if asked is None else RSAConfig(confidence=asked)
    if not able and asked in ("summary", "tokens"):
        says = (
            f"confidence = {asked} cannot be had: far does not say how likely its tokens were: use .*, or leave it out"
        )
        with pytest.raises(ConfigError, match=says):
            suited(config, model)
        return
    settled = suited(config, model)
    assert settled.confidence == (asked or ("summary" if able else "none"))
    assert settled.model_fields_set == config.model_fields_set
    assert suited(settled, model) == settled
    if asked is None:
        assert suited(settled, ModelInfo(name="mute")).confidence == "none", "what nobody asked for gives way"


def test_only_models_of_our_architecture_are_known_to_aggregate() -> None:
    """Of others nobody knows, unless their card or what opened them says so."""
    for details, known in (
        (OURS, True),
        ({"architecture": "qwen2"}, None),
        ({}, None),
        ({"architecture": "qwen2", "aggregates": True}, True),
        ({**OURS, "aggregates": False}, False),
    ):
        assert aggregates(ModelInfo(name="zaya", details=details)) is known


def test_what_cuts_nothing_off_is_not_named() -> None:
    assert sampling_of(RSAConfig(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)) == {"temperature": 1.0}
    assert sampling_of(RSAConfig(temperature=0.0, top_p=0.9, top_k=7)) == {"temperature": 0.0, "top_p": 0.9, "top_k": 7}


async def test_what_was_settled_is_sent_and_written_down(tmp_path: Path) -> None:
    engine = ScriptedEngine(r"x</think>\boxed{4}", sampling=MAKERS)
    rsa = MarkovianRSA(engine, n=2, c=1, t=1, beta=64, tau=8, answer_budget=64)
    result = await rsa.solve("why?", out=tmp_path / "run")
    assert {(r.sampling.temperature, r.sampling.top_p, r.sampling.top_k) for r in engine.requests} == {(0.6, 0.9, 20)}
    record, _ = read_run(tmp_path / "run")
    started = read_events(tmp_path / "run")[0]
    assert started.type == "run_started"
    for config in (record.config, started.config, result.config):
        assert values(config) == (0.6, 0.9, 20, 0.0)
    again = await rsa.solve("why?", out=tmp_path / "run", resume=True)
    assert again == result


async def test_budgets_that_are_used_are_said_at_the_start(tmp_path: Path) -> None:
    engine = ScriptedEngine(r"x</think>\boxed{4}", context_tokens=1500)
    result = await MarkovianRSA(engine, n=2, t=1, c=2, strict=True).solve("why?", out=tmp_path / "run")
    started = read_events(tmp_path / "run")[0]
    assert started.type == "run_started"
    assert started.budgets == result.budgets
    assert started.budgets.beta < 1500 < result.config.beta
    assert result.warnings == (), "nobody asked for the defaults"


def test_the_builtin_model_is_sampled_as_it_was_trained() -> None:
    from engine.files.folder import ModelFolder
    from engine.loader import NANO

    assert ModelFolder(NANO).recommended_sampling == RecommendedSampling()
    info = ModelInfo(name="nano", details={"architecture": "zaya"}, sampling=MAKERS)
    assert values(suited(load_config(), info)) == (1.0, 1.0, 0, 0.0)


async def test_a_folder_brings_its_own(plain_model: Path, tmp_path: Path, make_llama: Callable[..., Path]) -> None:
    folder = make_llama(tmp_path / "mine", thinks=False)
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.25, "top_k": 9}')
    small: dict[str, Any] = {"n": 1, "c": 1, "t": 0, "beta": 3, "tau": 3, "answer_budget": 1, "task": "general"}
    for model, found in ((folder, (0.25, 1.0, 9, 0.0)), (plain_model, (0.7, 0.95, 0, 0.0))):
        async with MarkovianRSA(str(model), **small) as rsa:
            result = await rsa.solve("why?")
        assert values(result.config) == found
