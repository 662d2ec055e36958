"""What `/v1/chat/completions` reads and writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.api import COUNTABLE, ToolCall, Usage
from rsa.serve import aliases
from rsa.serve.answering import Finished
from rsa.serve.conversation import Said
from rsa.serve.errors import ApiError
from rsa.serve.offers import Declared, Offer, offer
from rsa.serve.records import RequestRecord
from rsa.serve.wishes import Wishes, effort_of

MAX_CHOICES = 128
_NOT_DONE: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "web_search_options": (),
}
"""Fields of OpenAI's that would change the answer and are not done here, and the values that ask for nothing."""


class ImageUrl(RequestRecord):
    """`detail` changes nothing here: an image is seen as its model sees images."""

    url: str
    detail: str | None = None


class ContentPart(RequestRecord):
    """A part of a message: a text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class CalledFunction(RequestRecord):
    """`arguments`: a JSON object, as a text."""

    name: str = Field(min_length=1)
    arguments: str


class ChatToolCall(RequestRecord):
    """A call in an assistant's message."""

    id: str = Field(min_length=1)
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None


class ChatMessage(RequestRecord):
    """One message of the conversation. `reasoning_content` of an earlier answer is left out of prompts, and what else
    the messages of OpenAI's client bring along."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    def said(self, where: str) -> Said:
        """Raises ApiError for a part that lacks what its type says, and for calls where none can be."""
        return replace(self._parts(where), calls=self._calls(where), answers=self._answers(where))

    def _calls(self, where: str) -> list[tuple[ToolCall, str]]:
        if self.tool_calls and self.role != "assistant":
            raise ApiError(400, f"{where}.tool_calls: only an assistant calls tools", param=f"{where}.tool_calls")
        return [
            (
                ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments),
                f"{where}.tool_calls[{number}].function.arguments",
            )
            for number, call in enumerate(self.tool_calls or [])
        ]

    def _answers(self, where: str) -> str | None:
        if (self.role == "tool") != (self.tool_call_id is not None):
            why = "says which call it answers" if self.role == "tool" else "is for messages of the role 'tool'"
            raise ApiError(400, f"{where}.tool_call_id {why}", param=f"{where}.tool_call_id")
        return self.tool_call_id

    def _parts(self, where: str) -> Said:
        if self.content is None or isinstance(self.content, str):
            return Said(self.role, [self.content or ""], f"{where}.content")
        texts: list[str] = []
        images: list[tuple[str, str]] = []
        for number, part in enumerate(self.content):
            field = f"{where}.content[{number}].{part.type}"
            if part.type == "text" and part.text is not None:
                texts.append(part.text)
            elif part.type == "image_url" and part.image_url is not None:
                images.append((part.image_url.url, f"{field}.url"))
            else:
                raise ApiError(400, f"{field} is missing", param=field)
        return Said(self.role, texts, f"{where}.content", images)


class StreamOptions(RequestRecord):
    """`include_usage`: a last chunk without choices has the usage."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class FunctionRecord(RequestRecord):
    """A function that the model may call; see `rsa.serve.offers`."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolRecord(RequestRecord):
    """A tool; functions are the only kind here."""

    type: Literal["function"]
    function: FunctionRecord


class ChatRequest(RequestRecord):
    """A request for a chat completion. Fields of OpenAI's that change no answer are taken and have no effect."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=COUNTABLE)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=COUNTABLE)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=COUNTABLE)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    tools: list[ToolRecord] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    rsa: dict[str, Any] | None = None

    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    web_search_options: dict[str, Any] | None = None

    metadata: dict[str, str] | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None
    verbosity: str | None = None

    rsa_n: int | None = None
    rsa_k: int | None = None
    rsa_t: int | None = None
    tail_window_len: int | None = None
    rsa_tail_window_len: int | None = None
    short_resp_len: int | None = None
    rsa_short_resp_len: int | None = None
    rsa_tail_window: bool | None = None
    rsa_use_tail_window: bool | None = None
    use_pacore: bool | None = None
    rsa_use_pacore: bool | None = None
    rsa_final_n: int | None = None
    final_aggregation_prompts: int | None = None
    final_temperature: float | None = None
    rsa_final_temperature: float | None = None
    final_top_p: float | None = None
    rsa_final_top_p: float | None = None
    final_top_k: int | None = None
    rsa_final_top_k: int | None = None
    rsa_summarize: bool | None = None
    summarize: bool | None = None
    rsa_max_concurrency: int | None = None
    rsa_debug: bool | None = None
    return_rsa_metadata: bool | None = None
    rsa_return_metadata: bool | None = None
    return_aggregation_prompt: bool | None = None
    rsa_return_aggregation_prompt: bool | None = None
    summary_prompt: str | None = None
    rsa_summary_prompt: str | None = None

    def said(self) -> list[Said]:
        """The conversation. Raises ApiError."""
        return [message.said(f"messages[{number}]") for number, message in enumerate(self.messages)]

    def offer(self) -> Offer:
        """The tools that it offers. Raises ApiError."""
        declared = [
            Declared(
                tool.function.name, tool.function.description, tool.function.parameters, f"tools[{number}].function"
            )
            for number, tool in enumerate(self.tools or [])
        ]
        return offer(declared, self.tool_choice, self.parallel_tool_calls)

    def wishes(self) -> Wishes:
        """Raises ApiError for what is not done here, and where two fields disagree."""
        self._refuse_what_is_not_done()
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stop:
            raise ApiError(400, "stop: an empty text would end every answer before it begins", param="stop")
        return Wishes(
            choices=self.n or 1,
            seed=None if self.seed is None else self.seed % 2**64,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            max_tokens=self._max_tokens(),
            stop=stop,
            effort=effort_of(self.reasoning_effort, "reasoning_effort"),
            rsa=self.rsa or {},
            aliases=aliases.settings_of({name: getattr(self, name) for name in aliases.NAMES}),
        )

    def _max_tokens(self) -> int | None:
        new, old = self.max_completion_tokens, self.max_tokens
        if new is not None and old is not None and new != old:
            raise ApiError(
                400, f"max_tokens = {old} contradicts max_completion_tokens = {new}: leave one out", param="max_tokens"
            )
        return old if new is None else new

    def _refuse_what_is_not_done(self) -> None:
        for name, without_effect in _NOT_DONE.items():
            value = getattr(self, name)
            if value is not None and value not in without_effect:
                raise ApiError(400, f"{name} is not supported: leave it out", param=name, code="unsupported_parameter")
        kind = (self.response_format or {"type": "text"}).get("type")
        if kind != "text":
            raise ApiError(
                400,
                f"response_format.type = {kind!r}: only 'text' is written here, nothing holds a model to a schema",
                param="response_format",
                code="unsupported_parameter",
            )
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options are for a stream: set stream", param="stream_options")


def usage_of(usage: Usage) -> dict[str, Any]:
    """Tokens, as chat completions count them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def total_usage(choices: list[Finished]) -> Usage:
    """Of several choices: they share one prompt, which is counted once."""
    total = sum((choice.usage for choice in choices), Usage())
    first = choices[0].usage
    return total.model_copy(update={"prompt_tokens": first.prompt_tokens, "cached_tokens": first.cached_tokens})


def choice_of(finished: Finished) -> dict[str, Any]:
    """A choice of a completion that is not streamed."""
    text = finished.text if finished.text or not finished.calls else None
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if finished.reasoning:
        message["reasoning_content"] = finished.reasoning
    if finished.calls:
        message["tool_calls"] = [call_of(call) for call in finished.calls]
    return {"index": finished.index, "message": message, "finish_reason": finished.finish_reason, "logprobs": None}


def call_of(call: ToolCall) -> dict[str, Any]:
    """A call as chat completions write it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
