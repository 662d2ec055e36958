"""What a run produces: candidates, rounds, and the result. Frozen records that go to JSON and back unchanged.

All `*_s` times are seconds since the run started (a resumed run goes on counting where the log stopped).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

from engine.api import Completion, Interruption, ModelInfo, SamplingParams, ToolCall, Usage
from rsa.settings.config import RSAConfig

Status = Literal["ok", "degenerate", "failed", "cancelled", "cut"]
"""How a candidate ended.

ok          it ran its course, whether it finished or used up a budget
degenerate  it was cut off because it kept repeating itself: no answer, and a parent only if nobody is well
failed      the engine failed on it: no answer, never a parent
cancelled   a limit of the run cut it off; a complete answer it had written by then counts
cut         a policy of `stop` ended its round while it ran: no answer, a parent like those that ran their course. Its
            completion has the tokens at which that was decided; those that came before the engine obeyed are left out.
            Without a completion: before it began
"""
RoundKind = Literal["population", "selection", "match"]
"""A round of candidates, the one more aggregation of `select="aggregate"`, or a round of a tournament's matches."""
BudgetName = Literal["beta", "tau", "answer_budget"]
LimitName = Literal["total_tokens", "deadline_s", "set_tokens", "set_deadline_s"]
"""Limits of the run, and of a set of runs that share them (`rsa.limits.Leave`)."""
StopReason = Literal[
    "finished", "policy", "total_tokens", "deadline_s", "set_tokens", "set_deadline_s", "no_candidates"
]


class Record(BaseModel):
    """Base of the records of this package: frozen, and no field that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Budgets(Record):
    """What a run really uses, so that prompt, tails, reasoning and answer fit the model's context.

    tau             longest tail in tokens (for carry `full`: longest reasoning handed on).
    asked           the budgets that somebody asked for, as they were asked for; defaults are not among them.
    initial_prompt  length of the prompt of round 0.
    prompt_bound    no prompt of the run is longer, whatever the round.
    lowered         why something that was asked for was lowered, with the numbers; None if nothing was. A default that
                    does not fit is no contradiction of anybody's: it gives way without a word.
    """

    beta: int
    tau: int
    answer_budget: int
    asked: dict[BudgetName, int] = Field(default_factory=dict)
    initial_prompt: int
    prompt_bound: int
    lowered: str | None = None

    @property
    def changes(self) -> dict[BudgetName, tuple[int, int]]:
        """What was lowered of what was asked for: what it was and what is used."""
        used: dict[BudgetName, int] = {"beta": self.beta, "tau": self.tau, "answer_budget": self.answer_budget}
        return {name: (was, used[name]) for name, was in self.asked.items() if was != used[name]}


class Tail(Record):
    """The part of a candidate that the next round sees: token ids and the text they decode to.

    approximate  its tokens are an estimate, so that it is about as long as tau: see `Completion.approximate`.
    """

    ids: tuple[int, ...] = Field(repr=False)
    text: str
    approximate: bool = False


class Check(Record):
    """What a model's own checker says of an answer: a label for people.

    It is no gold answer: nothing in a run (votes, parents, the choice of the answer) looks at it.

    mark    `unchecked`: the checker cannot tell, which is no word for the answer and none against it.
    reason  in words; what is wrong, where it is wrong.
    """

    mark: Literal["verified", "wrong", "unchecked"]
    reason: str = ""


class Confidence(Record):
    """How likely a candidate's own tokens were to the model that drew them: mean log-probabilities in nats, of its own
    distribution, so that 0 is certain.

    mean     of all drawn tokens; forced ones are none.
    tail     of the last `rsa.confidence.WINDOW` drawn tokens of the reasoning, or of all tokens if there is none.
    lowest   the lowest of any `WINDOW` drawn tokens in a row; of all, if there are fewer.
    entropy  mean entropy of what the tokens were drawn from; None where an engine does not say.
    tokens   how many were drawn, and all this is of.
    """

    mean: FiniteFloat
    tail: FiniteFloat
    lowest: FiniteFloat
    entropy: FiniteFloat | None = None
    tokens: int


class Candidate(Record):
    """One rollout.

    parents     indices in the previous round whose tails its prompt held, in prompt order; empty in round 0. Of a
                match, those that it compares, of the last round of candidates.
    prompt_sha256, sampling   of the request that the engine was given; see `rsa.prompts.prompt_sha256`.
    completion  None if it failed, if it was not begun, or if the engine did not end it in time after a limit.
    answer      as extracted from the answer section; None if there is none or none was asked for. Of a candidate that
                calls tools, its calls in words; of a match, the answer that it prefers.
    calls       of tools, with which it ends.
    check       of the answer; None without one, and for a model that has no checker (see `rsa.answers.checking`).
    confidence  None if it was not asked for, or if nobody says how likely the tokens were. It is no part of what is the
                same in every run of the same settings: sums in other batches differ in their last digits.
    error       the engine's message, if it failed; `interruptions`: what it had come over before (those of the others
                are in their completion).
    """

    round: int
    index: int
    parents: tuple[int, ...] = ()
    seed: int
    status: Status
    completion: Completion | None = None
    tail: Tail | None = None
    answer: str | None = None
    calls: tuple[ToolCall, ...] = ()
    check: Check | None = None
    confidence: Confidence | None = None
    error: str | None = None
    interruptions: tuple[Interruption, ...] = ()
    prompt_sha256: str = ""
    sampling: SamplingParams | None = None
    started_s: FiniteFloat = 0.0
    finished_s: FiniteFloat = 0.0

    @property
    def asked(self) -> bool:
        """Whether an answer was wanted of it; those of rounds that only hand on tails have no budget for one."""
        return self.sampling is None or self.sampling.answer_budget != 0

    def misfit(self, n: int) -> str | None:
        """Why it cannot be one of `n` candidates of a round, whatever it says; None if it can."""
        begun = self.status in ("ok", "degenerate") or (self.status == "cut" and self.completion is not None)
        if begun and (self.completion is None or self.tail is None):
            return f"candidate {self.index} of round {self.round} ended without a completion or a tail"
        if not all(0 <= index < n for index in (self.index, *self.parents)):
            return f"candidate {self.index} of round {self.round} names candidates that there are none"
        return None


class Vote(Record):
    """Candidates of one round that gave equivalent answers.

    answer      as it wrote who stands for them: the one that ended with the fewest tokens (`rsa.policies.ends`);
                `calls`: where that is calls of tools.
    candidates  their indices, ascending.
    of          candidates of the round, with or without an answer.
    check       of `answer` as it is written here; what others wrote for the same value has a check of its own.
    """

    answer: str
    calls: tuple[ToolCall, ...] = ()
    candidates: tuple[int, ...]
    of: PositiveInt
    check: Check | None = None

    @property
    def count(self) -> int:
        return len(self.candidates)

    @property
    def share(self) -> float:
        """The part of the round's candidates that agree."""
        return self.count / self.of


class PooledVote(Record):
    """Candidates of all rounds that gave equivalent answers, for a policy that pools.

    answer   as it wrote who stands for those of their latest round; `calls`: where that is calls of tools.
    members  round and index of each, ascending.
    of       candidates of the rounds that wrote answers.
    """

    answer: str
    calls: tuple[ToolCall, ...] = ()
    members: tuple[tuple[int, int], ...]
    of: PositiveInt

    @property
    def count(self) -> int:
        return len(self.members)

    @property
    def latest(self) -> tuple[int, tuple[int, ...]]:
        """Their latest round, and the indices of those of it, ascending."""
        last = self.members[-1][0]
        return last, tuple(index for number, index in self.members if number == last)


class Decision(Record):
    """What a policy of `stop` decided: `rsa.policies.stopping`.

    policy   as the settings have it.
    action   `cut`: the candidates that ran were ended where they were; `conclude`: they were made to answer; `end`: the
             run ended after this round.
    at       tokens that candidates had written: those with no more had ended. None for `end`.
    numbers  why, by name.
    vote     the leader then; None if there was none.
    wave     who was at work: the candidates from the first of these indices to before the second. Those before had
             ended, those after had not begun. None for `end`.
    """

    round: int
    policy: str
    action: Literal["cut", "conclude", "end"]
    at: int | None = None
    numbers: dict[str, FiniteFloat] = Field(default_factory=dict)
    vote: Vote | None = None
    wave: tuple[int, int] | None = None


class Round(Record):
    """A round that ended. `candidates` by index; `votes` by count, ties to the earliest candidate."""

    round: int
    kind: RoundKind = "population"
    candidates: tuple[Candidate, ...]
    votes: tuple[Vote, ...] = ()
    started_s: FiniteFloat = 0.0
    finished_s: FiniteFloat = 0.0

    @property
    def usage(self) -> Usage:
        """Tokens of all its candidates together."""
        return sum((c.completion.usage for c in self.candidates if c.completion), Usage())

    @property
    def parents(self) -> tuple[int, ...]:
        """Who may hand on a tail: candidates that ran their course or were cut after they had begun, or degenerate ones
        if there are no others."""
        well = self._with_status("ok", "cut")
        return tuple(at for at in well if self.candidates[at].tail is not None) or self._with_status("degenerate")

    @property
    def statuses(self) -> dict[Status, int]:
        """How many candidates ended in which way."""
        counts = {status: len(self._with_status(status)) for status in get_args(Status)}
        return {status: count for status, count in counts.items() if count}

    def _with_status(self, *statuses: Status) -> tuple[int, ...]:
        return tuple(candidate.index for candidate in self.candidates if candidate.status in statuses)


class Timings(Record):
    """`started_at` is the UTC date and time of the first start, ISO 8601."""

    started_at: str
    wall_s: FiniteFloat


def in_order(rounds: Sequence[Round], selection: Round | None, matches: Sequence[Round]) -> tuple[Round, ...]:
    """All that a run played: its rounds, and what followed the last one."""
    return (*rounds, *([selection] if selection is not None else []), *matches)


class RunResult(Record):
    """The outcome of a run.

    answer               None if no candidate of any round gave one.
    calls                of tools, where the answer is calls: those of the candidate that it is taken from.
    check                of the answer; None without one, and for a model that has no checker.
    text                 the answer section of the candidate that the answer is taken from, without calls; "" without
                         one.
    rounds               the population of every round, round 0 first.
    selection            the one extra aggregation of `select="aggregate"`, if it ran.
    matches              the rounds of matches of `select="tournament"`, as many as were played.
    votes                of the round that answered.
    pooled               votes over all rounds, if `select` goes by them.
    answered_from_round  the last round, unless it had no answer, a limit ended the run, or `select` chose another one.
    decisions            of policies that ended a round or the run early, in their order.
    usage                tokens of all candidates together.
    budgets              those that were used, and those that were asked for.
    warnings             what a person should know; why budgets were lowered is among them.
    config               as asked for, with its sampling settled for the model.
    """

    answer: str | None
    calls: tuple[ToolCall, ...] = ()
    check: Check | None = None
    text: str
    stopped_because: StopReason
    answered_from_round: int | None
    votes: tuple[Vote, ...]
    pooled: tuple[PooledVote, ...] = ()
    decisions: tuple[Decision, ...] = ()
    limits_hit: tuple[LimitName, ...]
    warnings: tuple[str, ...]
    usage: Usage
    budgets: Budgets
    config: RSAConfig
    problem_id: str
    model: ModelInfo
    timings: Timings
    rounds: tuple[Round, ...] = Field(repr=False)
    selection: Round | None = Field(None, repr=False)
    matches: tuple[Round, ...] = Field((), repr=False)

    @property
    def played(self) -> tuple[Round, ...]:
        """All that was played, in order: rounds, and what followed the last one."""
        return in_order(self.rounds, self.selection, self.matches)

    @property
    def agreeing(self) -> Vote | None:
        """The vote of those that gave the answer, in the round that it is from."""
        played = next((played for played in self.played if played.round == self.answered_from_round), None)
        told = (self.answer, self.calls)
        gave = {each.index for each in played.candidates if (each.answer, each.calls) == told} if played else set()
        return next((vote for vote in self.votes if gave.intersection(vote.candidates)), None)

    @property
    def misfit(self) -> str | None:
        """Why its rounds cannot be those of a run, whatever they say; None if they can."""
        for number, played in enumerate(self.rounds):
            indices = [candidate.index for candidate in played.candidates]
            if played.round != number or indices != list(range(self.config.n)):
                return f"round {number} is not whole"
        if not self.rounds or (self.selection is not None and len(self.selection.candidates) != 1):
            return "a round is missing"
        return self._misfit_of_matches or self._misfit_within

    @property
    def _misfit_of_matches(self) -> str | None:
        for number, played in enumerate(self.matches, len(self.rounds)):
            if (played.round, played.kind) != (number, "match") or not played.candidates:
                return f"round {number}, of matches, is not whole"
            if [match.index for match in played.candidates] != list(range(len(played.candidates))):
                return f"round {number}, of matches, is not whole"
        return None

    @property
    def _misfit_within(self) -> str | None:
        for played in self.played:
            answers = {candidate.index for candidate in played.candidates if candidate.answer is not None}
            if any(not vote.candidates or not answers.issuperset(vote.candidates) for vote in played.votes):
                return f"round {played.round} has votes of candidates without an answer"
            if any(candidate.round != played.round for candidate in played.candidates):
                return f"round {played.round} has candidates of another one"
            misfits = (candidate.misfit(self.config.n) for candidate in played.candidates)
            if (misfit := next(filter(None, misfits), None)) is not None:
                return misfit
        return None
