"""One run of Markovian RSA: `Run.solve` is the algorithm.

What a candidate costs and when limits bite is in `rsa.rollouts` and `rsa.limits`, what is written to disk in
`rsa.runlog`, when a round or a run ends and how an answer is chosen in
`rsa.policies`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import anyio
import anyio.to_thread

from engine.api import Engine, Usage
from rsa import rollouts, votes
from rsa.answers.calls import calls_of
from rsa.answers.checking import Checker
from rsa.answers.equivalence import AnswerMatcher
from rsa.answers.math_pool import MathWorkers
from rsa.candidates import Candidates
from rsa.deciding import Deciding
from rsa.derived import Replay
from rsa.digests import TAKEN
from rsa.errors import NoCandidatesError, PausedError
from rsa.events import (
    BudgetsLowered,
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from rsa.limits import FREE, Hit, Leave, Meter
from rsa.policies import registry, selecting
from rsa.policies.parents import Subset
from rsa.problem import Problem
from rsa.prompts import PromptSet
from rsa.requests import Requests
from rsa.results import (
    Budgets,
    Candidate,
    Decision,
    LimitName,
    PooledVote,
    Round,
    RoundKind,
    RunResult,
    Status,
    StopReason,
    Timings,
    in_order,
)
from rsa.rollouts import Rollout
from rsa.runlog import CandidateKey, RunLog
from rsa.settings.config import RSAConfig
from rsa.subsets import Subsets
from rsa.telling import Send, Teller


class Run:
    """A problem on its way to an answer. Made for one call of `solve`.

    config  with its sampling settled: see `rsa.settings.suitability.suited`.
    """

    def __init__(
        self,
        engine: Engine,
        config: RSAConfig,
        problem: Problem,
        prompts: PromptSet,
        budgets: Budgets,
        *,
        log: RunLog | None = None,
        send: Send | None = None,
        progress_every_s: float = 0.25,
        math_workers: MathWorkers | None = None,
        checker: Checker | None = None,
        leave: Leave = FREE,
    ) -> None:
        self.engine, self.config, self.problem, self.prompts = engine, config, problem, prompts
        self.log, self.send, self.progress_every_s = log, send, progress_every_s
        self.budgets, self.leave = budgets, leave
        self.requests = Requests(engine, config, problem, prompts, budgets)
        self.candidates = Candidates(self.requests, checker)
        spent_s = log.elapsed_s if log else 0.0
        self.replay = Replay(log, self.candidates) if log is not None and log.resumed else None
        self.meter = Meter(
            config.limits, n=config.n, answer_budget=self.budgets.answer_budget, spent_s=spent_s, leave=leave
        )
        self.teller = Teller(self.meter, log, send)
        self.select = registry.select_policy(config.select)
        self.subsets = Subsets(config, problem.id)
        self.matcher = AnswerMatcher(prompts.answer, workers=math_workers)
        self.deciding = Deciding(self.candidates, self.matcher, self.teller, self.meter, log)
        self.started_at = (log.created_at if log else "") or datetime.now(UTC).isoformat(timespec="seconds")
        self.rounds: list[Round] = []
        self.selection: Round | None = None
        self.matches: list[Round] = []
        self.pooled: tuple[PooledVote, ...] = ()
        self._ended: dict[CandidateKey, Candidate] = {}

    async def solve(self) -> RunResult:
        """Rounds 0 to T, each after all candidates of the one before ended, then the answer.

        Raises NoCandidatesError if every candidate of a round failed, PausedError where its leave ends, EngineError if
        the engine breaks down, RunFolderError if the log cannot be written.
        """
        await self._begin()
        async with self.matcher:
            if self.log is not None and self.log.result is not None:
                return await self._announce(await self._recorded(self.log, self.log.result))
            reason: StopReason | None = None
            while reason is None:
                subsets = self.subsets.of_round(self.rounds)
                self.rounds.append(await self._play(len(self.rounds), "population", subsets))
                reason = await self._reason_to_stop(self.rounds[-1])
            if reason == "finished" and self.select.aggregates:
                self.selection = await self._play(len(self.rounds), "selection", self.subsets.of_selection(self.rounds))
                reason = self._limit_within(self.selection) or reason
            while reason == "finished" and (pairs := self.select.meeting(self.rounds[-1], self.matches)):
                self.matches.append(await self._play(len(self.rounds) + len(self.matches), "match", pairs))
                reason = self._limit_within(self.matches[-1]) or reason
            return await self._finish(reason)

    # ---- the parts of it

    async def _begin(self) -> None:
        await self.teller.emit(
            RunStarted(
                problem_id=self.problem.id,
                config=self.config,
                budgets=self.budgets,
                model=self.engine.model,
                task=self.prompts.name,
                prompt_sha256=self.prompts.sha256,
                resumed=self.log is not None and self.log.resumed,
            )
        )
        if self.budgets.lowered is not None:
            self.teller.warnings.append(self.budgets.lowered)
            await self.teller.emit(BudgetsLowered(message=self.budgets.lowered))
        await self.teller.say_trusted()

    async def _play(self, number: int, kind: RoundKind, subsets: tuple[Subset, ...]) -> Round:
        """Generate the candidates of a round, those apart that the log of a resumed run holds."""
        started_s = self.meter.elapsed_s()
        if self.replay is not None:
            self.replay.subsets(number, kind, subsets)
        await self.teller.emit(RoundStarted(at_s=started_s, round=number, kind=kind, subsets=subsets))
        await self.deciding.begin(number, kind)
        for wave in self.config.wave_ranges if kind == "population" else (range(len(subsets)),):
            await self._play_wave(number, kind, wave, subsets)
        decision = self.deciding.within(number)
        ended = (self._ended[kind, number, index] for index in range(len(subsets)))
        candidates = tuple(self.candidates.as_decided(candidate, decision) for candidate in ended)
        await self.teller.say_trusted()
        played = Round(
            round=number,
            kind=kind,
            candidates=candidates,
            votes=await votes.count_votes(candidates, self.matcher, self.config.uncompared),
            started_s=started_s,
            finished_s=self.meter.elapsed_s(),
        )
        if self.replay is not None:
            self.replay.votes(played)
            await self.deciding.decide_again(self.replay, played)
        await self.teller.emit(
            RoundFinished(
                at_s=played.finished_s,
                round=number,
                kind=kind,
                statuses=played.statuses,
                asked=any(candidate.asked for candidate in candidates),
                votes=played.votes,
                usage=played.usage,
            )
        )
        return played

    async def _play_wave(self, number: int, kind: RoundKind, wave: range, subsets: tuple[Subset, ...]) -> None:
        """Those of a round that begin together, unless the round ended before."""
        decision, left = self.deciding.within(number), self._leaves_out(number, wave)
        met = decision if decision is not None and decision.wave == (wave.start, wave.stop) else None
        self.deciding.begin_wave(wave)
        waiting: list[Rollout] = []
        for index in wave:
            done = self.log.finished.get((kind, number, index)) if self.log else None
            if done is not None:
                if self.replay is not None:
                    self.replay.candidate(done, kind, subsets[index], self.rounds)
                self.meter.spend(done.completion.usage.completion_tokens if done.completion else 0)
                await self._record(self.candidates.as_decided(done, decision), kind)
            elif left is not None:
                read, now = self._read(subsets[index]), self.meter.elapsed_s()
                await self._record(self.candidates.not_begun(number, index, read, left, now), kind)
            else:
                waiting.append(await self._prepare(number, kind, index, subsets[index], met))
        await rollouts.play(
            self.engine,
            waiting,
            meter=self.meter,
            listener=self,
            progress_every_s=self.progress_every_s,
            deciding=self.deciding,
        )
        await self.deciding.end_wave(number)

    def _leaves_out(self, number: int, wave: range) -> Status | None:
        """How candidates of a wave end that is not begun any more; None if it is."""
        decision = self.deciding.within(number)
        if decision is not None and decision.action == "cut" and decision.wave and wave.start >= decision.wave[1]:
            return "cut"
        return "cancelled" if wave.start > 0 and self.teller.limited_in(number) else None

    async def _reason_to_stop(self, played: Round) -> StopReason | None:
        """Why the run ends with this round; None if another one follows."""
        if (limit := self._limit_within(played)) is not None:
            return limit
        if not played.parents:
            await self._pool()
            raise NoCandidatesError(votes.why_none(played), self._result("no_candidates"))
        more = played.round < self.config.t
        if (more or self.select.goes_on) and await self.deciding.ends_run(self.rounds):
            return "policy"
        if not more:
            return "finished"
        short = self.meter.too_little_for_a_round(self.config.n)
        if short is not None and not (self.log is not None and self.log.has_begun(played.round + 1)):
            await self.teller.hit(short, played.round, "no_new_round")
            return short.limit
        return await self._end_of_leave(played)

    async def _end_of_leave(self, played: Round) -> StopReason | None:
        """Why the run ends with this round if what it shares with others is spent. Raises PausedError if it is not, but
        another round has to wait."""
        if self.leave.rounds is None or len(self.rounds) < self.leave.rounds:
            return None
        if self.leave.over is None:
            raise PausedError(tuple(self.rounds))
        await self.teller.hit(self.leave.over, played.round, "no_new_round")
        return self.leave.over.limit

    def _limit_within(self, played: Round) -> LimitName | None:
        """The first limit that this round ran into, or one before it."""
        return next((hit.limit for hit in self.teller.hits if hit.round <= played.round), None)

    async def _finish(self, reason: StopReason) -> RunResult:
        await self._pool()
        choice = selecting.choose(self._played, self.select)
        for message in (*self.matcher.problems, *selecting.fallbacks(choice, self._played)):
            await self.teller.warn(message)
        await self.teller.say_trusted()
        result = self._result(reason)
        if self.log is not None:
            await anyio.to_thread.run_sync(self.log.finish, result)
        return await self._announce(result)

    async def _pool(self) -> None:
        if self.select.pools:
            self.pooled = await votes.pool(self.rounds, self.matcher, self.config.uncompared)

    async def _recorded(self, log: RunLog, result: RunResult) -> RunResult:
        """The result of a run that had ended, if it follows from its rounds; with what was taken on trust."""
        if self.replay is not None:
            for played in result.rounds:
                self.replay.round(played, self.subsets.of_round(self.rounds), self.rounds)
                self.rounds.append(played)
                await self.deciding.decide_again(self.replay, played)
            self.deciding.recorded(self.rounds, by_policy=result.stopped_because == "policy")
            if result.selection is not None:
                self.replay.round(result.selection, self.subsets.of_selection(self.rounds), self.rounds)
                self.selection = result.selection
            self.replay.matches(result, self.select)
            self.matches += result.matches
            self.pooled = self.replay.pooled(result) if self.select.pools else ()
            self.replay.result(result, self._result(result.stopped_because))
        result = await anyio.to_thread.run_sync(log.noted, result)
        for warning in result.warnings:
            if warning.startswith(TAKEN):  # whenever that was, it is said
                await self.teller.emit(Warned(at_s=result.timings.wall_s, message=warning))
        return result

    async def _announce(self, result: RunResult) -> RunResult:
        await self.teller.emit(RunFinished(at_s=result.timings.wall_s, result=result))
        return result

    # ---- candidates

    def _read(self, parents: Subset) -> list[Candidate]:
        """Whom a candidate reads: members of the last round."""
        return [self.rounds[-1].candidates[parent] for parent in parents]

    async def _prepare(
        self, number: int, kind: RoundKind, index: int, parents: Subset, decision: Decision | None
    ) -> Rollout:
        """decision: what was decided of its round, when it had not ended."""
        request, length = self.requests.of(number, kind, index, self._read(parents), decision=decision)
        rollout = Rollout(
            round=number,
            kind=kind,
            index=index,
            parents=parents,
            request=request,
            started_s=self.meter.elapsed_s(),
            cut=decision.at if decision is not None and decision.action == "cut" else None,
        )
        await self.teller.emit(
            CandidateStarted(
                at_s=rollout.started_s,
                round=number,
                kind=kind,
                index=index,
                parents=parents,
                seed=request.sampling.seed,
                prompt_tokens=length,
            )
        )
        return rollout

    # ---- what rollouts report (rsa.rollouts.Listener)

    async def progressed(self, rollout: Rollout) -> None:
        if self.send is None:
            return
        await self.teller.emit(
            CandidateProgress(
                at_s=self.meter.elapsed_s(),
                round=rollout.round,
                kind=rollout.kind,
                index=rollout.index,
                tokens=rollout.tokens,
                section=rollout.section,
                text=rollout.recent,
            )
        )

    async def finished(self, rollout: Rollout) -> None:
        candidate = self.candidates.of(rollout, self._read(rollout.parents), finished_s=self.meter.elapsed_s())
        await self._record(candidate, rollout.kind)

    async def limit_hit(self, hit: Hit, action: Literal["conclude", "cancel"]) -> None:
        await self.teller.hit(hit, len(self.rounds) + len(self.matches), action)

    async def _record(self, candidate: Candidate, kind: RoundKind) -> None:
        self._ended[kind, candidate.round, candidate.index] = candidate
        self.deciding.take(candidate)
        await self.teller.emit(CandidateFinished(at_s=self.meter.elapsed_s(), kind=kind, candidate=candidate))

    # ---- the result

    @property
    def _played(self) -> selecting.Played:
        return selecting.Played(tuple(self.rounds), self.selection, tuple(self.matches), self.pooled)

    def _result(self, reason: StopReason) -> RunResult:
        choice = selecting.choose(self._played, self.select)
        played = in_order(self.rounds, self.selection, self.matches)
        limits: list[LimitName] = sorted({hit.limit for hit in self.teller.hits})
        completion = choice.candidate.completion if choice else None
        return RunResult(
            answer=choice.candidate.answer if choice else None,
            calls=choice.candidate.calls if choice else (),
            check=choice.candidate.check if choice else None,
            text=calls_of(completion, self.problem.tools).text if completion else "",
            stopped_because=reason,
            answered_from_round=choice.round.round if choice else None,
            votes=choice.round.votes if choice else (),
            pooled=self.pooled,
            decisions=tuple(self.deciding.decisions),
            limits_hit=tuple(limits),
            warnings=tuple(self.teller.warnings),
            usage=sum((each.usage for each in played), Usage()),
            budgets=self.budgets,
            config=self.config,
            problem_id=self.problem.id,
            model=self.engine.model,
            timings=Timings(started_at=self.started_at, wall_s=self.meter.elapsed_s()),
            rounds=tuple(self.rounds),
            selection=self.selection,
            matches=tuple(self.matches),
        )
