"""Messages as clients send them, to the conversation that a model reads.

System and developer messages at the beginning become one system message; text parts of a message are joined by line
breaks, and its images come before its text, as engines have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.api import ImagePart, Message
from rsa.errors import ProblemError
from rsa.problem import Problem, Turn
from rsa.serve.errors import ApiError
from rsa.serve.pictures import PictureError, Pictures


@dataclass(frozen=True, slots=True)
class Said:
    """One message, whatever its interface calls its parts. `where` is its field, `images` are URLs and their fields."""

    role: str
    texts: Sequence[str]
    where: str
    images: Sequence[tuple[str, str]] = field(default=())


async def conversation(said: Sequence[Said], pictures: Pictures) -> tuple[Message, ...]:
    """The conversation, checked: it ends with a user's turn. Raises ApiError, naming the field."""
    turns: list[Turn] = []
    first = _leading(said)
    if first:
        turns.append(Turn("system", "\n\n".join(text for each in said[:first] for text in each.texts if text.strip())))
    for each in said[first:]:
        images = [await _picture(pictures, url, where) for url, where in each.images]
        match each.role:
            case "user" | "assistant":
                turns.append(Turn(each.role, "\n".join(each.texts), images))
            case "system" | "developer":
                raise ApiError(
                    400,
                    "a system message can only come first",
                    param=f"{each.where}.role",
                )
            case _:
                raise ApiError(400, f"{each.where}.role = {each.role!r} is not known here", param=f"{each.where}.role")
    if first and not turns[0].text:
        del turns[0]
    return _checked(turns, said)


async def _picture(pictures: Pictures, url: str, where: str) -> ImagePart:
    try:
        return await pictures.take(url)
    except PictureError as error:
        raise ApiError(400, f"{where}: {error}", param=where, code="invalid_image_url") from None


def _leading(said: Sequence[Said]) -> int:
    """How many system messages it begins with."""
    for number, each in enumerate(said):
        if each.role not in ("system", "developer"):
            return number
        if each.images:
            raise ApiError(400, "a system message cannot have images: put them into a user's", param=each.where)
    return len(said)


def _checked(turns: Sequence[Turn], said: Sequence[Said]) -> tuple[Message, ...]:
    if not any(turn.role == "user" for turn in turns):
        raise ApiError(400, "the conversation has no user's turn: its last turn is what is answered", param="messages")
    try:
        return Problem.conversation(turns).messages
    except ProblemError as error:
        blank = (each.where for each in said if not any(text.strip() for text in each.texts) and not each.images)
        raise ApiError(400, str(error), param=next(blank, "messages")) from None
