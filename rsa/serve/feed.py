"""A run's events as the live page takes them: what it shows, and no more.

A candidate's event holds all of its tokens and its text, megabytes of a run of many long candidates; a page wants its
length and its answer, and the text of the one that somebody has opened. `Feed` makes the small events of a whole run,
`text_of` what there is of one candidate.
"""

from __future__ import annotations

from typing import Any

from rsa.events import (
    BudgetsLowered,
    CandidateFinished,
    CandidateProgress,
    CandidateStarted,
    Event,
    LimitHit,
    PolicyDecided,
    RoundFinished,
    RoundStarted,
    RunFinished,
    RunStarted,
    Warned,
)
from rsa.policies.words import chosen, in_words
from rsa.results import Candidate, Check, RunResult, Vote
from rsa.settings.config import RSAConfig
from rsa.settings.suitability import sampling_of

Small = dict[str, Any]
"""A small event: `type`, `at_s`, and what the page shows of it."""
PROGRESS_EVERY_S = 0.5
"""Seconds between two reports of who has how many tokens: all candidates' together."""
ANSWER_CHARACTERS, TEXT_CHARACTERS = 300, 100_000
"""How much is sent of an answer among others, and of a text that somebody has opened: its end, where it is longer."""


class Feed:
    """Makes the small events of one run; feed it each event in order.

    Progress is kept back and sent together, at most every PROGRESS_EVERY_S of the run's own clock.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], dict[int, tuple[int, str]]] = {}
        self._told_s = 0.0

    def take(self, event: Event) -> list[Small]:
        """What the page is to be told now."""
        if isinstance(event, CandidateProgress):
            self._rows.setdefault((event.kind, event.round), {})[event.index] = (event.tokens, event.section)
            return self._progress(event.at_s) if event.at_s - self._told_s >= PROGRESS_EVERY_S else []
        if isinstance(event, CandidateFinished):
            self._rows.get((event.kind, event.candidate.round), {}).pop(event.candidate.index, None)
        if isinstance(event, RoundFinished):
            self._rows.pop((event.kind, event.round), None)
        return [{"type": event.type, "at_s": round(event.at_s, 2), **_small(event)}]

    def _progress(self, at_s: float) -> list[Small]:
        self._told_s = at_s
        told = [
            {
                "type": "progress",
                "at_s": round(at_s, 2),
                "kind": kind,
                "round": number,
                "rows": [[index, tokens, section] for index, (tokens, section) in sorted(rows.items())],
            }
            for (kind, number), rows in self._rows.items()
            if rows
        ]
        self._rows.clear()
        return told


def text_of(event: CandidateProgress | CandidateFinished) -> Small:
    """What a candidate writes, or wrote, for who has opened it; `cut`: the characters before it that are left out."""
    if isinstance(event, CandidateProgress):
        return {"type": "writing", "section": event.section, "tokens": event.tokens, "text": event.text}
    candidate = event.candidate
    completion = candidate.completion
    reasoning, cut = _end_of(completion.reasoning if completion else "")
    answer, answer_cut = _end_of(completion.text if completion else "")
    return {
        "type": "written",
        **_candidate(candidate),
        "reasoning": reasoning,
        "cut": cut,
        "text": answer,
        "text_cut": answer_cut,
        "tail": candidate.tail.text if candidate.tail else None,
        "whole_answer": candidate.answer,
    }


def _small(event: Event) -> Small:
    match event:
        case RunStarted():
            return _run(event)
        case BudgetsLowered() | Warned():
            return {"message": event.message}
        case RoundStarted():
            return {"kind": event.kind, "round": event.round, "subsets": event.subsets}
        case CandidateStarted():
            return {
                "kind": event.kind,
                "round": event.round,
                "index": event.index,
                "prompt_tokens": event.prompt_tokens,
            }
        case CandidateFinished():
            return {"kind": event.kind, "round": event.candidate.round, **_candidate(event.candidate)}
        case RoundFinished():
            return {
                "kind": event.kind,
                "round": event.round,
                "asked": event.asked,
                "votes": [_vote(vote) for vote in event.votes],
                "prompt_tokens": event.usage.prompt_tokens,
                "completion_tokens": event.usage.completion_tokens,
            }
        case LimitHit():
            return event.model_dump(mode="json", include={"limit", "round", "action", "used", "allowed"})
        case PolicyDecided():
            decision = event.decision
            return {
                **decision.model_dump(mode="json", include={"round", "policy", "action", "at", "wave", "numbers"}),
                "vote": None if decision.vote is None else _vote(decision.vote),
                "words": in_words(decision),
            }
        case RunFinished():
            return _result(event.result)
        case _:
            return {}


def _run(event: RunStarted) -> Small:
    config, budgets = event.config, event.budgets
    return {
        "model": event.model.name,
        "notes": event.model.notes,
        "settings": settings_of(config),
        "n": config.n,
        "c": config.c,
        "t": config.t,
        "select": config.select,
        "task": event.task,
        "seed": str(config.seed),  # a script has no whole numbers beyond 2**53
        "beta": budgets.beta,
        "tau": budgets.tau,
        "answer_budget": budgets.answer_budget,
        "prompt_bound": budgets.prompt_bound,
        "limits": config.limits.model_dump(mode="json", exclude_none=True),
        "resumed": event.resumed,
    }


def settings_of(config: RSAConfig) -> dict[str, float]:
    """How candidates are drawn, where that is not the plain way."""
    return dict(sampling_of(config))


def _candidate(candidate: Candidate) -> Small:
    usage = candidate.completion.usage if candidate.completion else None
    return {
        "index": candidate.index,
        "parents": candidate.parents,
        "status": candidate.status,
        "asked": candidate.asked,
        "answer": None if candidate.answer is None else candidate.answer[:ANSWER_CHARACTERS],
        "check": _check(candidate.check),
        "tokens": usage.completion_tokens if usage else 0,
        "reasoning_tokens": usage.reasoning_tokens if usage else 0,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "forced": bool(candidate.completion and candidate.completion.forced),
        "tail_tokens": len(candidate.tail.ids) if candidate.tail else 0,
        "error": candidate.error,
        "started_s": round(candidate.started_s, 2),
        "finished_s": round(candidate.finished_s, 2),
    }


def _vote(vote: Vote) -> Small:
    return {
        "answer": vote.answer[:ANSWER_CHARACTERS],
        "candidates": vote.candidates,
        "of": vote.of,
        "check": _check(vote.check),
    }


def _check(check: Check | None) -> Small | None:
    return None if check is None else check.model_dump()


def _result(result: RunResult) -> Small:
    text, cut = _end_of(result.text)
    return {
        "answer": result.answer,
        "check": _check(result.check),
        "text": text,
        "text_cut": cut,
        "stopped_because": result.stopped_because,
        "answered_from_round": result.answered_from_round,
        "votes": [_vote(vote) for vote in result.votes],
        "agreeing": None if result.agreeing is None else _vote(result.agreeing),
        "chosen": chosen(result),
        "limits_hit": result.limits_hit,
        "warnings": result.warnings,
        "prompt_tokens": result.usage.prompt_tokens,
        "cached_tokens": result.usage.cached_tokens,
        "completion_tokens": result.usage.completion_tokens,
        "reasoning_tokens": result.usage.reasoning_tokens,
        "wall_s": round(result.timings.wall_s, 2),
        "started_at": result.timings.started_at,
    }


def _end_of(text: str) -> tuple[str, int]:
    """The end of a text, and how many characters stand before it."""
    cut = max(len(text) - TEXT_CHARACTERS, 0)
    return text[cut:], cut
