"""The items of a request, and of the responses before it, as the conversation that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rsa.serve.conversation import Said
from rsa.serve.errors import ApiError
from rsa.serve.responses.request import (
    Content,
    CreateResponse,
    InputImage,
    Item,
    MessageItem,
    ReasoningItem,
    Refusal,
)
from rsa.serve.responses.response import OutputItem, Response


def turns(request: CreateResponse, before: Sequence[tuple[CreateResponse, Response]]) -> list[Said]:
    """The whole conversation: instructions, the turns of the responses `before`, the oldest first, and the new ones.

    Instructions of earlier requests are no part of it, as in OpenAI's interface. Raises ApiError.
    """
    said = [] if not request.instructions else [Said("system", [request.instructions], "instructions")]
    for asked, response in before:
        said += _of_items(asked.items, "previous_response_id")
        said += _of_output(response.output, "previous_response_id")
    where = "input" if isinstance(request.input, str) else "input[{}]"
    return said + _of_items(request.items, where)


def _of_items(items: Iterable[Item], where: str) -> list[Said]:
    """`where` is the field of an item; {} in it stands for its number."""
    said = []
    for number, item in enumerate(items):
        field = where.format(number)
        if isinstance(item, MessageItem):
            said.append(_of_message(item, field))
        elif not isinstance(item, ReasoningItem):
            raise ApiError(400, f"{field}: calls of tools are not read here", param=field, code="unsupported_parameter")
    return said


def _of_message(item: MessageItem, where: str) -> Said:
    texts, images = _parts(item.content, where)
    return Said(item.role, texts, where, images)


def _parts(content: Content, where: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Texts, and images with their fields."""
    if isinstance(content, str):
        return [content], []
    texts, images = [], []
    for number, part in enumerate(content):
        if isinstance(part, InputImage):
            images.append((part.image_url, f"{where}.content[{number}].image_url"))
        else:
            texts.append(part.refusal if isinstance(part, Refusal) else part.text)
    return texts, images


def _of_output(output: Iterable[OutputItem], where: str) -> list[Said]:
    said = []
    for item in output:
        if item.type == "message" and (text := "".join(part.text for part in item.content)).strip():
            said.append(Said("assistant", [text], where))
    return said
