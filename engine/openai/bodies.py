"""What a server can do, and what it is therefore sent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.api import GenerationRequest, Message, SamplingParams, Tool

Reasoning = Literal["reasoning_content", "reasoning", "tags", "none"]
Continues = Literal["ids", "text", "turn", "none"]

OPTIONAL: dict[str, Any] = {
    "return_token_ids": True,
    "chat_template_kwargs": {"enable_thinking": True},
    "top_k": 20,
    "min_p": 0.01,
    "logprobs": True,
    "stream_options": {"include_usage": True},
    "seed": 1,
}
"""Fields that not every server takes, with a value to try each; in the order in which they are left out if one is
refused and the refusal does not say which."""
_MOST_STOPS = 4
"""OpenAI's API takes no more stop strings; who stops elsewhere, too, loses nothing by leaving out the rest."""
_SEEDS = 2**31 - 1
"""Seeds of less than 31 bits are taken by every server."""
_TYPES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do with a model; asked once, as its engine is opened.

    server           what it is, as far as it says: `vllm`, `sglang`, `llamacpp`, ...; `unknown`.
    streaming        it sends tokens as they come.
    reasoning        where it puts the reasoning: a field of that name, or `tags` in the text; `none`: there is none.
    thinking_budget  it keeps `thinking_token_budget`.
    token_ids        it gives the ids of tokens as they come.
    continues        how it goes on with what is written already: after the `ids` of prompt and completion or their
                     `text` (both at `/completions`), or after an assistant's `turn`; `none`: not at all.
    seeds            two draws of one seed were the same.
    logprobs, images, n   it says how likely tokens were, reads images, and gives several choices.
    tools            it tells the model of tools.
    fields           those of `OPTIONAL` that it takes.
    max_tokens       what it calls the bound on tokens.
    """

    server: str = "unknown"
    streaming: bool = True
    reasoning: Reasoning = "none"
    thinking_budget: bool = False
    token_ids: bool = False
    continues: Continues = "none"
    seeds: bool = False
    logprobs: bool = False
    images: bool = False
    tools: bool = False
    n: bool = False
    fields: frozenset[str] = frozenset()
    max_tokens: str = "max_tokens"

    @property
    def facts(self) -> dict[str, str | bool]:
        """For `ModelInfo.details`."""
        names = ("server", "streaming", "reasoning", "thinking_budget", "token_ids", "continues", "seeds", "logprobs",
                 "images", "tools", "n")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "template_kwargs": "chat_template_kwargs" in self.fields,
        }


def chat_body(
    model: str, messages: Sequence[dict[str, Any]], sampling: SamplingParams, can: Capabilities, **more: Any
) -> dict[str, Any]:
    """A body for `/chat/completions`; `more` are fields that it has besides."""
    return {"model": model, "messages": list(messages), **_drawn(sampling, can), **more}


def completion_body(
    model: str, prompt: str | Sequence[int], sampling: SamplingParams, can: Capabilities, **more: Any
) -> dict[str, Any]:
    """A body for `/completions`, which goes on after a prompt as it is."""
    given = prompt if isinstance(prompt, str) else list(prompt)
    return {"model": model, "prompt": given, **_drawn(sampling, can), **more}


def bounded(tokens: int | None, can: Capabilities) -> dict[str, int]:
    """The field that bounds how much is generated."""
    return {} if tokens is None else {can.max_tokens: tokens}


def thinking(request: GenerationRequest, can: Capabilities) -> dict[str, Any]:
    """The field that asks the chat template for a reasoning section, or for none."""
    if "chat_template_kwargs" not in can.fields:
        return {}
    return {"chat_template_kwargs": {"enable_thinking": request.thinking}}


def seeded(seed: int, can: Capabilities, *, temperature: float) -> dict[str, int]:
    """The field that fixes the draws. Greedy decoding needs none, and some servers batch only what has none."""
    return {"seed": seed % _SEEDS} if "seed" in can.fields and temperature > 0 else {}


def telling(request: GenerationRequest, *, chat: bool) -> dict[str, Any]:
    """The field that asks how likely each token was; `/completions` counts alternatives, of which it takes one."""
    return {"logprobs": True if chat else 1} if request.likelihoods else {}


def declared(tools: Sequence[Tool]) -> dict[str, Any]:
    """The field that tells the model of tools."""
    return {"tools": [tool.declared for tool in tools]} if tools else {}


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the API has them; images stand before the text."""
    return [{"role": message.role, "content": _content(message), **_of_tools(message)} for message in messages]


def _of_tools(message: Message) -> dict[str, Any]:
    """What a turn has besides where it calls tools, or brings the result of a call."""
    beside: dict[str, Any] = {} if message.answers is None else {"tool_call_id": message.answers}
    if message.calls:
        beside["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    return beside


def image_url(data: bytes) -> str:
    """An image as a URL that holds it."""
    kind = next((name for magic, name in _TYPES.items() if data.startswith(magic)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    images = [{"type": "image_url", "image_url": {"url": image_url(image.data)}} for image in message.images]
    return [*images, {"type": "text", "text": message.text}]


def _drawn(sampling: SamplingParams, can: Capabilities) -> dict[str, Any]:
    body: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "stream": can.streaming}
    if sampling.top_k and "top_k" in can.fields:
        body["top_k"] = sampling.top_k
    if sampling.min_p and "min_p" in can.fields:
        body["min_p"] = sampling.min_p
    if sampling.stop:
        body["stop"] = list(sampling.stop[:_MOST_STOPS])
    if can.streaming and "stream_options" in can.fields:
        body["stream_options"] = {"include_usage": True}
    if can.token_ids:
        body["return_token_ids"] = True
    return body
