"""What every engine refuses as its streams are entered: one reading of `engine.api.Engine.generate` for all."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import GenerationRequest, ModelInfo
from engine.errors import ContextError, RequestError


def check_requests(requests: Sequence[GenerationRequest], model: ModelInfo) -> None:
    """Raises RequestError, naming the request, for two of one id, a prompt without a word, and what the engine cannot
    do."""
    ids: set[str] = set()
    for request in requests:
        if request.id in ids:
            raise RequestError(f"two requests of one call have the id {request.id!r}: give each its own")
        ids.add(request.id)
        if not any(message.text.strip() for message in request.messages):
            raise RequestError(f"request {request.id!r}: the prompt is empty")
        if count_images(request) and (why := model.lacks("images")) is not None:
            raise RequestError(f"request {request.id!r} has images, but {why}")
        if takes_tools(request) and (why := model.lacks("tools")) is not None:
            raise RequestError(f"request {request.id!r} has tools, but {why}")
        if request.sampling.cue is not None and (why := model.lacks("conclude")) is not None:
            raise RequestError(f"request {request.id!r} has a cue, but {why}")
        if request.likelihoods and (why := model.lacks("logprobs")) is not None:
            raise RequestError(f"request {request.id!r} wants likelihoods, but {why}")


def check_room(request: GenerationRequest, prompt_tokens: int, model: ModelInfo, *, image_tokens: int = 0) -> None:
    """Raises ContextError for a prompt that leaves no room for a token.

    image_tokens  of the prompt's tokens, those that its images take.
    """
    if model.context_tokens is None or prompt_tokens < model.context_tokens:
        return
    images, share, advice = count_images(request), "", ""
    if images:
        share = f", {image_tokens:,} of them for {images} image{'s' * (images > 1)},"
        advice = "use fewer or smaller images, or "
    raise ContextError(
        f"request {request.id!r}: its prompt has {prompt_tokens:,} tokens{share} and {model.name} reads "
        f"{model.context_tokens:,} at most: {advice}shorten its texts"
    )


def count_images(request: GenerationRequest) -> int:
    """Images of all messages of a request."""
    return sum(len(message.images) for message in request.messages)


def takes_tools(request: GenerationRequest) -> bool:
    """Whether it has tools, or turns that speak of them."""
    return bool(request.tools) or any(message.calls or message.role == "tool" for message in request.messages)
