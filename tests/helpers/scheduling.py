"""A scheduler driven by hand, one step at a time, on a tiny model with the architecture of ZAYA1."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

from engine.api import Completion, EngineEvent, Failure, GenerationRequest, Message, SamplingParams, TokenChunk
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.model import Model
from engine.mlx.model import TextModel
from engine.mlx.row import Row
from engine.mlx.scheduler import Scheduler
from engine.mlx.tokenizer import ChatTokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class NoText(ChatTokenizer):
    """Knows which tokens end a completion, and writes no text."""

    def __init__(self, end_ids: Sequence[int] = ()) -> None:
        self.end_ids = frozenset(end_ids)
        self.think_open = self.think_close = ()

    def decode_exactly(self, token_ids: object) -> str:
        return ""


@cache
def tiny(layers: int = 1) -> Model:
    """Random weights; few layers, since most of the time is their number."""
    config = json.loads((GOLDEN / "tiny_hf" / "config.json").read_text())
    mx.random.seed(11)
    model = Model(ModelArgs.from_dict({**config, "num_hidden_layers": layers}))
    mx.eval(model.parameters())
    return model


class Driver:
    """Runs requests through a scheduler of its own, and keeps what they send, in order.

    end_ids  tokens that end a completion.
    """

    def __init__(
        self,
        model: TextModel,
        *,
        kv_bytes: int = 1 << 30,
        max_rows: int = 64,
        prefill_chunk: int = 64,
        end_ids: Sequence[int] = (),
        context_tokens: int | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            model, max_rows=max_rows, kv_bytes=kv_bytes, prefill_chunk=prefill_chunk, context_tokens=context_tokens
        )
        self.tokenizer = NoText(end_ids)
        self.events: list[EngineEvent] = []
        self.rows: list[Row] = []
        self._context_tokens = context_tokens

    def submit(self, prompts: Sequence[Sequence[int]], **sampling: Any) -> None:
        """A request for each prompt, with seeds of their own."""
        rows: list[Row] = []
        for prompt in prompts:
            number = len(self.rows) + len(rows)
            request = GenerationRequest(
                id=str(number),
                messages=(Message(role="user", text="?"),),
                sampling=SamplingParams.model_validate({"seed": number, **sampling}),
            )
            rows.append(
                Row(
                    request,
                    list(prompt),
                    self.tokenizer,
                    emit=self.events.append,
                    context_tokens=self._context_tokens,
                )
            )
        self.rows += rows
        self.scheduler.submit(rows)

    def run(self, after_each_step: Callable[[Scheduler], object] = lambda _: None) -> list[Completion | Failure]:
        """Step until nothing is left; how the requests ended, in order. Each is answered once."""
        while not self.scheduler.idle:
            self.scheduler.step()
            after_each_step(self.scheduler)
        ends = {e.request_id: e for e in self.events if isinstance(e, Completion | Failure)}
        assert len(ends) == sum(not isinstance(e, TokenChunk) for e in self.events) == len(self.rows)
        return [ends[row.request.id] for row in self.rows]

    def shown(self, number: int) -> tuple[int, ...]:
        """All tokens that were sent of a request."""
        chunks = [e for e in self.events if isinstance(e, TokenChunk) and e.request_id == str(number)]
        return tuple(token for chunk in chunks for token in chunk.token_ids)


def tokens(ends: Sequence[Completion | Failure]) -> list[tuple[int, ...]]:
    """What each request generated; none may have failed."""
    for end in ends:
        assert isinstance(end, Completion), end
    return [end.token_ids for end in ends if isinstance(end, Completion)]
