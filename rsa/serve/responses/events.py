"""The events of a response's stream, as both specifications have them. `rsa.serve.responses.writer` puts them in order.

What is told of the thinking is a summary here: the one form of it that OpenAI's clients and Open Responses both know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rsa.serve.responses.response import Answered, OutputItem, Response, SummaryText, TextPart


class _Event(Answered):
    """`sequence_number`: the first event of a response has 0, each one after it one more."""

    type: str
    sequence_number: int


class _Lifecycle(_Event):
    """An event with the whole response as it is then."""

    response: Response


class _OfItem(_Event):
    """An event of the item at `output_index` of the output."""

    item_id: str
    output_index: int


class Created(_Lifecycle):
    type: Literal["response.created"] = "response.created"


class Queued(_Lifecycle):
    type: Literal["response.queued"] = "response.queued"


class InProgress(_Lifecycle):
    type: Literal["response.in_progress"] = "response.in_progress"


class Completed(_Lifecycle):
    type: Literal["response.completed"] = "response.completed"


class Incomplete(_Lifecycle):
    """The answer is not whole: tokens ran out, or somebody cancelled it (its status then says so)."""

    type: Literal["response.incomplete"] = "response.incomplete"


class Failed(_Lifecycle):
    type: Literal["response.failed"] = "response.failed"


class ItemAdded(_Event):
    type: Literal["response.output_item.added"] = "response.output_item.added"
    output_index: int
    item: OutputItem


class ItemDone(_Event):
    type: Literal["response.output_item.done"] = "response.output_item.done"
    output_index: int
    item: OutputItem


class SummaryPartAdded(_OfItem):
    type: Literal["response.reasoning_summary_part.added"] = "response.reasoning_summary_part.added"
    summary_index: int = 0
    part: SummaryText


class SummaryDelta(_OfItem):
    type: Literal["response.reasoning_summary_text.delta"] = "response.reasoning_summary_text.delta"
    summary_index: int = 0
    delta: str


class SummaryDone(_OfItem):
    type: Literal["response.reasoning_summary_text.done"] = "response.reasoning_summary_text.done"
    summary_index: int = 0
    text: str


class SummaryPartDone(_OfItem):
    type: Literal["response.reasoning_summary_part.done"] = "response.reasoning_summary_part.done"
    summary_index: int = 0
    part: SummaryText


class PartAdded(_OfItem):
    type: Literal["response.content_part.added"] = "response.content_part.added"
    content_index: int = 0
    part: TextPart


class TextDelta(_OfItem):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    content_index: int = 0
    delta: str
    logprobs: tuple[Any, ...] = ()


class TextDone(_OfItem):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    content_index: int = 0
    text: str
    logprobs: tuple[Any, ...] = ()


class PartDone(_OfItem):
    type: Literal["response.content_part.done"] = "response.content_part.done"
    content_index: int = 0
    part: TextPart


class ArgumentsDelta(_OfItem):
    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    delta: str


class ArgumentsDone(_OfItem):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


Event = Annotated[
    Created
    | Queued
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ItemAdded
    | ItemDone
    | SummaryPartAdded
    | SummaryDelta
    | SummaryDone
    | SummaryPartDone
    | PartAdded
    | TextDelta
    | TextDone
    | PartDone
    | ArgumentsDelta
    | ArgumentsDone,
    Field(discriminator="type"),
]
LAST = ("response.completed", "response.incomplete", "response.failed")
"""Types of events, one of which ends a stream."""
