"""The settings of a run. Every field is also a command-line flag and a key of a profile file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from engine.api import COUNTABLE
from rsa.errors import ConfigError, did_you_mean
from rsa.policies import registry
from rsa.settings.sizes import MOST_TOKENS, Tokens
from rsa.words import shown

Carry = Literal["reasoning", "answer_or_reasoning", "full"]
Answers = Literal["final", "every"]
Confidences = Literal["none", "summary", "tokens"]
MOST_CANDIDATES, MOST_ROUNDS = 2**16, 2**12
"""The largest N and T, more than anybody has run. A candidate takes kilobytes before it has written anything: a slip of
the pen would fill the memory."""
VISION_TASK = "vision"
TOOLS_TASK = "general"
ASKED = "asked"
"""The key, beside the settings in JSON, of the names of those that somebody asked for."""


def parts_of(written: str, what: str) -> tuple[str, ...]:
    """What stands in a text with commas between; an empty one has nothing. Raises ValueError for commas alone."""
    parts = tuple(part.strip() for part in written.split(",") if part.strip())
    if not parts and written.strip():
        raise ValueError(f"should be {what} with commas between them")
    return parts


def _policies(given: object) -> object:
    return _listed(given, "policies")


def _sizes(given: object) -> object:
    listed = _listed(given, "numbers")
    if isinstance(given, str):
        with suppress(ValueError):
            return tuple(map(int, listed))
        raise ValueError("should be numbers with commas between them")
    return listed


def _listed(given: object, what: str) -> Any:
    """The parts of a text with commas between them, or the list that there is already. Raises ValueError."""
    if isinstance(given, str):
        return parts_of(given, what)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"should be {what}, in a list or with commas between them")
    return given


class _Settings(BaseModel):
    """A frozen record whose every fault is a `ConfigError` in plain words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ConfigError(f"unknown setting {key!r}{did_you_mean(str(key), cls.model_fields)}")
        try:
            return handler(data)
        except ValidationError as error:
            raise ConfigError(in_plain_words(error)) from None

    def replace(self, **changes: object) -> Self:
        """A copy with some fields changed, which are asked for from then on. Checked as a whole; raises ConfigError."""
        return self._changed(changes, asked={*self.model_fields_set, *changes})

    def with_defaults(self, **values: object) -> Self:
        """A copy with some fields filled in that nobody asked for. Checked as a whole; raises ConfigError."""
        return self._changed(values, asked=self.model_fields_set)

    def asking(self, names: Iterable[str]) -> Self:
        """A copy in which the fields of these names are what somebody asked for, and no others."""
        return self._changed({}, asked=names)

    def _changed(self, changes: Mapping[str, object], *, asked: Iterable[str]) -> Self:
        made = type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})
        made.model_fields_set.intersection_update(asked)
        return made


def in_plain_words(error: ValidationError) -> str:
    """What is wrong with the values of a record, by their names, in one line."""
    return "; ".join(_sentence(detail) for detail in error.errors())


def _sentence(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
    given = shown(detail["input"])
    return f"{field}: {message}" if message.startswith(given) else f"{field} = {given}: {message}"


class Limits(_Settings):
    """Hard limits on one run; it ends in the best answer so far, never in an exception. None: no limit.

    total_tokens   generated tokens of all candidates of all rounds together, to within the tokens that are in
                   flight when it is reached (one engine step of each running candidate).
    deadline_s     seconds from the start of the run; time before a resume counts.
    prompt_tokens  the longest prompt that is ever sent; aggregation prompts shorten their tails for it.
    """

    total_tokens: Tokens | None = Field(None, ge=1, le=MOST_TOKENS)
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    prompt_tokens: Tokens | None = Field(None, ge=1, lt=COUNTABLE)

    @property
    def can_end_early(self) -> bool:
        """Whether a round before the last may turn out to be the one that answers."""
        return self.total_tokens is not None or self.deadline_s is not None


class RSAConfig(_Settings):
    """How Markovian RSA runs. The defaults are the budgets of the profile `paper-16k`.

    `model_fields_set` has the settings that somebody asked for, by name; it goes to JSON and back. Defaults give way to
    them, and where a default has to be lowered nobody is told.

    n                  N, candidates a round; at most MOST_CANDIDATES.
    c                  C, tails in an aggregation prompt; 1: each candidate goes on from its own tail.
    t                  T, aggregation rounds after round 0, at most MOST_ROUNDS; 0 is plain parallel sampling.
    beta               reasoning tokens of one candidate in one round.
    tau                tail: the last tau tokens of a reasoning trace; at most beta. Unused by carry `full`.
    answer_budget      tokens of an answer after its reasoning, not part of beta.
    temperature, top_p, top_k, min_p   sampling, as in `engine.api.SamplingParams`. None: as suits the model, which
                       `rsa.settings.suitability` knows; the records of a run hold what that came to.
    seed               of the run: every subset and every candidate's noise follow from it.
    select             the one answer: `vote` (majority of the final round, ties to the earliest candidate), `weighted`
                       (by confidence), `pooled` (majority of all rounds), `tournament` (answers compared in pairs),
                       `aggregate` (one more aggregation, at low temperature), `first`; see `rsa.policies.selecting`.
                       What several gave is written as by the one of them that ended with the fewest tokens.
    stop               when a round or the run may end before it is whole: policies, or one text with commas between
                       them; see `rsa.policies.stopping`. None of them: the plain method.
    waves              how many candidates of a round are begun together, wave after wave, each when the one before has
                       ended; together they are n. Empty: all at once. Later waves may be spared by policies of `stop`.
    parents            whose tails a candidate reads: `uniform`, as in the paper, `confident` (the surer the likelier),
                       `distinct` (different answers first); see `rsa.policies.parents`.
    carry              what a candidate hands on: `reasoning` (its tail), `answer_or_reasoning` (its answer
                       section if it finished by itself, else its tail), `full` (the whole reasoning).
    task               name of a prompts file that comes with the package, or the path of one. Unless it was set, a
                       problem with images is of the task `vision`, and another one with tools of `general`.
    force_answer       let a candidate that used up beta answer all the same, where an answer is wanted: by closing its
                       think tag, or, where the model has none, with the beginning of an answer
                       (`rsa.answers.extract.CUES`).
    confidence         what is recorded of how likely a candidate's tokens were: `none`, `summary`
                       (`Candidate.confidence`), `tokens` (that, and the numbers of every token with the completion).
                       None: `summary` where the engine can say it.
    strict             budgets that were asked for and exceed the model's context are an error instead of being lowered.
    answers            `final`: only rounds that may have to give the answer write one; `every`: all do.
    uncompared         arguments of tools that votes leave out where they compare calls: `NAME` of any tool, or
                       `TOOL.NAME` of one.
    limits             hard limits.
    """

    n: int = Field(16, ge=1, le=MOST_CANDIDATES)
    c: int = Field(4, ge=1)
    t: int = Field(2, ge=0, le=MOST_ROUNDS)
    beta: Tokens = Field(16 * 1024, ge=1, lt=COUNTABLE)
    tau: Tokens = Field(4 * 1024, ge=1)
    answer_budget: Tokens = Field(40 * 1024, ge=1, lt=COUNTABLE)
    temperature: float | None = Field(None, ge=0.0, le=10.0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0.0, le=1.0, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, lt=COUNTABLE)
    min_p: float | None = Field(None, ge=0.0, le=1.0, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**64)
    select: str = "vote"
    stop: Annotated[tuple[str, ...], BeforeValidator(_policies)] = ()
    waves: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_sizes)] = ()
    parents: str = "uniform"
    carry: Carry = "reasoning"
    task: str = Field("math", min_length=1)
    force_answer: bool = True
    confidence: Confidences | None = None
    strict: bool = False
    answers: Answers = "final"
    uncompared: tuple[str, ...] = ()
    limits: Limits = Limits()

    @model_validator(mode="wrap")
    @classmethod
    def _as_asked(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping) or ASKED not in data:
            return handler(data)
        made = handler({key: value for key, value in data.items() if key != ASKED})
        asked = data[ASKED]
        if not isinstance(asked, list | tuple) or not all(isinstance(name, str) for name in asked):
            raise ConfigError(f"{ASKED} = {shown(asked)}: should be a list of names of settings")
        made.model_fields_set.intersection_update(asked)
        return made

    @model_serializer(mode="wrap")
    def _and_what_was_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**handler(self), ASKED: sorted(self.model_fields_set)}

    @model_validator(mode="after")
    def _values_agree(self) -> Self:
        registry.select_policy(self.select)
        registry.parents_policy(self.parents)
        if self.c > self.n:
            raise ConfigError(
                f"c = {shown(self.c)} is more than n = {self.n}: a round of {self.n} cannot give {shown(self.c)} "
                "different tails; lower c or raise n"
            )
        if self.waves and sum(self.waves) != self.n:
            raise ConfigError(
                f"waves = {','.join(map(str, self.waves))} are {sum(self.waves)} candidates, not n = {self.n}: "
                "change one of them"
            )
        if self.tau > self.beta:
            raise ConfigError(
                f"tau = {shown(self.tau)} is more than beta = {self.beta}: a tail cannot be longer than its reasoning"
            )
        for spec in self.stop:
            if registry.stop_policy(spec).votes_only and self.select != "vote":
                raise ConfigError(
                    f"stop = {spec} is for select = vote, not {shown(self.select)}: leave one of them out"
                )
        return self

    def for_problem(self, *, images: bool, tools: bool) -> Self:
        """These settings for a problem with images or with tools: unless a task was asked for, it is `vision` or else
        `general`, for a prompt that wants a boxed answer wants no call."""
        if "task" in self.model_fields_set or not (images or tools):
            return self
        return self.replace(task=VISION_TASK if images else TOOLS_TASK)

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """A copy with these settings, limits of a mapping changed one by one. Checked as a whole; raises
        ConfigError."""
        limits = settings.get("limits")
        merged = {"limits": self.limits.replace(**limits)} if isinstance(limits, Mapping) else {}
        return self.replace(**{**settings, **merged})

    def differences(self, other: RSAConfig) -> dict[str, str]:
        """Settings that differ, by name, with both values for people; limits one by one, called by their own names."""
        pairs = [(key, getattr(self, key), getattr(other, key)) for key in RSAConfig.model_fields if key != "limits"]
        pairs += [(key, getattr(self.limits, key), getattr(other.limits, key)) for key in Limits.model_fields]
        return {key: f"{key} is {was}, not {now}" for key, was, now in pairs if was != now}

    def values(self) -> dict[str, Any]:
        """All settings by name, as plain data; whether somebody asked for them is left out."""
        return {name: value for name, value in self.model_dump().items() if name != ASKED}

    @property
    def tail_tokens(self) -> int:
        """How many tokens of its reasoning a candidate hands on at most."""
        return self.beta if self.carry == "full" else self.tau

    @property
    def aggregates(self) -> bool:
        """Whether any candidate reads C tails: in rounds after round 0, or in the last aggregation, which there may be
        without such rounds."""
        return self.t > 0 or registry.select_policy(self.select).aggregates

    @property
    def wave_ranges(self) -> tuple[range, ...]:
        """Indices of the candidates of a round that are begun together."""
        ends = list(accumulate(self.waves or (self.n,)))
        return tuple(range(end - size, end) for end, size in zip(ends, self.waves or (self.n,), strict=True))

    def ends_with(self, number: int) -> bool:
        """Whether a round is the last that is planned: no other one reads it."""
        return number == self.t and not registry.select_policy(self.select).goes_on

    @property
    def compares(self) -> bool:
        """Whether matches are played, of two tails each."""
        return registry.select_policy(self.select).compares

    @property
    def most_tails(self) -> int:
        """How many tails a prompt holds at most."""
        return max(self.c if self.aggregates else 0, 2 if self.compares else 0)

    def wants_answers(self, number: int) -> bool:
        """Whether the candidates of a round are to write answers."""
        return number >= self.t or self.answers_every_round

    @property
    def answers_every_round(self) -> bool:
        """Whether rounds before the last write answers too."""
        return (
            self.answers == "every"
            or self.limits.can_end_early
            or any(registry.stop_policy(spec).every_round for spec in self.stop)
            or registry.select_policy(self.select).every_round
            or registry.parents_policy(self.parents).answers
        )
