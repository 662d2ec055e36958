"""What the scripted engine plays: a script, and a sequence that plays it for one request."""

from __future__ import annotations

import itertools
from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass

from engine.api import EngineEvent, Failure, GenerationRequest, Section
from engine.byte_tokenizer import END, THINK_CLOSE, ByteTokenizer
from engine.errors import EngineError
from engine.likelihoods import Likelihood
from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Script:
    """What one request gets.

    reasoning, answer   text of the two sections. A model without think tags writes both, one after the other; after a
                        cue, it writes the answer.
    token_ids           raw tokens instead of the two texts; `THINK_CLOSE` ends the reasoning.
    never_ends          repeat the reasoning for ever: only a budget, `conclude` or `cancel` ends it. The
                        answer is written if it is asked for then.
    held                waits before its first token, as with `ScriptedEngine(hold=...)`.
    error, fail_after   fail with this error once `fail_after` tokens are generated.
    tokens_per_step     how many tokens a step adds at most; None: as the engine was told.
    log_probabilities   of the tokens it gets, in order, the last one of all that follow; empty: numbers that depend on
                        each token and its place. Entropies are what such a draw is expected to tell: their negatives.
    """

    reasoning: str = ""
    answer: str = ""
    token_ids: tuple[int, ...] | None = None
    never_ends: bool = False
    held: bool = False
    error: EngineError | None = None
    fail_after: int = 0
    tokens_per_step: int | None = None
    log_probabilities: tuple[float, ...] = ()


ScriptLike = Script | str | abc.Sequence[int]
"""A script, or its text: `reasoning</think>answer`, where without the tag the same text is reasoned and answered; or
token ids."""


def as_script(value: ScriptLike) -> Script:
    """Read the short forms of a script."""
    if isinstance(value, Script):
        return value
    if isinstance(value, str):
        reasoning, tag, answer = value.removeprefix("<think>").partition("</think>")
        return Script(reasoning=reasoning, answer=answer if tag else reasoning)
    return Script(token_ids=tuple(value))


class ScriptedRow(Sequence):
    """A sequence whose tokens come from a script."""

    def __init__(
        self, request: GenerationRequest, script: Script, tokenizer: ByteTokenizer, *, context_tokens: int | None
    ) -> None:
        prompt_ids = tokenizer.prompt_ids(request.messages, thinking=request.thinking, tools=request.tools)
        super().__init__(
            request,
            tokenizer,
            prompt_tokens=len(prompt_ids),
            opened=tokenizer.opens_thinking(prompt_ids),
            context_tokens=context_tokens,
        )
        self.script = script
        self._tagged = bool(tokenizer.think_close)
        self._still_to_play = self._tokens_of(script)

    def step(self, size: int) -> list[EngineEvent]:
        """Play up to `size` tokens; the last event is the end of the request once it came."""
        failure: Failure | None = None
        for _ in range(size):
            if self.finish_reason is not None or failure is not None:
                break
            if self.script.error is not None and len(self.token_ids) >= self.script.fail_after:
                failure = Failure(self.request.id, self.script.error)
            else:
                token = self.forced[0] if self.forced else self._next()
                self.accept(token, likelihood=self._likelihood(token))
        end = failure or (self.completion() if self.finish_reason is not None else None)
        return [*self.chunks(), *([end] if end is not None else [])]

    def _next(self) -> int:
        token = next(self._still_to_play[self.section], None)
        if token is not None:
            return token
        return THINK_CLOSE if self._tagged and self.section == "reasoning" else END

    def _likelihood(self, token: int) -> Likelihood:
        told, place = self.script.log_probabilities, len(self.token_ids)
        drawn = told[min(place, len(told) - 1)] if told else -((token * 31 + place * 17) % 64) / 16
        return Likelihood(drawn, -drawn)

    def _tokens_of(self, script: Script) -> dict[Section, Iterator[int]]:
        if script.token_ids is None:
            reasoning, answer = tuple(script.reasoning.encode()), tuple(script.answer.encode())
        elif THINK_CLOSE in script.token_ids:
            split = script.token_ids.index(THINK_CLOSE)
            reasoning, answer = script.token_ids[:split], script.token_ids[split + 1 :]
        else:
            reasoning, answer = script.token_ids, ()
        endless = script.never_ends and reasoning
        first = reasoning if self._tagged or endless else reasoning + answer
        played = itertools.cycle(first) if endless else iter(first)
        if not self._tagged and self.section == "answer":  # it writes the same, whatever that is called
            return {"reasoning": iter(()), "answer": played}
        return {"reasoning": played, "answer": iter(answer)}
