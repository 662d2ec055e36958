"""What the tasks' checkers share: the verdict, and reading the box of an answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a checker found: `correct`, the reason in words, and the answer as it was read."""

    correct: bool
    reason: str
    expression: str = ""

    def __bool__(self) -> bool:
        return self.correct


class UnreadableError(ValueError):
    """The text is no answer of the kind the task asks for; the message says why."""


def braced(text: str, start: int) -> tuple[str, int]:
    """The content of the `{...}` that opens at `start`, and the index after it. UnreadableError if there is none."""
    if text[start : start + 1] != "{":
        raise UnreadableError("a brace is missing")
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[start + 1 : index], index + 1
    raise UnreadableError("a brace is not closed")


def answer_in(text: str, max_chars: int) -> str:
    r"""The content of the last `\boxed{...}`, or the whole text where there is no box.

    UnreadableError if the text is longer than `max_chars` or the box does not close.
    """
    if len(text) > max_chars:
        raise UnreadableError(f"the answer has {len(text)} characters; at most {max_chars} are read")
    start = text.rfind("\\boxed{")
    return braced(text, start + len("\\boxed"))[0] if start >= 0 else text
