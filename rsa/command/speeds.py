"""How fast an engine is, found out by real requests: prompts read and tokens written, seconds each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from engine.api import (
    Completion,
    Engine,
    Failure,
    GenerationRequest,
    Message,
    Restarted,
    SamplingParams,
    TokenChunk,
    Tokenizer,
)

_MOST_ATTEMPTS = 8
"""How often rows are started to see them all run: a model may end them sooner than its speed can be told."""
_SPARE_TOKENS = 256
"""What rows may write beside the tokens that are counted: chunks do not come with each of them."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt that was read, and one token written: how many tokens it had, and how long that took."""

    prompt_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Writing:
    """Rows that wrote at once.

    context_tokens  of each row, halfway through what was counted.
    tokens          that all of them wrote together in `seconds`.
    """

    rows: int
    context_tokens: int
    tokens: int
    seconds: float

    @property
    def step_s(self) -> float:
        """Seconds in which each row writes a token."""
        return self.seconds * self.rows / self.tokens


def prompt_with(tokenizer: Tokenizer, tokens: int) -> Message:
    """A prompt of so many tokens, or a few less; if it cannot be so short, the shortest. No two begin alike, so that
    none is found to have been read before."""
    rng = random.SystemRandom()
    words = [str(rng.randrange(10, 100)) for _ in range(tokens)]

    def of(count: int) -> Message:
        return Message(role="user", text=f"Add up, one after the other: {' '.join(words[:count])}")

    least, most = 1, len(words)
    while least < most:
        middle = (least + most + 1) // 2
        if tokenizer.prompt_tokens([of(middle)]) <= tokens:
            least = middle
        else:
            most = middle - 1
    return of(least)


async def read(engine: Engine, message: Message) -> Reading:
    """Read a prompt, one that has not been read before, alone. Raises what the engine fails with."""
    start = perf_counter()
    async with engine.generate(_requests(message, rows=1, max_tokens=1, seed=0)) as stream:
        async for event in stream:
            if isinstance(event, Failure):
                raise event.error
    return Reading(engine.tokenizer.prompt_tokens([message]), perf_counter() - start)


async def write(engine: Engine, message: Message, *, rows: int, tokens: int) -> Writing | None:
    """Have so many rows write, each at least so many tokens, and count while all of them do.

    What rows write until the last of them has begun is not counted. Rows that end by themselves are started anew. None:
    they ended too soon, over and over. Raises what the engine fails with.
    """
    prompt, written, seconds = engine.tokenizer.prompt_tokens([message]), 0, 0.0
    most = longest(tokens)
    if engine.model.context_tokens is not None:
        most = min(most, engine.model.context_tokens - prompt)
    for attempt in range(_MOST_ATTEMPTS):
        requests = _requests(message, rows=rows, max_tokens=most, seed=attempt * rows)
        more, took = await _while_all_write(engine, requests, rows * tokens - written)
        written, seconds = written + more, seconds + took
        if written >= rows * tokens:
            break
    return Writing(rows, prompt + tokens // 2, written, seconds) if written else None


def longest(tokens: int) -> int:
    """The most tokens that a row writes for so many to be counted."""
    return 2 * tokens + _SPARE_TOKENS


async def _while_all_write(engine: Engine, requests: Sequence[GenerationRequest], enough: int) -> tuple[int, float]:
    """Tokens and seconds between the first and the last moment at which every request had just sent some."""
    begin: tuple[int, float] | None = None
    counted, seconds, written = 0, 0.0, 0
    silent = {request.id for request in requests}
    async with engine.generate(requests) as stream:
        async for event in stream:
            if isinstance(event, Failure):
                raise event.error
            if isinstance(event, Completion | Restarted):
                break  # from here on they are fewer, or what was counted is void
            assert isinstance(event, TokenChunk)
            written += len(event.token_ids)
            silent.discard(event.request_id)
            if silent:
                continue
            silent, now = {request.id for request in requests}, perf_counter()
            begin = begin or (written, now)
            counted, seconds = written - begin[0], now - begin[1]
            if counted >= enough:
                break
    return counted, seconds


def _requests(message: Message, *, rows: int, max_tokens: int, seed: int) -> list[GenerationRequest]:
    sampling = SamplingParams(max_tokens=max_tokens)
    return [
        GenerationRequest(
            id=f"row-{row}", messages=(message,), sampling=sampling.model_copy(update={"seed": seed + row})
        )
        for row in range(rows)
    ]
