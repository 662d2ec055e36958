"""What follows from what in a run, and whether a log says so: a resumed run derives again what costs no generation.

A digest tells of a change to what was written; this tells of a record that never fitted, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsa.candidates import Candidates
from rsa.events import EventKey
from rsa.policies.selecting import SelectPolicy
from rsa.prompts import prompt_sha256
from rsa.requests import Requests
from rsa.results import Candidate, Decision, PooledVote, Round, RoundKind, RunResult, Vote
from rsa.runlog import RunLog
from rsa.votes import vote_of
from rsa.words import shortened

_SHOWN_CHARACTERS = 60
_OF_THE_RESULT = ("answer", "calls", "check", "text", "answered_from_round", "votes", "pooled", "decisions", "usage")
"""Fields of a result that follow from its rounds."""
_OF_THE_SAMPLING = ("seed", "temperature", "top_p", "top_k", "min_p")
"""Parts of a request that follow from settings alone; budgets also follow from what the server of a model allows."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Compares what a log holds with what follows from the run's settings and from what stands before it.

    Each method raises RunFolderError, naming file and line, for what does not follow and is not taken on trust.
    """

    log: RunLog
    candidates: Candidates

    def subsets(self, number: int, kind: RoundKind, drawn: Sequence[Sequence[int]]) -> None:
        """The subsets with which a round started."""
        event = self.log.logged.get(("round_started", kind, number))
        if event is not None and event.type == "round_started":
            self._same(event.key, f"the subsets of round {number}", event.subsets, tuple(map(tuple, drawn)))

    def round(self, played: Round, drawn: Sequence[Sequence[int]], before: Sequence[Round]) -> None:
        """A round that had finished, with the subsets of its candidates and the rounds before it."""
        self.subsets(played.round, played.kind, drawn)
        key = ("round_finished", played.kind, played.round)
        self._same(key, f"how many played in round {played.round}", len(played.candidates), len(drawn))
        for candidate, subset in zip(played.candidates, drawn, strict=False):
            self.candidate(candidate, played.kind, subset, before)
        self.votes(played)

    def matches(self, found: RunResult, select: SelectPolicy) -> None:
        """The matches of a run that had ended: who met follows from its last round and the matches before."""
        last = found.rounds[-1]
        for number, played in enumerate(found.matches):
            self.round(played, select.meeting(last, found.matches[:number]), found.rounds)
        if found.stopped_because == "finished" and select.meeting(last, found.matches):
            self.log.doubt(None, "does not add up: a round of matches is missing")

    def candidate(self, found: Candidate, kind: RoundKind, subset: Sequence[int], before: Sequence[Round]) -> None:
        """A candidate that had ended."""
        read = [before[-1].candidates[parent] for parent in subset]
        key = ("candidate_finished", kind, found.round, found.index)
        name = f"candidate {found.index} of round {found.round}"
        given = self.candidates.answer_given(
            found.completion, found.status, kind=kind, number=found.round, index=found.index, read=read
        )
        sampling = self._requests.sampling(found.round, kind, found.index)
        self._same(key, f"the parents of {name}", found.parents, tuple(subset))
        self._same(key, f"the seed of {name}", found.seed, sampling.seed)
        for field in _OF_THE_SAMPLING if found.sampling is not None else ():
            self._same(key, f"the {field} of {name}", getattr(found.sampling, field), getattr(sampling, field))
        self._same(key, f"the answer of {name}", found.answer, given.answer)
        self._same(key, f"the calls of {name}", found.calls, given.calls)
        if found.prompt_sha256 != prompt_sha256(self._requests.uncut(kind, read), self._requests.problem.tools):
            request, _ = self._requests.of(found.round, kind, found.index, read)  # measured, and cut to its bound
            sha256 = prompt_sha256(request.messages, request.tools)
            self._same(key, f"the prompt of {name}", found.prompt_sha256, sha256)

    def votes(self, played: Round) -> None:
        """The votes of a round that had finished. Answers that were not compared in time count as different: what hangs
        one day need not hang on the other."""
        event = self.log.logged.get(("round_finished", played.kind, played.round))
        if event is None or event.type != "round_finished":
            return
        now = {member: vote.candidates[0] for vote in played.votes for member in vote.candidates}
        was = {member: vote.candidates[0] for vote in event.votes for member in vote.candidates}
        apart = was.keys() == now.keys() and all(now[member] == now[first] for member, first in was.items())
        if not apart or any(not vote.candidates or vote != _again(vote, played) for vote in event.votes):
            name = f"the votes of round {played.round}"
            self.log.doubt(event.key, _differs(name, _brief(event.votes), _brief(played.votes)))

    def pooled(self, found: RunResult) -> tuple[PooledVote, ...]:
        """The votes over all rounds of a run that had ended, which put votes of rounds together: which of these, took
        comparisons that are not made again."""
        votes = [
            {(played.round, member) for member in vote.candidates} for played in found.rounds for vote in played.votes
        ]
        pools = [set(vote.members) for vote in found.pooled]
        each_in_one = all(sum(vote <= pool for pool in pools) == 1 for vote in votes)
        if not each_in_one or sum(map(len, votes)) != sum(vote.count for vote in found.pooled):
            self.log.doubt(None, "does not add up: its pooled votes are not those of its rounds")
        return found.pooled

    def decided(self, number: int, logged: Decision | None, derived: Decision | None) -> None:
        """What policies decided inside a round, or, for a round that had finished, that they decided nothing."""
        action = decided.action if (decided := logged or derived) is not None else ""
        self._same(("policy_decided", number, action), f"what was decided in round {number}", logged, derived)

    def result(self, found: RunResult, derived: RunResult) -> None:
        """The result of a run that had ended; `derived` is what its rounds come to."""
        for played in found.played:
            for candidate in played.candidates:
                key = ("candidate_finished", played.kind, candidate.round, candidate.index)
                logged = self.log.finished.get((played.kind, candidate.round, candidate.index))
                if logged is not None and played.kind == "population":
                    logged = self.candidates.as_decided(logged, self.log.decided(candidate.round))
                if logged is not None and logged != candidate:
                    name = f"candidate {candidate.index} of round {candidate.round} is another one in the result"
                    self.log.doubt(key, f"does not fit the result: {name}")
        for field in _OF_THE_RESULT:
            was, now = getattr(found, field), getattr(derived, field)
            if was != now:
                self.log.doubt(None, _differs(f"its {field}", was, now))

    @property
    def _requests(self) -> Requests:
        return self.candidates.requests

    def _same(self, key: EventKey, what: str, was: object, now: object) -> None:
        if was != now:
            self.log.doubt(key, _differs(what, was, now))


def _again(vote: Vote, played: Round) -> Vote:
    """What a vote of these candidates must be."""
    return vote_of([played.candidates[member] for member in sorted(set(vote.candidates))], len(played.candidates))


def _brief(votes: Sequence[Vote]) -> list[tuple[str, int]]:
    return [(vote.answer, vote.count) for vote in votes]


def _differs(what: str, was: object, now: object) -> str:
    """A fault in words: what is recorded, and what follows from the rest."""
    return f"does not add up: {what}: {_shown(was)} is recorded, {_shown(now)} follows"


def _shown(value: object) -> str:
    return shortened(repr(value), _SHOWN_CHARACTERS)
