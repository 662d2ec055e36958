"""A recorded run decided again: the same functions as of a live run, asked of what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from evals.errors import ReplayError
from evals.replay.recording import RecordedRun
from evals.replay.variants import Variant
from rsa.answers.equivalence import AnswerMatcher
from rsa.answers.math_pool import MathWorkers
from rsa.candidates import left_of, usage_of_first
from rsa.policies import decisions, registry, selecting
from rsa.policies.levels import Inside, over
from rsa.policies.selecting import Chosen
from rsa.policies.trust import how_sure
from rsa.prompts import load_prompts
from rsa.results import Candidate, Decision, LimitName, Round, RunResult, in_order
from rsa.settings.config import RSAConfig
from rsa.votes import count_votes, pool


@dataclass(frozen=True, slots=True)
class Course:
    """What a run comes to, decided again.

    choice      who answers for it; None: nobody gave an answer.
    rounds      as they were left: candidates of one that was cut have the tokens that they had then.
    decisions   of its policies, in their order.
    waves       in which the candidates of its rounds were begun.
    failed      nobody of its last round was well: it has no value.
    muted       candidates that would have been made to answer: what they would have said was not generated, so that
                they count as without an answer.
    """

    choice: Chosen | None
    rounds: tuple[Round, ...]
    selection: Round | None
    matches: tuple[Round, ...]
    decisions: tuple[Decision, ...]
    waves: tuple[range, ...]
    failed: bool = False
    muted: int = 0

    @property
    def answer(self) -> str | None:
        return None if self.choice is None else self.choice.candidate.answer

    @property
    def played(self) -> tuple[Round, ...]:
        """All rounds, and what followed the last one."""
        return in_order(self.rounds, self.selection, self.matches)

    @property
    def tokens(self) -> int:
        """Generated, by all candidates together."""
        return sum(played.usage.completion_tokens for played in self.played)

    @property
    def steps(self) -> int:
        """Of an engine that decodes at once what is begun together: the longest candidate of each round, or of each
        wave of it, added up."""
        together = [played.candidates[wave.start : wave.stop] for played in self.rounds for wave in self.waves]
        together += [played.candidates for played in self.played[len(self.rounds) :]]
        return sum(max(map(_tokens, candidates)) for candidates in together)


class Remembering(AnswerMatcher):
    """Compares two answers once, however often they are asked about: a replay counts the same votes again and again.

    rounds  whose votes are believed, and none of their answers is compared: thousands of runs take no longer than it
            takes to read them. (A live run compares with the earliest answer of a group that it has by then, which may
            differ for answers that are the same as another one and not as each other.)
    """

    def __init__(self, task: str, math: MathWorkers, rounds: Sequence[Round] = ()) -> None:
        super().__init__(load_prompts(task).answer, workers=math)
        self._same: dict[tuple[str, str], bool] = {}
        self._voted = [_voted(played) for played in rounds]

    async def same(self, left: str, right: str) -> bool:
        for voted in self._voted:
            if left in voted and right in voted:
                return voted[left] == voted[right]
        pair = (left, right)
        if pair not in self._same:
            self._same[pair] = await super().same(left, right)
        return self._same[pair]


async def replay(run: RecordedRun, variant: Variant, matcher: AnswerMatcher) -> Course:
    """A run as it would have ended with other settings.

    matcher  of the task of the run: `Remembering`.

    Raises ReplayError where that depends on what was never generated, ConfigError for settings that make no sense.
    """
    config = variant.settings(run.result.config)
    try:
        return await _Again(run.result, config, matcher).course()
    except ReplayError as error:
        raise ReplayError(f"{variant.name}, of the run in {run.folder}: {error}", error.why) from None


class _Again:
    """A run while it is decided again, round by round: as `rsa.run.Run`, without generating."""

    def __init__(self, recorded: RunResult, config: RSAConfig, matcher: AnswerMatcher) -> None:
        self.recorded, self.config, self.matcher = recorded, config, matcher
        self.select = registry.select_policy(config.select)
        self.rounds: list[Round] = []
        self.decisions: list[Decision] = []
        self.muted = 0

    async def course(self) -> Course:
        """All of it."""
        self._check_answers()
        ended = None
        for played in self.recorded.rounds:
            self.rounds.append(await self._within(played))
            ended = self._reason_to_stop(self.rounds[-1])
            if ended is not None:
                break
        assert ended is not None, "after the last round there is a reason"
        selection = self._selection() if ended == "finished" and self.select.aggregates else None
        matches = self._matches() if ended == "finished" and self.select.compares else ()
        pooled = await pool(self.rounds, self.matcher, self.config.uncompared) if self.select.pools else ()
        return Course(
            choice=selecting.choose(selecting.Played(tuple(self.rounds), selection, matches, pooled), self.select),
            rounds=tuple(self.rounds),
            selection=selection,
            matches=matches,
            decisions=tuple(self.decisions),
            waves=self.config.wave_ranges,
            failed=ended == "failed",
            muted=self.muted,
        )

    def _check_answers(self) -> None:
        """Raises ReplayError if rounds have no answers, and are asked for some."""
        planned = self.recorded.rounds[: self.config.t + 1]
        needed_by = [f"stop = {spec}" for spec in self.config.stop if registry.stop_policy(spec).every_round]
        needed_by += [f"select = {self.config.select}"] if self.select.every_round else []
        for played in planned:
            if self.config.wants_answers(played.round) and not self.recorded.config.wants_answers(played.round):
                what = needed_by[0] if needed_by else f"t = {self.config.t}"
                raise ReplayError(
                    f"{what} needs answers of round {played.round}, which wrote none: rsa eval records those of every "
                    "round"
                )
        if self.select.confidence and all(how_sure(each) is None for each in planned[-1].candidates):
            raise ReplayError(f"select = {self.config.select} needs the candidates' confidence, which was not recorded")

    # ---- inside a round

    async def _within(self, played: Round) -> Round:
        """A round as the policies leave it."""
        recorded = self._recorded_within(played)
        if recorded is not None and self.config.waves != self.recorded.config.waves:
            raise ReplayError(f"round {played.round} was ended early, and not all of it was generated for other waves")
        decision = await Inside.of(played.round, self.config, self.matcher).again(played.candidates, recorded)
        if decision is not None:
            return await self._obeyed(played, decision, recorded)
        if recorded is not None:
            done = "was cut" if recorded.action == "cut" else "had its candidates answer"
            raise ReplayError(
                f"round {played.round} {done} at {recorded.at} tokens by {recorded.policy}: what came after was never "
                "generated"
            )
        return played

    def _recorded_within(self, played: Round) -> Decision | None:
        found = [each for each in self.recorded.decisions if each.round == played.round and each.action != "end"]
        return found[0] if found else None

    async def _obeyed(self, played: Round, decision: Decision, recorded: Decision | None) -> Round:
        assert decision.at is not None, "it is of a place in the round"
        assert decision.wave is not None, "it is of a place in the round"
        self.decisions.append(decision)
        if recorded is not None and (recorded.action, recorded.at) == (decision.action, decision.at):
            return played
        left = _cut if decision.action == "cut" else _muted
        candidates = tuple(left(candidate, range(*decision.wave), decision.at) for candidate in played.candidates)
        if decision.action == "conclude":
            self.muted += sum(now is not was for now, was in zip(candidates, played.candidates, strict=True))
        counted = await count_votes(candidates, self.matcher, self.config.uncompared)
        return played.model_copy(update={"candidates": candidates, "votes": counted})

    # ---- between rounds

    def _reason_to_stop(self, played: Round) -> str | None:
        """Why the run ends with this round; None if another one follows."""
        last = played.round == len(self.recorded.rounds) - 1
        if (
            last
            and len(self.recorded.played) == len(self.recorded.rounds)
            and self.recorded.stopped_because in get_args(LimitName)
        ):
            return "limit"
        if not played.parents:
            return "failed"
        more = played.round < self.config.t
        if (more or self.select.goes_on) and self._ends_by_policy():
            return "policy"
        if not more:
            return "finished"
        self._check_next(played)
        if last:
            ends = [each for each in self.recorded.decisions if each.action == "end"]
            by = f" by {ends[0].policy}" if ends else ""
            raise ReplayError(f"the run was ended after round {played.round}{by}: what came after was never generated")
        return None

    def _ends_by_policy(self) -> bool:
        decision = decisions.after(self.config.stop, self.rounds)
        if decision is not None:
            self.decisions.append(decision)
        return decision is not None

    def _selection(self) -> Round:
        """The one more aggregation that was recorded."""
        self._check_next(self.rounds[-1])
        if self.recorded.selection is None:
            raise ReplayError(f"an aggregation of round {self.rounds[-1].round} was never generated")
        return self.recorded.selection

    def _matches(self) -> tuple[Round, ...]:
        """The matches that were recorded."""
        self._check_next(self.rounds[-1])
        if not self.recorded.matches and self.select.meeting(self.rounds[-1], ()):
            raise ReplayError(f"matches between answers of round {self.rounds[-1].round} were never generated")
        return self.recorded.matches

    def _check_next(self, played: Round) -> None:
        """Raises ReplayError if what follows a round read other tails than those that it hands on here."""
        if played != self.recorded.rounds[played.round]:
            decision = self.decisions[-1]
            why = (
                f"{decision.policy} ends round {played.round} at {decision.at} tokens: what the next one would have "
                "read then was never generated"
            )
            raise ReplayError(f"{why}; give t = {played.round}, too", why)


def _voted(played: Round) -> dict[str, int]:
    """The vote that each answer of a round went to."""
    answers = {candidate.index: candidate.answer for candidate in played.candidates if not candidate.calls}
    voted = ((answers.get(index), number) for number, vote in enumerate(played.votes) for index in vote.candidates)
    return {answer: number for answer, number in voted if answer is not None}


def _tokens(candidate: Candidate) -> int:
    return candidate.completion.usage.completion_tokens if candidate.completion else 0


def _muted(candidate: Candidate, wave: range, at: int) -> Candidate:
    """What is known of a candidate whose reasoning would have been closed at so many tokens: nobody knows what it would
    have answered then, but of one that had closed it by itself, or had ended before this wave."""
    completion = candidate.completion
    if candidate.index < wave.start or completion is None or completion.usage.reasoning_tokens <= at:
        return candidate
    return _cut(candidate, range(candidate.index, candidate.index + 1), at)


def _cut(candidate: Candidate, wave: range, at: int) -> Candidate:
    """What a round that is cut, while this wave is at work, leaves of a candidate, as `rsa.candidates` has it, but for
    its texts: nobody reads them here."""
    completion = candidate.completion
    if candidate.index >= wave.stop:
        return left_of(candidate, None, None)
    if candidate.index < wave.start or completion is None or over(candidate, at):
        return candidate
    short = {"token_ids": completion.token_ids[:at], "usage": usage_of_first(completion.usage, at)}
    return left_of(candidate, completion.model_copy(update=short), candidate.tail)
