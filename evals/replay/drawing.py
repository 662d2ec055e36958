"""Fewer candidates than were generated: draws of round 0, without replacement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from math import comb

from evals.errors import ReplayError
from evals.replay.recording import RecordedRun
from rsa import seeds
from rsa.answers.equivalence import AnswerMatcher
from rsa.results import Round
from rsa.votes import count_votes

DRAWS = 200
"""Draws of a run's candidates unless told otherwise."""
MOST_DRAWS = 10_000
"""The most draws of a run: more change no mean that is told, and all of a run's are kept at once."""


def subsets(n: int, of: int, draws: int, name: str) -> Iterator[tuple[int, ...]]:
    """Ascending indices of n candidates: every subset if there are no more than `draws`, else so many, drawn at random;
    the same for the same `name`."""
    if comb(of, n) <= draws:
        yield from combinations(range(of), n)
        return
    for number in range(draws):
        yield tuple(sorted(seeds.draw(range(of), n, seeds.derive(0, name, 0, number, "subset"))))


async def drawn(run: RecordedRun, n: int, draws: int, matcher: AnswerMatcher) -> list[RecordedRun]:
    """A run of `n` candidates and round 0 alone, for each draw. Raises ReplayError if not all of it was generated."""
    played, config = run.result.rounds[0], run.result.config
    within = [each for each in run.result.decisions if each.round == 0 and each.action != "end"]
    if within:
        raise ReplayError(
            f"n = {n}: round 0 was ended early by {within[0].policy}, for all {config.n} candidates, in {run.folder}"
        )
    name = f"{run.result.problem_id} {config.seed}"
    return [await _of(run, played, chosen, matcher) for chosen in subsets(n, len(played.candidates), draws, name)]


async def _of(run: RecordedRun, played: Round, chosen: tuple[int, ...], matcher: AnswerMatcher) -> RecordedRun:
    """The run of these candidates alone, numbered anew."""
    candidates = tuple(
        played.candidates[index].model_copy(update={"index": place}) for place, index in enumerate(chosen)
    )
    votes = await count_votes(candidates, matcher, run.result.config.uncompared)
    changes = {
        "rounds": (played.model_copy(update={"candidates": candidates, "votes": votes}),),
        "selection": None,
        "matches": (),
        "decisions": (),
        "stopped_because": "finished",
    }
    values = {(0, place): run.values[0, index] for place, index in enumerate(chosen) if (0, index) in run.values}
    return replace(run, result=run.result.model_copy(update=changes), values=values)
