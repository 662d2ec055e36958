"""A tournament of answers: who meets whom, and who is ahead; pure functions of the matches that were played.

The different answers of a round meet in pairs. A pair is judged twice, each of both first in one prompt, since judges
prefer a place: each time the preferred one gets half a point, or each a quarter where nothing can be read of what the
judge wrote. Pairs are drawn as in a Swiss system: those with equal points meet, and no two meet again. Who has no
opponent in a round gets half a point, as in a match that nobody could judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rsa.policies.ends import standing

if TYPE_CHECKING:
    from rsa.results import Candidate, Round

MOST_CONTENDERS = 8
"""Answers that meet: those with most votes. More have next to none."""
Pair = tuple[int, int]


def contenders(last: Round) -> tuple[Candidate, ...]:
    """The candidates that stand for the answers of a round, those with most votes first."""
    return tuple(standing(vote.candidates, last) for vote in last.votes[:MOST_CONTENDERS])


def rounds_for(contending: int) -> int:
    """How many rounds suit so many contenders: one more than a cup takes, so that who has lost once may still win."""
    return (contending - 1).bit_length() + 1 if contending > 1 else 0


def most_matches(n: int) -> int:
    """How many matches there are at most between the answers of `n` candidates: each pair in both orders."""
    contending = min(n, MOST_CONTENDERS)
    return contending * (contending - 1)


def points(last: Round, matches: Sequence[Round]) -> list[float]:
    """Of each contender, by its place. `matches`: the rounds of matches so far."""
    contending = contenders(last)
    found = [0.0] * len(contending)
    for played in matches:
        sits_out = set(range(len(contending)))
        for match, pair in _between(contending, played):
            for place, part in zip(pair, _parts(match, last), strict=True):
                sits_out.discard(place)
                found[place] += part
        for place in sits_out:
            found[place] += 0.5
    return found


def meeting(last: Round, matches: Sequence[Round], rounds: int | None = None) -> tuple[Pair, ...]:
    """The matches of the next round: the indices of both candidates in the order of their prompt, each pair in both
    orders. None of them if it is over: after so many `rounds` (None: as `rounds_for` says), or if all have met."""
    contending = contenders(last)
    if len(matches) >= (rounds_for(len(contending)) if rounds is None else rounds):
        return ()
    met = {frozenset(pair) for played in matches for _, pair in _between(contending, played)}
    pairs = _best_pairs(points(last, matches), met)
    indices = [(contending[one].index, contending[other].index) for one, other in pairs]
    return tuple(order for one, other in indices for order in ((one, other), (other, one)))


def _between(contending: Sequence[Candidate], played: Round) -> Iterator[tuple[Candidate, Pair]]:
    """Matches with the places of those who met; a log that is taken on trust may hold others, which do not count."""
    places = {candidate.index: place for place, candidate in enumerate(contending)}
    for match in played.candidates:
        found = [places[parent] for parent in match.parents if parent in places]
        if len(found) == len(match.parents) == 2 and found[0] != found[1]:
            yield match, (found[0], found[1])


def _parts(match: Candidate, last: Round) -> tuple[float, float]:
    """What a match gives to both, in the order of its prompt."""
    one, other = (last.candidates[parent].answer for parent in match.parents)
    if match.answer is None or one == other or match.answer not in (one, other):
        return 0.25, 0.25
    return (0.5, 0.0) if match.answer == one else (0.0, 0.5)


def _best_pairs(standing: Sequence[float], met: set[frozenset[int]]) -> tuple[Pair, ...]:
    """As many pairs as there can be of those that have not met, of which as many as can be sat out before; of the ways
    to do that the one that lets the leader meet the nearest below, then who is next, and so on."""
    order = sorted(range(len(standing)), key=lambda place: -standing[place])
    unmet = {place: sum(frozenset((place, other)) not in met for other in order) for place in order}

    def worth(pairs: tuple[Pair, ...]) -> tuple[int, int]:
        return len(pairs), sum(unmet[place] for pair in pairs for place in pair)

    return max(_ways(order, met), key=worth)  # of equals the first


def _ways(order: Sequence[int], met: set[frozenset[int]]) -> Iterator[tuple[Pair, ...]]:
    """All ways to pair, the preferred ones first; eight contenders have 764."""
    if not order:
        yield ()
        return
    first, *others = order
    for other in others:
        if frozenset((first, other)) not in met:
            for rest in _ways([place for place in others if place != other], met):
                yield ((first, other), *rest)
    yield from _ways(others, met)
