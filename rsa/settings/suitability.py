"""What suits a model: how its candidates are sampled, and whether rounds of aggregation help it.

Who says whether they help: its card in configs/models, what opened it (`aggregates` among `ModelInfo.details`), its
architecture, which was made and trained for the method. Of others nobody knows, and `auto`
plays rounds with them only while nobody answers.

Who decides on sampling, the first that says something: the settings that were asked for (a flag, a keyword, a profile),
`[rsa]` in configs/models, how the method's own models were trained, the model's makers (`ModelInfo.sampling`), `CHAT`.
"""

from __future__ import annotations

from typing import Any

from engine.api import ModelInfo, RecommendedSampling
from rsa.errors import ConfigError
from rsa.policies import registry
from rsa.settings.config import RSAConfig
from rsa.settings.methods import is_ruled, without_rule

CHAT = RecommendedSampling(temperature=0.7, top_p=0.95)
"""Sampling for a model whose makers say nothing: at temperature 1 and nothing cut off, small chat models write
gibberish."""
AS_TRAINED = RecommendedSampling()
"""The paper's sampling: models that were trained to aggregate were trained, and measured, on unaltered samples."""
HARMFUL = (
    "rounds of aggregation help models trained to aggregate, as nano and ZAYA1 are; they may make this one worse: "
    "--method vote goes without, --method auto plays them while nobody answers"
)
"""What people are told of rounds that may harm."""
_OF_THE_METHOD = "zaya"
"""The beginning of the architecture of the method's own models: ZAYA1, and nano, which has its architecture and its
training."""


def of_the_method(model: ModelInfo) -> bool:
    """Whether a model is of the architecture that was trained by the method's recipe."""
    return str(model.details.get("architecture") or "").startswith(_OF_THE_METHOD)


def aggregates(model: ModelInfo) -> bool | None:
    """Whether a model makes one better attempt out of several tails; None: nobody has vouched for it, nor against."""
    from rsa.compose import card_of

    card = card_of(model)
    said = model.details.get("aggregates") if card is None or card.aggregates is None else card.aggregates
    return said if isinstance(said, bool) else of_the_method(model) or None


def suited(config: RSAConfig, model: ModelInfo) -> RSAConfig:
    """`config` with sampling and confidence settled for a model, and whether `auto` has anything to decide, without
    defaults that its engine cannot do; what it says already stays.

    Raises ConfigError for a setting that was asked for and that the engine cannot do.
    """
    best = AS_TRAINED if of_the_method(model) else model.sampling or CHAT
    sampling: dict[str, Any] = best.model_dump()
    changes = {name: value for name, value in sampling.items() if getattr(config, name) is None}
    if config.force_answer and (why := model.lacks("conclude")) is not None:
        if "force_answer" in config.model_fields_set:
            raise ConfigError(f"force_answer cannot be had: {why}, or leave it out")
        changes["force_answer"] = False
    _check_confidence(config, model)
    if config.confidence is None or not model.logprobs:
        changes["confidence"] = "summary" if model.logprobs else "none"
    config = config.with_defaults(**changes) if changes else config
    return _with_rounds(config, model) if is_ruled(config) else config


def _with_rounds(config: RSAConfig, model: ModelInfo) -> RSAConfig:
    """What `auto` comes to: `rsa` for a model whose rounds help, `vote` for one whose rounds do not, else the rule."""
    helped = aggregates(model)
    if helped is None and config.t > 0:
        return config
    return without_rule(config, **({"t": 0} if helped is False else {}))


def auto_note(config: RSAConfig, model: ModelInfo) -> str | None:
    """What `auto`, asked for by name, came to with a model of which it is known whether rounds help it; `config` is
    suited. None where that is not known: the result says what was done."""
    helped = None if is_ruled(config) else aggregates(model)
    if helped is None or (helped and config.t == 0):
        return None
    known = f"rounds are known {'to help' if helped else 'not to help'} this model"
    played = f"all {config.t + 1} rounds are played" if helped else "none follows round 0"
    return f"auto: {known}, so {played}, as by --method {'rsa' if helped else 'vote'}"


def _check_confidence(config: RSAConfig, model: ModelInfo) -> None:
    why = model.lacks("logprobs")
    asked = config.confidence if "confidence" in config.model_fields_set else None
    if why is not None and asked in ("summary", "tokens"):
        raise ConfigError(f"confidence = {asked} cannot be had: {why}, or leave it out")
    select, parents = registry.select_policy(config.select), registry.parents_policy(config.parents)
    for name, needed in (("select", select.confidence), ("parents", parents.confidence)):
        policy = f"{name} = {getattr(config, name)}"
        if needed and why is not None:
            raise ConfigError(f"{policy} cannot be had: {why}, or choose another policy")
        if needed and asked == "none":
            raise ConfigError(f"{policy} goes by confidence, but confidence = none: leave one of them out")


def rounds_may_harm(config: RSAConfig, model: ModelInfo) -> bool:
    """Whether rounds of aggregation are played, and trusted, by a model for which nobody has vouched.

    Such a model may copy an attempt instead of thinking: Qwen2.5-Coder-0.5B on 40 problems of GSM8K, majority vote of
    16 candidates, had 37.5% right after round 0 and 25.8% after round 2.
    """
    return config.t > 0 and not is_ruled(config) and not aggregates(model)


def sampling_of(config: RSAConfig) -> dict[str, float]:
    """The sampling of settings that are settled, by name: the temperature, and of what cuts off that which does."""
    off = RecommendedSampling()
    values = {name: getattr(config, name) for name in RecommendedSampling.model_fields}
    return {
        name: value
        for name, value in values.items()
        if value is not None and (name == "temperature" or value != getattr(off, name))
    }
