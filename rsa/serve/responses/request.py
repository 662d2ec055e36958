"""What a client sends to `/v1/responses`.

Of the fields of OpenAI's and of the Open Responses specification, those are refused whose neglect would change what the
answer means; those that only advise (a service tier, a cache key) are taken and change nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rsa.serve.kinds import by_shape, by_type, kind
from rsa.serve.records import QueryRecord, RequestRecord

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Include = Literal["reasoning.encrypted_content"]
Status = Literal["in_progress", "completed", "incomplete"]
ShortText = Annotated[str, Field(max_length=512)]
Name = Annotated[str, Field(min_length=1)]


class Given(BaseModel):
    """A part of a request. Fields that we do not know are left out: what a server wrote may be sent back as it was."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class InputText(Given):
    type: Literal["input_text"]
    text: str


class OutputText(Given):
    type: Literal["output_text"]
    text: str


class Refusal(Given):
    type: Literal["refusal"]
    refusal: str


class InputImage(Given):
    """An image, as a data: URL or one that the server may fetch. Every image is read at the size that the model takes,
    whatever its `detail`."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


Part = Annotated[
    Annotated[InputText, kind("input_text")]
    | Annotated[OutputText, kind("output_text")]
    | Annotated[Refusal, kind("refusal")]
    | Annotated[InputImage, kind("input_image")],
    by_type("a part of a message", "input_text", "input_image", "output_text", "refusal"),
]
Content = Annotated[
    Annotated[str, kind("text")] | Annotated[list[Part], kind("parts")],
    by_shape("should be a text or a list of parts", {"text": str, "parts": list}),
]


class MessageItem(Given):
    """A message of the conversation, of anybody."""

    type: Literal["message"] = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class FunctionCallItem(Given):
    """A call of a tool that the model has made."""

    type: Literal["function_call"]
    id: str | None = None
    call_id: Name
    name: Name
    arguments: str


class FunctionCallOutputItem(Given):
    """What a tool gave back."""

    type: Literal["function_call_output"]
    id: str | None = None
    call_id: Name
    output: Content


class ReasoningItem(Given):
    """Thoughts of an earlier turn, which no model is shown again."""

    type: Literal["reasoning"]
    id: str | None = None


Item = Annotated[
    Annotated[MessageItem, kind("message")]
    | Annotated[FunctionCallItem, kind("function_call")]
    | Annotated[FunctionCallOutputItem, kind("function_call_output")]
    | Annotated[ReasoningItem, kind("reasoning")],
    by_type("an item", "message", "function_call", "function_call_output", "reasoning", default="message"),
]
Input = Annotated[
    Annotated[str, kind("text")] | Annotated[list[Item], kind("items")],
    by_shape("should be a text or a list of items", {"text": str, "items": list}),
]


class FunctionTool(Given):
    """A function that the model may call; `parameters` is the JSON schema of its arguments. See `rsa.serve.offers`."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Given):
    type: Literal["function"]
    name: Name


class AllowedTools(Given):
    """Of the tools, those that the model may call now."""

    type: Literal["allowed_tools"]
    tools: list[NamedFunction] = Field(min_length=1, max_length=128)
    mode: Literal["none", "auto", "required"] = "auto"


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], kind("word")]
    | Annotated[
        Annotated[NamedFunction, kind("function")] | Annotated[AllowedTools, kind("allowed_tools")],
        by_type("a choice of tools", "function", "allowed_tools"),
        kind("object"),
    ],
    by_shape("should be a word or a choice of tools", {"word": str, "object": (dict, BaseModel)}),
]


class ReasoningWish(Given):
    """How hard to think: `effort` and `mode` choose a profile, see docs/serving.md. Any `summary` is taken: the
    summary is what a reader is told while the model thinks."""

    effort: Effort | None = None
    mode: Literal["standard", "pro"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Given):
    """The form of the answer: text. JSON is not enforced here, so it is not promised."""

    type: Literal["text"] = "text"


class TextWish(Given):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseStreamOptions(Given):
    include_obfuscation: bool | None = None


class CreateResponse(RequestRecord):
    """A request for a response.

    input       a text, which is a user's, or items: the conversation so far, or what is new after
                `previous_response_id`.
    background  the answer is worked out whether the client stays or not, also after the server was stopped; it needs
                `store`.
    rsa         settings of Markovian RSA, as of the command line and profiles; see docs/serving.md.
    """

    model: str
    input: Input
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(None, ge=1)
    reasoning: ReasoningWish | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    top_logprobs: Literal[0] | None = None
    text: TextWish | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[Include] | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], ShortText] | None = Field(None, max_length=16)
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    user: str | None = None
    seed: int | None = None
    rsa: dict[str, Any] | None = None

    @property
    def items(self) -> list[Any]:
        """The input as items."""
        if isinstance(self.input, str):
            return [MessageItem(role="user", content=self.input)]
        return list(self.input)


class RetrieveQuery(QueryRecord):
    """`stream`: the events of the response, those with a number above `starting_after`."""

    stream: bool = False
    starting_after: int | None = Field(None, ge=-1, lt=2**53)


class ItemsQuery(QueryRecord):
    """Which items: `limit` of them, the newest first unless `order` says otherwise, and those `after` the item of an
    id."""

    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
