"""Levels: how a round stands inside, in tokens, when the policies of `stop` are asked.

A level is the number of tokens with which a candidate ended. At a level, those that ended with no more of them have
ended, and the others run: so a round stands the same whoever was quick. A live run settles a level when every candidate
that still runs has passed it; of what is recorded, a round is there as a whole. Both ask here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rsa.answers.equivalence import AnswerMatcher
from rsa.degenerate import DegenerationMonitor
from rsa.policies import decisions, registry
from rsa.policies.ends import ended_with
from rsa.policies.stopping import Standing
from rsa.results import Candidate, Decision
from rsa.settings.config import RSAConfig
from rsa.votes import count_votes


def levels(candidates: Iterable[Candidate]) -> list[int]:
    """The levels of a round, ascending: where candidates ended that ran their course."""
    found = map(ended_with, candidates)
    return sorted({level for level in found if level is not None})


async def standing_at(
    at: int,
    candidates: Iterable[Candidate],
    n: int,
    *,
    last: bool,
    matcher: AnswerMatcher,
    uncompared: Collection[str] = (),
    wave: int = 0,
) -> Standing:
    """How a round of `n` stands at a level.

    candidates  that have ended, in the order of their indices: all that have by then. Others among them count as
                running.
    last        no other round is planned after it.
    wave        index of the first candidate of the wave that is at work: those before it have ended, however long.
    """
    ends = ((each, ended_with(each)) for each in candidates)
    ended = [each for each, tokens in ends if tokens is not None and (tokens <= at or each.index < wave)]
    gone = {candidate.index for candidate in ended}
    return Standing(
        n=n,
        at=at,
        votes=await count_votes(ended, matcher, uncompared, of=n),
        running=tuple(index for index in range(n) if index not in gone),
        last=last,
    )


def over(candidate: Candidate, at: int) -> bool:
    """Whether a candidate had nothing more to write after `at` tokens, or nobody knows what."""
    completion = candidate.completion
    if completion is None:
        return candidate.status != "cut"
    if candidate.status == "degenerate":
        after = _loops_after(completion.token_ids)
        return after is None or after <= at
    return candidate.status != "cut" and (candidate.status != "ok" or completion.usage.completion_tokens <= at)


@lru_cache(maxsize=32)
def _loops_after(token_ids: tuple[int, ...]) -> int | None:
    """When it was found that a candidate repeats itself. Kept for a few, since that is asked at every level."""
    monitor = DegenerationMonitor()
    monitor.feed(token_ids)
    return monitor.after


@dataclass(frozen=True, slots=True)
class Inside:
    """Asks the policies of `stop` how a round goes on.

    number    of the round.
    policies  those that are asked inside of it, as the settings have them; none where candidates write no answers.
    """

    number: int
    policies: tuple[str, ...]
    config: RSAConfig
    matcher: AnswerMatcher

    @classmethod
    def of(cls, number: int, config: RSAConfig, matcher: AnswerMatcher) -> Inside:
        """Of a round of these settings."""
        asked = config.stop if config.wants_answers(number) else ()
        return cls(number, tuple(spec for spec in asked if registry.stop_policy(spec).inside), config, matcher)

    async def at(self, level: int, wave: range, ended: Iterable[Candidate]) -> Decision | None:
        """What is decided at a level of a wave, by all that had ended then; others among them count as running."""
        standing = await standing_at(
            level,
            sorted(ended, key=lambda candidate: candidate.index),
            self.config.n,
            last=self.config.ends_with(self.number),
            matcher=self.matcher,
            uncompared=self.config.uncompared,
            wave=wave.start,
        )
        return decisions.within(self.policies, self.number, wave, standing)

    async def again(self, played: Sequence[Candidate], recorded: Decision | None) -> Decision | None:
        """What is to be decided in a round, by what is recorded of it.

        recorded  what was decided in it: then whom it was to end may have failed since, and beyond its place there is
                  nothing to go by; None: all wrote on undisturbed.
        """
        for wave in self.config.wave_ranges if self.policies else ():
            at_work = played[wave.start : wave.stop]
            for level in levels(at_work):
                if recorded is not None and recorded.wave == (wave.start, wave.stop) and level > (recorded.at or 0):
                    return None
                nobody_left = wave.stop == len(played) and all(over(candidate, level) for candidate in at_work)
                if nobody_left and recorded is None:
                    return None
                decision = await self.at(level, wave, played[: wave.stop])
                if decision is not None:
                    return decision
        return None
