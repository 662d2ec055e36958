"""Messages as clients send them, to the conversation that a model reads.

System and developer messages at the beginning become one system message; text parts of a message are joined by line
breaks, and its images come before its text, as engines have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.api import ImagePart, Message, ModelInfo, ToolCall
from engine.errors import ContextError
from rsa.errors import ProblemError
from rsa.problem import Problem, Turn
from rsa.serve.errors import ApiError
from rsa.serve.pictures import PictureError, Pictures

LONGEST_TOKEN = 64
"""The characters of a token, more than which no text has on average."""


@dataclass(frozen=True, slots=True)
class Said:
    """One message, whatever its interface calls its parts.

    where    the field of its content.
    images   URLs, and the fields that they stand in.
    calls    that an assistant's message ends with, and the fields of their arguments.
    answers  the id of the call whose result it is, of the role `tool`.
    """

    role: str
    texts: Sequence[str]
    where: str
    images: Sequence[tuple[str, str]] = field(default=())
    calls: Sequence[tuple[ToolCall, str]] = field(default=())
    answers: str | None = None

    @property
    def role_field(self) -> str:
        return f"{self.where.removesuffix('.content')}.role"


async def conversation(said: Sequence[Said], pictures: Pictures) -> tuple[Message, ...]:
    """The conversation, checked: it ends with a user's turn, or with results of calls after one. Raises ApiError,
    naming the field."""
    turns: list[Turn] = []
    first = _leading(said)
    if first:
        turns.append(Turn("system", "\n\n".join(text for each in said[:first] for text in each.texts if text.strip())))
    for each in said[first:]:
        images = [await _picture(pictures, url, where) for url, where in each.images]
        match each.role:
            case "user" | "assistant" | "tool":
                calls = [_checked_call(call, where) for call, where in each.calls]
                turns.append(Turn(each.role, "\n".join(each.texts), images, calls, each.answers))
            case "system" | "developer":
                raise ApiError(400, "a system message can only come first", param=each.role_field)
            case _:
                raise ApiError(400, f"{each.role_field} = {each.role!r} is not known here", param=each.role_field)
    if first and not turns[0].text:
        del turns[0]
    return _checked(turns, said)


async def _picture(pictures: Pictures, url: str, where: str) -> ImagePart:
    try:
        return await pictures.take(url)
    except PictureError as error:
        raise ApiError(400, f"{where}: {error}", param=where, code="invalid_image_url") from None


def check_length(messages: Sequence[Message], model: ModelInfo) -> None:
    """Raises ContextError for texts that cannot fit, whatever they say: finding that out token by token could keep an
    engine from its other work for seconds."""
    characters = sum(len(message.text) for message in messages)
    if model.context_tokens is not None and characters > model.context_tokens * LONGEST_TOKEN:
        raise ContextError(
            f"the conversation has {characters:,} characters, and {model.name} reads {model.context_tokens:,} tokens: "
            "shorten it"
        )


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
        raise ApiError(400, str(error), param=_at_fault(said)) from None


def _at_fault(said: Sequence[Said]) -> str:
    """The field of a conversation that is none: a result of a call that nobody made, or an empty message."""
    made: set[str] = set()
    for each in said:
        if each.role == "tool" and each.answers not in made:
            return each.where.removesuffix(".content") + ".tool_call_id"
        if each.role != "tool" and not any(text.strip() for text in each.texts) and not each.images and not each.calls:
            return each.where
        made.update(call.id for call, _ in each.calls)
    return "messages"


def _checked_call(call: ToolCall, where: str) -> ToolCall:
    if call.values is None:
        raise ApiError(400, f"{where}: the arguments of a call are a JSON object, as a text", param=where)
    return call
