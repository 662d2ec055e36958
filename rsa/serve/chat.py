"""`/v1/chat/completions` and `/v1/models`, as OpenAI's clients speak to them."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rsa.serve.answering import AnswerDelta, Answering, Finished, ReasoningDelta, ToolCalls, finished
from rsa.serve.chat_records import ChatRequest, call_of, choice_of, total_usage, usage_of
from rsa.serve.conversation import conversation
from rsa.serve.errors import api_error
from rsa.serve.records import read_request
from rsa.serve.service import Asked, Service
from rsa.serve.streams import DONE, EventStream, begun_soon, event, unless_left

OWNER = "markovian-rsa"


async def list_models(request: Request) -> Response:
    """All public names; those of runs follow their model."""
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": [_model(service, name) for name in service.served.names]})


async def show_model(request: Request) -> Response:
    """One public name, which may have slashes."""
    service: Service = request.app.state.service
    return JSONResponse(_model(service, service.served.route(request.path_params["name"]).name))


def _model(service: Service, name: str) -> dict[str, Any]:
    route = service.served.route(name)
    facts: dict[str, Any] = {"id": name, "object": "model", "created": service.started_at, "owned_by": OWNER}
    if route.rsa:
        facts["rsa"] = {"model": route.model, "profile": route.profile}
    return facts


async def complete(request: Request) -> Response:
    """A chat completion, streamed or whole."""
    service: Service = request.app.state.service
    wanted = await read_request(request, ChatRequest)
    route = service.served.route(wanted.model)
    wishes = wanted.wishes()
    messages = await conversation(wanted.said(), service.pictures())
    answering = service.ask(
        Asked(
            route,
            messages,
            wishes,
            offer=wanted.offer(),
            deltas=bool(wanted.stream),
            metadata=wanted.metadata or {},
        )
    )
    head = _Head(wanted.model, answering.run_id)
    try:
        if wanted.stream:
            await begun_soon(answering, service.settings.first_byte_s)
            options = wanted.stream_options
            chunks = _chunks(answering, head, usage=bool(options and options.include_usage))
            return EventStream(chunks, keep_alive_s=service.settings.keep_alive_s, leave=answering.leave)
        choices = await unless_left(request, finished(answering))
    except BaseException:
        answering.leave()
        raise
    return JSONResponse(head.whole(choices))


@dataclass(frozen=True, slots=True)
class _Head:
    """What all chunks of a completion share."""

    model: str
    run_id: str | None
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[Finished]) -> dict[str, Any]:
        body = {
            **self._facts("chat.completion"),
            "choices": [choice_of(choice) for choice in choices],
            "usage": usage_of(total_usage(choices)),
        }
        return {**body, **_rsa(choices[0])}

    def chunk(self, index: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> ServerSentEvent:
        choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
        return event({**self._facts("chat.completion.chunk"), "choices": [choice], **more})

    def usage(self, choices: list[Finished]) -> ServerSentEvent:
        usage = usage_of(total_usage(choices))
        return event({**self._facts("chat.completion.chunk"), "choices": [], "usage": usage})

    def _facts(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _rsa(choice: Finished) -> dict[str, Any]:
    return {"rsa": choice.metadata} if choice.metadata else {}


async def _chunks(answering: Answering, head: _Head, *, usage: bool) -> AsyncIterator[ServerSentEvent]:
    """The first chunk of a choice says who speaks, and of a run its id; the last one why it ended."""
    named: dict[str, Any] = {"rsa": {"run_id": head.run_id}} if head.run_id is not None else {}
    yield head.chunk(0, {"role": "assistant", "content": ""}, **named)
    begun, choices, called = {0}, list[Finished](), Counter[int]()
    try:
        async for part in answering:
            if part.index not in begun:
                begun.add(part.index)
                yield head.chunk(part.index, {"role": "assistant", "content": ""})
            match part:
                case ReasoningDelta():
                    yield head.chunk(part.index, {"reasoning_content": part.text})
                case AnswerDelta():
                    yield head.chunk(part.index, {"content": part.text})
                case ToolCalls():
                    yield head.chunk(part.index, {"tool_calls": _calls(part, called[part.index])})
                    called[part.index] += len(part.calls)
                case Finished():
                    choices.append(part)
                    yield head.chunk(part.index, {}, part.finish_reason, **_rsa(part))
        if usage:
            yield head.usage(choices)
    except Exception as error:
        yield event(api_error(error).body())
    yield DONE


def _calls(part: ToolCalls, before: int) -> list[dict[str, Any]]:
    """Calls of a chunk, each whole; their index counts those of the choice."""
    return [{"index": number, **call_of(call)} for number, call in enumerate(part.calls, before)]
