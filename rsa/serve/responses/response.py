"""What `/v1/responses` gives back: a response with its items, every field of the Open Responses specification there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rsa.serve.responses.request import Choice, FunctionTool, ReasoningWish, Status, TextFormat, TextWish

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class Answered(BaseModel):
    """A part of what we answer."""

    model_config = ConfigDict(frozen=True)


class SummaryText(Answered):
    type: Literal["summary_text"] = "summary_text"
    text: str


class TextPart(Answered):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()


class Reasoning(Answered):
    """What there is to read of the thinking: of a model its own thoughts, of Markovian RSA how the run went."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    summary: tuple[SummaryText, ...] = ()
    status: Status


class OutputMessage(Answered):
    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    content: tuple[TextPart, ...] = ()
    status: Status


class FunctionCall(Answered):
    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


OutputItem = Annotated[Reasoning | OutputMessage | FunctionCall, Field(discriminator="type")]


class CachedTokens(Answered):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class ReasoningTokens(Answered):
    reasoning_tokens: int = 0


class ResponseUsage(Answered):
    """Tokens of everything that was generated for the response; of Markovian RSA, of all candidates of all rounds."""

    input_tokens: int = 0
    input_tokens_details: CachedTokens = CachedTokens()
    output_tokens: int = 0
    output_tokens_details: ReasoningTokens = ReasoningTokens()
    total_tokens: int = 0


class ResponseFault(Answered):
    code: str
    message: str


class IncompleteDetails(Answered):
    reason: str


class Response(Answered):
    """A response as it is at a moment.

    rsa  of a run of Markovian RSA: its id, votes, tokens by round and why it ended; None for a model's own answer.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    instructions: str | None = None
    previous_response_id: str | None = None
    output: tuple[OutputItem, ...] = ()
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: Choice = "auto"
    parallel_tool_calls: bool = True
    max_tool_calls: int | None = None
    truncation: Literal["disabled"] = "disabled"
    text: TextWish = TextWish(format=TextFormat())
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0
    reasoning: ReasoningWish | None = None
    usage: ResponseUsage | None = None
    max_output_tokens: int | None = None
    store: bool = True
    background: bool = False
    service_tier: str = "default"
    metadata: dict[str, str] = {}
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    rsa: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status not in ("queued", "in_progress")


class DeletedResponse(Answered):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(Answered):
    """The items that a response was asked with, the newest first unless they were wanted in order."""

    object: Literal["list"] = "list"
    data: tuple[dict[str, Any], ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
