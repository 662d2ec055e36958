"""Which of two attempts a judge prefers, from what it wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.api import AnswerCue, Completion
from rsa.answers.equivalence import quick_equivalence
from rsa.answers.extract import AnswerRule, choice_letter, last_boxed, marked_answer

LABELS = ("X", "Y")
"""What prompts call the two attempts: neither options nor numbers, which answers may be."""
CUE = AnswerCue(text="\n\nThe better attempt is \\boxed{", stop=("\n",))
"""How a judge without think tags is asked at its budget, as `rsa.answers.extract.CUES`."""
_NAMED = re.compile(r"(?:\\text\w*\{)?\s*+(?:attempt|solution|answer)\s*+\(?([XY])\)?[\s.}]*+", re.IGNORECASE)


def preferred(completion: Completion, answers: Sequence[str], rule: AnswerRule, *, thinks: bool) -> str | None:
    """The one of two answers whose attempt is preferred; None if that cannot be read.

    A judge names the attempt in a box, or after "the answer is". Some write the answer that they hold for right in its
    place, which is as good where it is one of the two.

    rule  of the answers.
    """
    one, other = answers
    if one == other or (thinks and not completion.closed):
        return None
    whole = completion.finish_reason == "stop"
    letter = choice_letter(completion.text)
    if letter in LABELS:
        return answers[LABELS.index(letter)]
    said = last_boxed(completion.text) or marked_answer(completion.text, whole=whole)
    if said is None:
        return None
    named = _NAMED.fullmatch(said)
    if named is not None:
        return answers[LABELS.index(named[1].upper())]
    agreeing = [answer for answer in answers if _same(said, answer, rule)]
    return agreeing[0] if len(agreeing) == 1 else None


def _same(said: str, answer: str, rule: AnswerRule) -> bool:
    found = quick_equivalence(said, answer, rule)
    return found is not None and found.same
