"""The items of a request, and of the responses before it, as the conversation that a model reads.

An assistant's message and the calls after it are one turn; what was reasoned is no part of the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.api import ToolCall
from rsa.serve.conversation import Said
from rsa.serve.responses.request import (
    Content,
    CreateResponse,
    FunctionCallOutputItem,
    InputImage,
    Item,
    MessageItem,
    ReasoningItem,
    Refusal,
)
from rsa.serve.responses.response import OutputItem, OutputMessage, Reasoning, Response

BEFORE = "previous_response_id"
"""The field of all that earlier responses said."""


def turns(request: CreateResponse, before: Sequence[tuple[CreateResponse, Response]]) -> list[Said]:
    """The whole conversation: instructions, the turns of the responses `before`, the oldest first, and the new ones.

    Instructions of earlier requests are no part of it, as in OpenAI's interface.
    """
    said = [] if not request.instructions else [Said("system", [request.instructions], "instructions")]
    for asked, response in before:
        for item in (*asked.items, *response.output):
            _add(said, item, BEFORE)
    for number, item in enumerate(request.items):
        _add(said, item, "input" if isinstance(request.input, str) else f"input[{number}]")
    return said


def _add(said: list[Said], item: Item | OutputItem, where: str) -> None:
    match item:
        case MessageItem():
            texts, images = _parts(item.content, f"{where}.content")
            said.append(Said(item.role, texts, where if where in ("input", BEFORE) else f"{where}.content", images))
        case OutputMessage():
            text = "".join(part.text for part in item.content)
            if text.strip():
                said.append(Said("assistant", [text], where))
        case FunctionCallOutputItem():
            texts, images = _parts(item.output, f"{where}.output")
            said.append(Said("tool", texts, where, images, answers=item.call_id))
        case ReasoningItem() | Reasoning():
            pass
        case _:
            call = ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
            if not said or said[-1].role != "assistant":
                said.append(Said("assistant", [], where))
            said[-1] = replace(said[-1], calls=[*said[-1].calls, (call, f"{where}.arguments")])


def _parts(content: Content, where: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Texts, and images with their fields."""
    if isinstance(content, str):
        return [content], []
    texts, images = [], []
    for number, part in enumerate(content):
        if isinstance(part, InputImage):
            images.append((part.image_url, f"{where}[{number}].image_url"))
        else:
            texts.append(part.refusal if isinstance(part, Refusal) else part.text)
    return texts, images
