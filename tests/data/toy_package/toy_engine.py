"""An engine in a package of its own, found by its entry point: it spells what it was opened as, and answers 7."""

from __future__ import annotations

from collections import abc
from typing import Self

import anyio.lowlevel

from engine.admission import check_requests
from engine.api import EngineEvent, GenerationRequest, ModelInfo
from engine.byte_tokenizer import THINK_CLOSE, ByteTokenizer
from engine.errors import EngineClosedError
from engine.sequence import Sequence


class ToyEngine:
    """Writes the same for every request."""

    def __init__(self, name: str) -> None:
        self.model = ModelInfo(name=name, details={"source": f"toy:{name}"})
        self.tokenizer = ByteTokenizer()
        self.tokens = [*self.tokenizer.encode(f"I am {name}"), THINK_CLOSE, *self.tokenizer.encode(r"\boxed{7}")]
        self.closed = False

    def generate(self, requests: abc.Sequence[GenerationRequest]) -> ToyStream:
        return ToyStream(self, requests)

    async def aclose(self) -> None:
        self.closed = True


class ToyStream:
    """One request after the other."""

    def __init__(self, engine: ToyEngine, requests: abc.Sequence[GenerationRequest]) -> None:
        self.engine = engine
        self.requests = requests
        self.rows: dict[str, Sequence] = {}
        self.events: list[EngineEvent] = []

    async def __aenter__(self) -> Self:
        if self.engine.closed:
            raise EngineClosedError("the engine is closed: open a new one")
        check_requests(self.requests, self.engine.model)
        tokenizer = self.engine.tokenizer
        for each in self.requests:
            prompt = tokenizer.prompt_ids(each.messages, thinking=each.thinking)
            opened = tokenizer.opens_thinking(prompt)
            self.rows[each.id] = Sequence(each, tokenizer, prompt_tokens=len(prompt), opened=opened)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.rows = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EngineEvent:
        await anyio.lowlevel.checkpoint()
        if not self.events and not self.rows:
            raise StopAsyncIteration
        if not self.events:
            self.play(self.rows.pop(next(iter(self.rows))))
        return self.events.pop(0)

    def play(self, row: Sequence) -> None:
        for token in self.engine.tokens:
            if row.finish_reason is None:
                row.accept(row.forced[0] if row.forced else token)
        row.finish("stop")
        self.events += [*row.chunks(), row.completion()]

    def cancel(self, request_id: str) -> None:
        if request_id in self.rows:
            self.rows[request_id].finish("cancelled")

    def conclude(self, request_id: str, at: int = 0) -> None:
        if request_id in self.rows:
            self.rows[request_id].conclude(at)


def open_toy(name: str) -> ToyEngine:
    return ToyEngine(name)
