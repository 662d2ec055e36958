"""What a request comes to: what is asked of the service, and the response before anything is done."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Message, Usage
from rsa.serve.errors import ApiError
from rsa.serve.models import Route
from rsa.serve.offers import Declared, Offer, offer
from rsa.serve.responses.request import AllowedTools, CreateResponse, ReasoningWish, TextFormat, TextWish
from rsa.serve.responses.response import CachedTokens, ReasoningTokens, Response, ResponseUsage
from rsa.serve.service import Asked
from rsa.serve.wishes import Wishes

_FIELDS = {
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
}
"""Fields of chat completions that have another name here."""


def asked_for(request: CreateResponse, route: Route, messages: Sequence[Message]) -> Asked:
    """What the service is asked. Raises ApiError for fields that contradict each other."""
    if request.background and request.store is False:
        raise ApiError(400, "background = true needs store = true: what nobody waits for is kept", param="store")
    reasoning = request.reasoning or ReasoningWish()
    return Asked(
        route,
        messages,
        Wishes(
            seed=None if request.seed is None else request.seed % 2**64,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_output_tokens,
            effort=reasoning.effort,
            pro=reasoning.mode == "pro",
            rsa=request.rsa or {},
        ),
        offer=offered(request),
        deltas=with_deltas(request),
        background=bool(request.background),
        metadata=request.metadata or {},
    )


def offered(request: CreateResponse) -> Offer:
    """The tools that a request offers: those that are allowed now. Raises ApiError."""
    tools, choice = request.tools or [], request.tool_choice
    declared = [
        Declared(tool.name, tool.description, tool.parameters, f"tools[{number}]") for number, tool in enumerate(tools)
    ]
    if not isinstance(choice, AllowedTools):
        plain = choice if choice is None or isinstance(choice, str) else choice.model_dump()
        return offer(declared, plain, request.parallel_tool_calls)
    allowed = [tool.name for tool in choice.tools]
    for number, name in enumerate(allowed):
        if name not in [tool.name for tool in tools]:
            field = f"tool_choice.tools[{number}].name"
            raise ApiError(400, f"{field} = {name!r}: there is no such tool", param=field)
    return offer([each for each in declared if each.name in allowed], choice.mode, request.parallel_tool_calls)


def with_deltas(request: CreateResponse) -> bool:
    """Whether somebody may read along."""
    return bool(request.stream or request.background)


def blank(request: CreateResponse, response_id: str, at: int) -> Response:
    """The response to a request before anything is done; it says again what was asked."""
    text = request.text or TextWish()
    return Response(
        id=response_id,
        created_at=at,
        status="queued" if request.background else "in_progress",
        model=request.model,
        instructions=request.instructions,
        previous_response_id=request.previous_response_id,
        tools=tuple(request.tools or ()),
        tool_choice=request.tool_choice or "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        max_tool_calls=request.max_tool_calls,
        text=TextWish(format=text.format or TextFormat(), verbosity=text.verbosity),
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        reasoning=request.reasoning or ReasoningWish(),
        max_output_tokens=request.max_output_tokens,
        store=request.store is not False,
        background=bool(request.background),
        metadata=request.metadata or {},
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        user=request.user,
    )


def usage_of(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=CachedTokens(cached_tokens=usage.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=ReasoningTokens(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def renamed(error: ApiError) -> ApiError:
    """An error that names fields as this interface does."""
    param, message = error.param, error.message
    for theirs, ours in _FIELDS.items():
        message = message.replace(theirs, ours)
        if param is not None and param.split(".")[0].split("[")[0] == theirs:
            param = ours + param.removeprefix(theirs)
    param = param and param.replace("tool_call_id", "call_id")
    return ApiError(error.status, message, param=param, code=error.code, type=error.type, headers=error.headers)
