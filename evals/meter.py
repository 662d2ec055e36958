"""How busy an engine is: counts what passes between it and its users, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from engine.api import (
    Completion,
    Engine,
    EngineEvent,
    Failure,
    GenerationRequest,
    GenerationStream,
    ModelInfo,
    TokenChunk,
    Tokenizer,
)


@dataclass(slots=True)
class EngineLoad:
    """`tokens` generated so far; `running` requests: handed to the engine and not ended."""

    tokens: int = 0
    running: int = 0


class MeteredEngine:
    """An engine whose streams are counted in `meter`. Closing it leaves the engine itself open."""

    def __init__(self, engine: Engine, meter: EngineLoad) -> None:
        self.meter = meter
        self._engine = engine

    @property
    def model(self) -> ModelInfo:
        return self._engine.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.tokenizer

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return _MeteredStream(self._engine.generate(requests), self.meter, len(requests))

    async def aclose(self) -> None:
        """The engine is its owner's to close."""


class _MeteredStream:
    def __init__(self, stream: GenerationStream, meter: EngineLoad, requests: int) -> None:
        self.cancel, self.conclude = stream.cancel, stream.conclude
        self._stream = stream
        self._meter = meter
        self._running = requests

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        self._meter.running += self._running
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._meter.running -= self._running
        self._running = 0
        await self._stream.__aexit__(*exc)

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        event = await self._stream.__anext__()
        if isinstance(event, TokenChunk):
            self._meter.tokens += len(event.token_ids)
        elif isinstance(event, Completion | Failure):
            self._meter.running -= 1
            self._running -= 1
        return event
