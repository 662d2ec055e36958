"""What happens in a run, as it happens: the same objects in the run log, the display and the streams of programs.

A run is RunStarted, [BudgetsLowered, Warned...], then for each round RoundStarted, CandidateStarted,
CandidateProgress and CandidateFinished of its candidates in any order, RoundFinished; LimitHit and PolicyDecided
where they happen; at last RunFinished. A resumed run goes through its rounds again: of candidates in its log it says
only that they finished, and no event is logged twice. Of a run that had finished there is no more than the first events
and the last.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, TypeAdapter

from engine.api import ModelInfo, Section, Usage
from rsa.results import Budgets, Candidate, Decision, LimitName, Record, RoundKind, RunResult, Status, Vote
from rsa.settings.config import RSAConfig

EventKey = tuple[str | int, ...]
"""What makes two events the same event of a run: the type first; then, of a round, its kind and number."""


class _Event(Record):
    """`at_s`: seconds since the run started."""

    type: str
    at_s: FiniteFloat = 0.0

    @property
    def key(self) -> EventKey:
        """The event's identity within its run: of two events with one key, a resumed run logs the first alone."""
        return (self.type,)


class _RoundEvent(_Event):
    """An event of a round; `kind` as of `rsa.results.Round`."""

    round: int
    kind: RoundKind = "population"

    @property
    def key(self) -> EventKey:
        return (self.type, self.kind, self.round)


class _CandidateEvent(_RoundEvent):
    """An event of the candidate `index` of a round."""

    index: int

    @property
    def key(self) -> EventKey:
        return (self.type, self.kind, self.round, self.index)


class _Message(_Event):
    """An event that is all said in words."""

    message: str

    @property
    def key(self) -> EventKey:
        return (self.type, self.message)


class RunStarted(_Event):
    """`task` and `prompt_sha256` name the prompts file; `resumed`: it goes on from a run folder."""

    type: Literal["run_started"] = "run_started"
    problem_id: str
    config: RSAConfig
    budgets: Budgets
    model: ModelInfo
    task: str
    prompt_sha256: str
    resumed: bool = False


class BudgetsLowered(_Message):
    """Budgets that were asked for exceed the model's context or `limits.prompt_tokens`: lower ones are used instead,
    those of RunStarted."""

    type: Literal["budgets_lowered"] = "budgets_lowered"


class Warned(_Message):
    """Something a person should know; the run goes on."""

    type: Literal["warned"] = "warned"


class RoundStarted(_RoundEvent):
    """`subsets[i]`: parents of candidate i, in prompt order; empty in round 0."""

    type: Literal["round_started"] = "round_started"
    subsets: tuple[tuple[int, ...], ...]


class CandidateStarted(_CandidateEvent):
    """A request was handed to the engine; `prompt_tokens` is the length of its prompt."""

    type: Literal["candidate_started"] = "candidate_started"
    parents: tuple[int, ...]
    seed: int
    prompt_tokens: int


class CandidateProgress(_CandidateEvent):
    """Sent now and then, never logged. `text`: the newest words of the section being written."""

    type: Literal["candidate_progress"] = "candidate_progress"
    tokens: int
    section: Section
    text: str


class CandidateFinished(_Event):
    """`candidate` is complete: completion, tail and answer."""

    type: Literal["candidate_finished"] = "candidate_finished"
    kind: RoundKind = "population"
    candidate: Candidate

    @property
    def key(self) -> EventKey:
        return (self.type, self.kind, self.candidate.round, self.candidate.index)


class RoundFinished(_RoundEvent):
    """All candidates of the round ended; `statuses` counts how. They were in the CandidateFinished before.

    asked  whether answers were wanted of them; without any, `votes` are empty as a matter of course.
    """

    type: Literal["round_finished"] = "round_finished"
    statuses: dict[Status, int]
    asked: bool = True
    votes: tuple[Vote, ...]
    usage: Usage


class LimitHit(_Event):
    """A limit ends the run: `conclude` asks running candidates for their answers, `cancel` cuts them off."""

    type: Literal["limit_hit"] = "limit_hit"
    limit: LimitName
    round: int
    action: Literal["conclude", "cancel", "no_new_round"]
    used: float
    allowed: float

    @property
    def key(self) -> EventKey:
        return (self.type, self.limit, self.round, self.action)


class PolicyDecided(_Event):
    """A policy of `stop` ends a round or the run here."""

    type: Literal["policy_decided"] = "policy_decided"
    decision: Decision

    @property
    def key(self) -> EventKey:
        return (self.type, self.decision.round, self.decision.action)


class RunFinished(_Event):
    """The last event."""

    type: Literal["run_finished"] = "run_finished"
    result: RunResult


Event = Annotated[
    RunStarted
    | BudgetsLowered
    | Warned
    | RoundStarted
    | CandidateStarted
    | CandidateProgress
    | CandidateFinished
    | RoundFinished
    | LimitHit
    | PolicyDecided
    | RunFinished,
    Field(discriminator="type"),
]


@cache
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(Event)


def event_to_json(event: Event) -> str:
    """One line of JSON, without the line break."""
    return event.model_dump_json()


def event_from_json(line: str | bytes) -> Event:
    """The event of one line of JSON. Raises pydantic.ValidationError if it is none."""
    return _adapter().validate_json(line)
