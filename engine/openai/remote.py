"""A model behind servers: what all requests to it share, and what it is asked to begin or to go on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine import sequence
from engine.api import GenerationRequest, ModelInfo
from engine.openai.bodies import (
    Capabilities,
    bounded,
    chat_body,
    completion_body,
    declared,
    seeded,
    telling,
    thinking,
    turns,
)
from engine.openai.connection import Settings
from engine.openai.tokens import BLANK, TAGS, RemoteTokenizer


@dataclass(frozen=True, slots=True)
class Remote:
    """A model, by what its engine has found out.

    name    what the servers call it.
    render  a prompt as token ids, where a tokenizer here can do it and the server agrees; None: it cannot.
    spell   token ids as the text that the server reads them from; None: it cannot be had.
    """

    name: str
    settings: Settings
    can: Capabilities
    tokenizer: RemoteTokenizer
    info: ModelInfo
    render: Callable[[GenerationRequest], list[int]] | None = None
    spell: Callable[[list[int]], str] | None = None

    def keeps_budget(self, request: GenerationRequest) -> bool:
        """The server ends the reasoning at its budget by itself."""
        return self.can.thinking_budget and request.thinking

    def can_continue(self, prompt_ids: Sequence[int] | None) -> bool:
        """Whether the server can go on after what is written. prompt_ids: those it was given, if they are known."""
        if self.can.continues in ("ids", "text"):
            return prompt_ids is not None or self.render is not None
        return self.can.continues == "turn"

    def asked(self, row: sequence.Sequence, prompt_ids: Sequence[int] | None) -> tuple[str, dict[str, Any]]:
        """The path and the body of the request that goes on from where a sequence stands."""
        request, done = row.request, len(row.token_ids)
        sampling = request.sampling
        more: dict[str, Any] = bounded(_tokens_left(row), self.can)
        # Another seed than that of the beginning: the same draws would come again.
        more |= seeded(sampling.seed + done, self.can, temperature=sampling.temperature)
        messages = turns(request.messages)
        going_on = done > 0 and self.can.continues != "turn"
        more |= telling(request, chat=not going_on)
        if done == 0:
            more |= {**thinking(request, self.can), **declared(request.tools)}
            if self.keeps_budget(request) and sampling.reasoning_budget is not None:
                more["thinking_token_budget"] = sampling.reasoning_budget
            return "/chat/completions", chat_body(self.name, messages, sampling, self.can, **more)
        if self.can.continues == "turn":
            more |= {**thinking(request, self.can), **declared(request.tools)}
            more |= {"continue_final_message": True, "add_generation_prompt": False}
            begun = {"role": "assistant", "content": self._written(row)}
            return "/chat/completions", chat_body(self.name, [*messages, begun], sampling, self.can, **more)
        prompt = self._prompt(row, prompt_ids)
        given = prompt if self.can.continues == "ids" or self.spell is None else self.spell(prompt)
        return "/completions", completion_body(self.name, given, sampling, self.can, **more)

    def _prompt(self, row: sequence.Sequence, prompt_ids: Sequence[int] | None) -> list[int]:
        if prompt_ids is None:
            assert self.render is not None, "who cannot continue is not asked to"
            prompt_ids = self.render(row.request)
        return [*prompt_ids, *row.token_ids]

    def _written(self, row: sequence.Sequence) -> str:
        """What the assistant has written so far, as its turn."""
        reasoning, answer = row.written()
        if not (self.info.thinks and row.request.thinking):
            return reasoning + answer
        begun = f"{TAGS[0]}\n{reasoning.lstrip()}"
        return begun if row.section == "reasoning" else f"{begun}\n{TAGS[1]}{answer or BLANK}"


def _tokens_left(row: sequence.Sequence) -> int | None:
    """Tokens that the answer may have: in the reasoning, with the answer that follows it."""
    if row.section == "answer" and row.tokens_left is not None:
        return max(1, row.tokens_left)
    return None if row.total_tokens is None else row.total_tokens - row.prompt_tokens - len(row.token_ids)
