"""What the contract of engines is checked on: engines of one kind, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.api import Completion, Engine, EngineEvent, GenerationRequest, Message, SamplingParams, TokenChunk

ENDLESS_TOKENS = 20_000
"""A budget that no endless sequence uses up while a promise is checked."""


@dataclass(frozen=True)
class Subject:
    """Engines of one kind.

    thinking  has think tags, reads text only and has a context of 512 tokens; what it writes depends on the seed.
    plain     the same without think tags; it does not end within 40 tokens of reasoning for most seeds.
    endless   thinks, never closes its reasoning by itself, nor an answer of a few tokens; it has room for
              `ENDLESS_TOKENS`, and runs two rows at once.
    fresh     opens another engine like `endless`, for a promise to close.
    failing   opens an engine like `thinking` that can run no request called `bad`, and no other of 400 tokens or more.
    patience_s   after which what should have come will not.
    """

    thinking: Engine
    plain: Engine
    endless: Engine
    fresh: Callable[[], Engine]
    failing: Callable[[], Engine]
    patience_s: float = 60.0


def request(
    name: str = "a", text: str = "Hello wörld", *, thinking: bool = True, **sampling: object
) -> GenerationRequest:
    return GenerationRequest(
        id=name,
        messages=(Message(role="user", text=text),),
        sampling=SamplingParams.model_validate(sampling),
        thinking=thinking,
    )


async def events_of(engine: Engine, *requests: GenerationRequest) -> list[EngineEvent]:
    async with engine.generate(requests) as stream:
        return [event async for event in stream]


async def completions(engine: Engine, *requests: GenerationRequest) -> list[Completion]:
    """In the order of the requests; each must have one."""
    events = await events_of(engine, *requests)
    done = {event.request_id: event for event in events if isinstance(event, Completion)}
    return [done[each.id] for each in requests]


def mixed(count: int = 8) -> list[GenerationRequest]:
    """Requests that differ in seed, prompt, budgets and sampling."""
    kinds = ({"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 20})
    return [
        request(
            f"r{i}",
            "x" * (1 + 37 * i % 90),
            seed=i,
            reasoning_budget=5 + 7 * i % 20,
            answer_budget=1 + i % 5,
            **kinds[i % len(kinds)],
        )
        for i in range(count)
    ]


def split(events: Sequence[EngineEvent], name: str) -> tuple[list[TokenChunk], Completion]:
    """The chunks and the completion of one request."""
    own = [event for event in events if event.request_id == name]
    chunks = [event for event in own if isinstance(event, TokenChunk)]
    (end,) = (event for event in own if isinstance(event, Completion))
    return chunks, end
