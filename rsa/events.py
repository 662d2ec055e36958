"""What happens in a run, as it happens: the same objects in the run log, the display and the streams of programs.

A run is RunStarted, [BudgetsLowered, Warned...], then for each round RoundStarted, CandidateStarted,
CandidateProgress and CandidateFinished of its candidates in any order, RoundFinished; LimitHit and Consensus
where they happen; at last RunFinished. A resumed run repeats the events in its log, progress excepted.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.api import ModelInfo, Section, Usage
from rsa.results import Candidate, LimitName, Record, RoundKind, RunResult, Status, Vote
from rsa.settings.config import RSAConfig


class _Event(Record):
    """`at_s`: seconds since the run started."""

    at_s: float = 0.0


class RunStarted(_Event):
    """`task` and `prompt_sha256` name the prompts file; `resumed`: it goes on from a run folder.

    beta, tau, answer_budget   what fits the model's context, and is used; see `rsa.budgets.Budgets`.
    """

    type: Literal["run_started"] = "run_started"
    problem_id: str
    config: RSAConfig
    beta: int
    tau: int
    answer_budget: int
    model: ModelInfo
    task: str
    prompt_sha256: str
    resumed: bool = False


class BudgetsLowered(_Event):
    """Budgets that were asked for exceed the model's context or `limits.prompt_tokens`; these are used instead."""

    type: Literal["budgets_lowered"] = "budgets_lowered"
    message: str
    context_tokens: int | None
    prompt_tokens: int
    asked_beta: int
    asked_tau: int
    asked_answer_budget: int
    beta: int
    tau: int
    answer_budget: int


class Warned(_Event):
    """Something a person should know; the run goes on."""

    type: Literal["warned"] = "warned"
    message: str


class RoundStarted(_Event):
    """`subsets[i]`: parents of candidate i, in prompt order; empty in round 0."""

    type: Literal["round_started"] = "round_started"
    round: int
    kind: RoundKind = "population"
    subsets: tuple[tuple[int, ...], ...]


class CandidateStarted(_Event):
    """A request was handed to the engine; `prompt_tokens` is the length of its prompt."""

    type: Literal["candidate_started"] = "candidate_started"
    round: int
    index: int
    kind: RoundKind = "population"
    parents: tuple[int, ...]
    seed: int
    prompt_tokens: int


class CandidateProgress(_Event):
    """Sent now and then, never logged. `text`: the newest words of the section being written."""

    type: Literal["candidate_progress"] = "candidate_progress"
    round: int
    index: int
    kind: RoundKind = "population"
    tokens: int
    section: Section
    text: str


class CandidateFinished(_Event):
    """`candidate` is complete: completion, tail and answer."""

    type: Literal["candidate_finished"] = "candidate_finished"
    kind: RoundKind = "population"
    candidate: Candidate


class RoundFinished(_Event):
    """All candidates of the round ended; `statuses` counts how. They were in the CandidateFinished before.

    asked  whether answers were wanted of them; without any, `votes` are empty as a matter of course.
    """

    type: Literal["round_finished"] = "round_finished"
    round: int
    kind: RoundKind = "population"
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


class Consensus(_Event):
    """At least `stop_on_consensus` of a round's candidates agree: the run ends here."""

    type: Literal["consensus"] = "consensus"
    round: int
    vote: Vote


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
    | Consensus
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
