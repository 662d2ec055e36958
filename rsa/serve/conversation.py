"""Messages as clients send them, to the conversation that a model reads.

System and developer messages at the beginning become one system message; text parts of a message are joined by line
breaks, and its images come before its text, as engines have them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from engine.api import ImagePart, Message
from rsa.errors import ProblemError
from rsa.problem import Problem, Turn
from rsa.serve.errors import ApiError

Fetch = Callable[[str, str], Awaitable[bytes]]
"""The bytes of an image by its URL; the second argument is the field, for messages. Raises ApiError."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message, whatever its interface calls its parts. `where` is its field, `images` are URLs and their fields."""

    role: str
    texts: Sequence[str]
    where: str
    images: Sequence[tuple[str, str]] = field(default=())


async def conversation(said: Sequence[Said], fetch: Fetch) -> tuple[Message, ...]:
    """The conversation, checked: it ends with a user's turn. Raises ApiError, naming the field."""
    turns: list[Turn] = []
    first = _leading(said)
    if first:
        turns.append(Turn("system", "\n\n".join(text for each in said[:first] for text in each.texts if text.strip())))
    for each in said[first:]:
        images = [ImagePart(data=await fetch(url, where)) for url, where in each.images]
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


async def data_url(url: str, where: str) -> bytes:
    """The bytes in a data: URL; other URLs are not fetched. Raises ApiError."""
    head, comma, data = url.partition(",")
    if not head.lower().startswith("data:") or not comma:
        raise ApiError(400, f"{where}: give the image as a data: URL", param=where, code="invalid_image_url")
    if not head.lower().endswith(";base64"):
        raise ApiError(400, f"{where}: a data: URL of an image is in base64", param=where, code="invalid_image_url")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            400, f"{where}: the data: URL is no valid base64 ({error})", param=where, code="invalid_image_url"
        ) from None
