"""Why a run has no answer, for people to read: how its final candidates ended, and what they wrote last."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rsa.errors import RSAError
from rsa.prompts import load_prompts
from rsa.results import Candidate, RunResult

_WORDS_CHARACTERS = 80
_GROUPS = 4
"""Groups of candidates that wrote the same that are told: more are no longer read."""
_FORMS = {
    "boxed": r"ended without an answer in \boxed{...}",
    "choice": "ended without naming a letter",
    "code": "ended without a block of code",
    "text": "wrote no answer",
}


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What became of the final candidates.

    why         how many ended in which way, the most frequent way first: `8 of 8 final candidates used up beta = 256`.
    wrote       the last words that they wrote, with how many wrote them; the most frequent first.
    more        candidates whose words are not among them.
    beta_short  whether most of them had no tokens left to reason with.
    """

    why: str
    wrote: tuple[tuple[str, int], ...]
    more: int
    beta_short: bool


def unanswered(result: RunResult) -> Unanswered | None:
    """Why there is no answer; None if there is one, or no candidate at all."""
    final = result.rounds[-1].candidates if result.rounds else ()
    if result.answer is not None or not final:
        return None
    short = f"used up beta = {result.budgets.beta} before they had an answer"
    ways = Counter(short if _used_up_beta(each, result) else _way(each, result) for each in final)
    (first, many), *others = ways.most_common()
    why = [f"{many} of {len(final)} final candidates {first}", *(f"{many} {way}" for way, many in others)]
    words = Counter(filter(None, map(last_words, final)))
    wrote = tuple(words.most_common(_GROUPS))
    return Unanswered(
        why=", ".join(why),
        wrote=wrote,
        more=words.total() - sum(many for _, many in wrote),
        beta_short=2 * ways[short] >= len(final),
    )


def last_words(candidate: Candidate) -> str:
    """The end of its answer section, or, without that, of its reasoning, in one line."""
    completion = candidate.completion
    if completion is None:
        return ""
    line = " ".join((completion.text.strip() or completion.reasoning.strip()).split())
    return line if len(line) <= _WORDS_CHARACTERS else f"…{line[1 - _WORDS_CHARACTERS :]}"


def _used_up_beta(candidate: Candidate, result: RunResult) -> bool:
    completion = candidate.completion
    if completion is None or candidate.status != "ok":
        return False
    # A limit of the run closes a reasoning before its time, too.
    return completion.finish_reason == "budget" or (completion.forced and not result.limits_hit)


def _way(candidate: Candidate, result: RunResult) -> str:
    completion = candidate.completion
    if candidate.status != "ok" or completion is None:
        ways = {"degenerate": "kept repeating themselves", "failed": "failed", "cut": "were cut short by a policy"}
        return ways.get(candidate.status, "were cut off by a limit")
    if completion.finish_reason == "length":
        return f"used up answer_budget = {result.budgets.answer_budget} in their answer"
    try:
        return _FORMS[load_prompts(result.config.task).answer]
    except RSAError:  # the prompts file has gone
        return "ended without an answer"
