"""When the policies of `stop` are asked: inside a round (`rsa.policies.levels`), and after one. What they decide is in
`rsa.policies.decisions`.

A live run asks as it comes to each level. Of a run that is resumed, what it had decided stands, and is compared with
what follows from its candidates.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from engine.api import ModelInfo
from rsa.answers.equivalence import AnswerMatcher
from rsa.candidates import Candidates
from rsa.derived import Replay
from rsa.events import PolicyDecided
from rsa.limits import Meter
from rsa.policies import decisions
from rsa.policies.ends import ended_with
from rsa.policies.levels import Inside, over
from rsa.results import Candidate, Decision, Round, RoundKind
from rsa.runlog import RunLog
from rsa.telling import Teller


class Deciding:
    """What policies decide in the course of a run.

    decisions  so far, in their order.
    pending    the level that is settled next, when everybody who runs has more tokens; None: nothing is to be asked.
    """

    def __init__(
        self, candidates: Candidates, matcher: AnswerMatcher, teller: Teller, meter: Meter, log: RunLog | None
    ) -> None:
        self.decisions: list[Decision] = []
        self.pending: int | None = None
        self._candidates, self._matcher = candidates, matcher
        self._teller, self._meter, self._log = teller, meter, log
        self._config = candidates.requests.config
        self._inside: Inside | None = None  # of the round that runs, while there is something to ask
        self._wave = range(0)
        self._ended: list[Candidate] = []
        self._levels: list[int] = []
        self._settled = 0

    async def begin(self, number: int, kind: RoundKind) -> Decision | None:
        """Have policies asked in a round that begins. Returns what a resumed run had decided in it: that stands."""
        self._inside, self._ended = None, []
        self._forget_levels()
        if kind != "population":
            return None
        found = self._log.decided(number) if self._log is not None else None
        if found is not None:
            await self.decide(found)
        elif not self._has_ended(number) and not self._teller.limited_in(number):
            inside = Inside.of(number, self._config, self._matcher)
            self._inside = inside if inside.policies else None
        return found

    def begin_wave(self, wave: range) -> None:
        """These candidates of the round are at work from now on; those before them have ended."""
        self._wave, self._settled = wave, 0
        self._forget_levels()

    def take(self, candidate: Candidate) -> None:
        """A candidate of the round has ended."""
        if self._inside is None:
            return
        self._ended.append(candidate)
        level = ended_with(candidate)
        if level is not None and level > self._settled and level not in self._levels:
            heapq.heappush(self._levels, level)
            self.pending = self._levels[0]

    async def settle(self, *, running: bool) -> Decision | None:
        """What is to be decided at the pending level.

        running  whether anybody writes on whom it would end.
        """
        assert self._inside is not None
        level = self._settled = heapq.heappop(self._levels)
        self.pending = self._levels[0] if self._levels else None
        at_work = [candidate for candidate in self._ended if candidate.index in self._wave]
        later = self._wave.stop < self._config.n
        if not running and not later and all(over(candidate, level) for candidate in at_work):
            return None
        return await self._inside.at(level, self._wave, self._ended)

    async def decide(self, decision: Decision) -> None:
        """So it is decided; within a round, nothing more is."""
        self._inside = None
        self._forget_levels()
        self.decisions.append(decision)
        await self._teller.emit(PolicyDecided(at_s=self._meter.elapsed_s(), decision=decision))

    async def end_wave(self, number: int) -> None:
        """Settle the levels that are left of a wave of which nobody runs any more, unless a limit ended it."""
        while self.pending is not None and not self._teller.limited_in(number):
            decision = await self.settle(running=False)
            if decision is not None:
                await self.decide(decision)

    def within(self, number: int) -> Decision | None:
        """What was decided inside a round."""
        found = (decision for decision in self.decisions if decision.round == number and decision.action != "end")
        return next(found, None)

    async def ends_run(self, rounds: Sequence[Round]) -> bool:
        """Whether the run ends after a round, the last of these, that another one would follow."""
        decision = decisions.after(self._config.stop, rounds)
        if decision is not None:
            await self.decide(decision)
        return decision is not None

    async def decide_again(self, replay: Replay, played: Round) -> None:
        """Compare what is logged of a round with what follows from its candidates, unless chance had a part in it."""
        logged, number = replay.log.decided(played.round), played.round
        if played.kind != "population" or not (logged is not None or self._has_ended(number)):
            return
        if not self._teller.limited_in(number) and not _by_chance(played, self._candidates.requests.engine.model):
            again = await Inside.of(number, self._config, self._matcher).again(played.candidates, logged)
            replay.decided(number, logged, again)

    def recorded(self, rounds: Sequence[Round], *, by_policy: bool) -> None:
        """Take up the decisions of a run that had ended, after these rounds; `by_policy`: because of one."""
        logged = [self._log.decided(played.round) for played in rounds] if self._log is not None else []
        self.decisions += [*filter(None, [*logged, decisions.after(self._config.stop, rounds) if by_policy else None])]

    def _has_ended(self, number: int) -> bool:
        return self._log is not None and self._log.has_ended(number)

    def _forget_levels(self) -> None:
        self._levels, self.pending = [], None


def _by_chance(played: Round, model: ModelInfo) -> bool:
    """Whether what was decided in a round may not follow from what is recorded of it: a candidate began again without
    its seed."""
    if model.seeds:
        return False
    completions = [candidate.completion for candidate in played.candidates if candidate.completion is not None]
    return any(each.action == "restarted" for completion in completions for each in completion.interruptions)
