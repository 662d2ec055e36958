"""Candidates and rounds as the templates draw them: badges in a sign and a word, texts shortened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from evals.report.text import Clip, last_of
from evals.results import CandidateRecord
from evals.scorers.protocol import Score, ScoreStatus
from rsa.results import Candidate, Check, Round
from rsa.words import plural, shortened

Tone = Literal["right", "wrong", "partly", "none", "open"]
"""The colour of a badge; its sign and its word say the same."""
SHOWN_CANDIDATES = 64
"""Candidates of a round that a page shows: more are no longer read."""
ANSWER_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class Badge:
    """What became of a candidate, or of a vote."""

    tone: Tone
    sign: str
    word: str


_UNANSWERED: dict[ScoreStatus, Badge] = {
    "no_answer": Badge("none", "∅", "no answer"),
    "truncated": Badge("none", "✂", "truncated"),
    "degenerate": Badge("none", "↻", "repeats itself"),
    "too_hard": Badge("open", "?", "undecided"),
    "failed": Badge("open", "!", "failed"),
    "cut": Badge("none", "✂", "cut short"),
}
HANDED_ON = Badge("none", "→", "handed on")
"""The badge on a candidate of which no answer was wanted."""
RIGHT, WRONG = Badge("right", "✓", "right"), Badge("wrong", "✗", "wrong")
_ENDED = {
    "degenerate": _UNANSWERED["degenerate"],
    "failed": _UNANSWERED["failed"],
    "cancelled": Badge("none", "✂", "cut off"),
    "cut": _UNANSWERED["cut"],
}


_MARKS = {
    "verified": Badge("right", "✓", "verified"),
    "wrong": WRONG,
    "unchecked": Badge("open", "?", "unchecked"),
}


def checked(check: Check | None) -> Badge | None:
    """What the model's checker said of an answer, in a sign and a word; None without one."""
    return None if check is None else _MARKS[check.mark]


def badge_of(score: Score) -> Badge:
    """A score in a sign and a word."""
    return _UNANSWERED.get(score.status) or worth(score.value)


def worth(value: float | None) -> Badge:
    """A value from 0 to 1 in a sign and a word; None: nobody can tell."""
    if value is None:
        return Badge("open", "?", "unscored")
    if value in (0.0, 1.0):
        return RIGHT if value else WRONG
    return Badge("partly", "◐", f"{value:.2f}")


WENT_ON = "Went on from the tails of"


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A candidate as drawn.

    anchor   its id in the page.
    parents  (index, anchor) of those whose tails it read; no anchor if they are not shown. `went_on`: what it did with
             them.
    answer   None if it gave none; `reading` is how the metric read it, where that differs.
    tail     None if no text of it is kept.
    note     why it has no answer, or what a person should know besides; may be empty.
    check    what the model's checker says of the answer; None without a checker, and in an evaluation.
    """

    anchor: str
    index: int
    parents: tuple[tuple[int, str], ...]
    badge: Badge
    answer: str | None
    reading: str | None
    note: str
    forced: bool
    reasoning_tokens: int
    answer_tokens: int
    tail: Clip | None
    went_on: str = WENT_ON
    check: Badge | None = None


@dataclass(frozen=True, slots=True)
class RoundView:
    """A round of one problem as drawn; `more` candidates are not."""

    name: str
    candidates: tuple[CandidateView, ...]
    more: int
    counts: tuple[tuple[Badge, int], ...]


def scored_rounds(
    records: Sequence[CandidateRecord], texts: Mapping[tuple[int, int], Candidate], anchor: str, tail_characters: int
) -> tuple[RoundView, ...]:
    """The rounds of one problem and epoch; `texts` by (round, index), as far as they are kept."""
    rounds: dict[int, list[CandidateRecord]] = {}
    for record in records:
        rounds.setdefault(record.round, []).append(record)
    return tuple(
        _round(
            f"Round {number}",
            [badge_of(record.score) for record in members],
            [
                _scored(record, texts.get((number, record.index)), anchor, tail_characters)
                for record in members[:SHOWN_CANDIDATES]
            ],
        )
        for number, members in rounds.items()
    )


def _scored(record: CandidateRecord, written: Candidate | None, anchor: str, tail_characters: int) -> CandidateView:
    score = record.score
    answer = written.answer if written else score.extracted
    if answer is None:
        answer = score.extracted
    return CandidateView(
        anchor=_anchor(anchor, record.round, record.index),
        index=record.index,
        parents=_parents(anchor, record.round, record.parents),
        badge=badge_of(score),
        answer=_shortened(answer),
        reading=_shortened(score.extracted) if score.extracted != answer else None,
        note=record.error or score.reason,
        forced=record.forced,
        reasoning_tokens=record.reasoning_tokens,
        answer_tokens=record.completion_tokens - record.reasoning_tokens,
        tail=_tail(written, tail_characters),
    )


def unscored_rounds(rounds: Iterable[Round], agreeing: Mapping[int, set[int]], tail_characters: int) -> list[RoundView]:
    """The rounds of a solved problem; `agreeing`: by place in `rounds`, who gave the run's answer."""
    views, last = [], 0
    for place, played in enumerate(rounds):
        last = played.round if played.kind == "population" else last
        members = [
            _unscored(candidate, played, last, candidate.index in agreeing.get(place, ()), tail_characters)
            for candidate in played.candidates
        ]
        views.append(_round(name_of(played), [member.badge for member in members], members[:SHOWN_CANDIDATES]))
    return views


def name_of(played: Round) -> str:
    """What a round is called."""
    names = {"selection": "Selection", "match": f"Matches {played.round}"}
    return names.get(played.kind, f"Round {played.round}")


def _unscored(candidate: Candidate, played: Round, last: int, agrees: bool, tail_characters: int) -> CandidateView:
    """`last`: the number of the latest population, whose members are compared in matches."""
    usage = candidate.completion.usage if candidate.completion else None
    return CandidateView(
        anchor=_anchor("c", candidate.round, candidate.index),
        index=candidate.index,
        parents=_parents("c", last + 1 if played.kind == "match" else candidate.round, candidate.parents),
        went_on="Compares the attempts of" if played.kind == "match" else WENT_ON,
        badge=_agreement(candidate, agrees),
        answer=_shortened(candidate.answer),
        reading=None,
        note=candidate.error
        or " ".join(filter(None, [check_words(candidate.check), _approximate(candidate), _interrupted(candidate)])),
        forced=bool(candidate.completion and candidate.completion.forced),
        reasoning_tokens=usage.reasoning_tokens if usage else 0,
        answer_tokens=usage.completion_tokens - usage.reasoning_tokens if usage else 0,
        tail=_tail(candidate, tail_characters),
        check=checked(candidate.check),
    )


def check_words(check: Check | None) -> str:
    """What the model's checker says of an answer in a sentence; empty without one."""
    return "" if check is None else f"Its answer is {check.mark}: {check.reason}."


def _approximate(candidate: Candidate) -> str:
    approximate = candidate.tail is not None and candidate.tail.approximate
    return "Its tokens are estimated: counts and the length of its tail are approximate." if approximate else ""


def _interrupted(candidate: Candidate) -> str:
    broken = candidate.completion.interruptions if candidate.completion else ()
    if not broken:
        return ""
    lost = sum(each.after_tokens for each in broken if each.action == "restarted")
    what = f"{lost:,} tokens were lost" if lost else "nothing was lost"
    return f"Its server broke off {plural(len(broken), 'time')}; {what}."


def _agreement(candidate: Candidate, agrees: bool) -> Badge:
    """Nobody knows what is right here: the colours say who gave the answer that the run gave."""
    if candidate.answer is not None:
        return Badge("right", "●", "agrees") if agrees else Badge("wrong", "◆", "differs")
    return _ENDED.get(candidate.status) or (_UNANSWERED["no_answer"] if candidate.asked else HANDED_ON)


def _round(name: str, badges: Sequence[Badge], members: Sequence[CandidateView]) -> RoundView:
    counts: dict[Badge, int] = {}
    for badge in badges:
        counts[badge] = counts.get(badge, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: get_args(Tone).index(item[0].tone))
    return RoundView(name, tuple(members), len(badges) - len(members), tuple(ordered))


def _anchor(prefix: str, number: int, index: int) -> str:
    return f"{prefix}-{number}-{index}"


def _parents(prefix: str, number: int, parents: Sequence[int]) -> tuple[tuple[int, str], ...]:
    return tuple(
        (parent, _anchor(prefix, number - 1, parent) if parent < SHOWN_CANDIDATES else "") for parent in parents
    )


def _tail(written: Candidate | None, limit: int) -> Clip | None:
    if written is None or written.tail is None:
        return None
    return last_of(written.tail.text, limit)


def _shortened(answer: str | None) -> str | None:
    return None if answer is None else shortened(answer, ANSWER_CHARACTERS)
