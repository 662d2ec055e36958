"""What the scripted engine plays: a script, and a row that plays it for one request."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.api import (
    Completion,
    EngineEvent,
    Failure,
    FinishReason,
    GenerationRequest,
    Section,
    TokenChunk,
    Usage,
)
from engine.byte_tokenizer import END, THINK_CLOSE, THINK_OPEN, whole_characters
from engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class Script:
    """What one request gets.

    reasoning, answer   text of the two sections. A model without think tags writes both, one after the other; after a
                        cue, it writes the answer.
    token_ids           raw tokens instead of the two texts; `THINK_CLOSE` ends the reasoning.
    never_ends          repeat the reasoning for ever: only a budget, `conclude` or `cancel` ends it. The
                        answer is written if it is asked for then.
    error, fail_after   fail with this error once `fail_after` tokens are generated.
    tokens_per_step     how many tokens a step adds at most; None: as the engine was told.
    """

    reasoning: str = ""
    answer: str = ""
    token_ids: tuple[int, ...] | None = None
    never_ends: bool = False
    error: EngineError | None = None
    fail_after: int = 0
    tokens_per_step: int | None = None


ScriptLike = Script | str | Sequence[int]
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


@dataclass(slots=True)
class _Writer:
    """The text of one section, as its tokens come in."""

    stop: tuple[str, ...]
    cue: str = ""  # what it begins with; no stop string is looked for there
    data: bytearray = field(default_factory=bytearray)
    sent: int = 0  # characters of the text that went out in chunks
    stopped_at: int | None = None  # where a stop string begins

    @property
    def text(self) -> str:
        return self.cue + self.written

    @property
    def written(self) -> str:
        data = bytes(self.data)
        whole = data[: whole_characters(data)].decode("utf-8", errors="replace")
        return whole[: self.stopped_at]

    def add(self, token: int) -> None:
        if token < THINK_OPEN:
            self.data.append(token)
            if self.stop:
                starts = [at for at in map(self.written.find, self.stop) if at >= 0]
                self.stopped_at = min(starts, default=None)

    def take(self, *, last: bool) -> str:
        """Text that no chunk carried yet, short of what may turn out to be a stop string."""
        text = self.text
        end = len(text) if last or self.stopped_at is not None else len(text) - self._held_back(self.written)
        new, self.sent = text[self.sent : end], max(self.sent, end)
        return new

    def _held_back(self, text: str) -> int:
        return max(
            (size for stop in self.stop for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )


class Row:
    """One request while it runs."""

    def __init__(self, request: GenerationRequest, script: Script, prompt_tokens: int, thinks: bool, room: int | None):
        self.request = request
        self.script = script
        self.thinks = thinks
        self.tagged = thinks and request.thinking
        self.prompt_tokens = prompt_tokens
        self.room = room  # tokens that the context leaves for the completion
        self.ids: list[int] = []
        self.section: Section = "answer" if thinks and not request.thinking else "reasoning"
        self.reasoning_tokens = 0
        self.answer_tokens = 0
        self.closed = thinks and not request.thinking
        self.forced = False
        self.cue_ids: list[int] = []  # that no chunk carried yet
        self.cancelled = False
        self.concluded = False
        self.writers = {"reasoning": _Writer(request.sampling.stop), "answer": _Writer(request.sampling.stop)}
        self.queues = self._queues(script)

    def _queues(self, script: Script) -> dict[Section, Iterator[int]]:
        if script.token_ids is None:
            reasoning, answer = tuple(script.reasoning.encode()), tuple(script.answer.encode())
        elif THINK_CLOSE in script.token_ids:
            split = script.token_ids.index(THINK_CLOSE)
            reasoning, answer = script.token_ids[:split], script.token_ids[split + 1 :]
        else:
            reasoning, answer = script.token_ids, ()
        endless = script.never_ends and reasoning
        first = reasoning if self.thinks or endless else reasoning + answer
        return {"reasoning": itertools.cycle(first) if endless else iter(first), "answer": iter(answer)}

    def step(self, size: int) -> list[EngineEvent]:
        """Generate up to `size` tokens; the last event is the row's end once it came."""
        events: list[EngineEvent] = []
        new: list[int] = []
        reason: FinishReason | None = None
        for _ in range(size):
            if self.script.error is not None and len(self.ids) >= self.script.fail_after:
                return [*self._chunk(new), Failure(self.request.id, self.script.error)]
            section = self.section
            reason = self._before_token()
            if reason is None and self.section == section:
                reason = self._token(new)
            if self.section != section:
                events += self._chunk(new, section, last=True)
                new, self.cue_ids = self.cue_ids, []
            if reason is not None:
                break
        events += self._chunk(new, last=reason is not None)
        if reason is not None:
            events.append(self._completion(reason))
        return events

    def _before_token(self) -> FinishReason | None:
        """End the row, or its reasoning, if a bound is reached."""
        sampling = self.request.sampling
        if self.cancelled:
            return "cancelled"
        if sampling.max_tokens is not None and len(self.ids) >= sampling.max_tokens:
            return "length"
        if self.room is not None and len(self.ids) >= self.room:
            return "length"
        if self.section == "answer":
            return "length" if self._used_up(self.answer_tokens, sampling.answer_budget) else None
        if self.concluded or self._used_up(self.reasoning_tokens, sampling.reasoning_budget):
            if not sampling.force_answer or sampling.answer_budget == 0:
                return "budget"
            if self.tagged:
                self._close()
            elif not self._give_cue():
                return "budget"
            self.forced = True
        return None

    def _give_cue(self) -> bool:
        sampling = self.request.sampling
        cue = tuple(sampling.cue.text.encode()) if sampling.cue is not None else ()
        if self.thinks or sampling.cue is None or self._used_up(len(cue), sampling.answer_budget):
            return False
        self.writers["answer"] = _Writer((*sampling.stop, *sampling.cue.stop), cue=sampling.cue.text)
        self.ids += cue
        self.cue_ids = list(cue)
        self.answer_tokens = len(cue)
        self.section = "answer"
        return True

    @staticmethod
    def _used_up(used: int, budget: int | None) -> bool:
        return budget is not None and used >= budget

    def _close(self) -> None:
        self.ids.append(THINK_CLOSE)
        self.closed = True
        self.section = "answer"

    def _token(self, new: list[int]) -> FinishReason | None:
        token = next(self.queues[self.section], None)
        if token is None and self.section == "reasoning" and self.tagged:
            self._close()
            return "stop" if self.request.sampling.answer_budget == 0 else None
        if token is None:
            self.ids.append(END)
            return "stop"
        self.ids.append(token)
        new.append(token)
        writer = self.writers[self.section]
        writer.add(token)
        if self.section == "reasoning":
            self.reasoning_tokens += 1
        else:
            self.answer_tokens += 1
        return "stop" if writer.stopped_at is not None else None

    def _chunk(self, new: list[int], section: Section | None = None, *, last: bool = False) -> list[EngineEvent]:
        section = section or self.section
        text = self.writers[section].take(last=last)
        return [TokenChunk(self.request.id, tuple(new), text, section)] if new or text else []

    def _completion(self, reason: FinishReason) -> Completion:
        reasoning, answer = self.writers["reasoning"].text, self.writers["answer"].text
        return Completion(
            request_id=self.request.id,
            token_ids=tuple(self.ids),
            reasoning=reasoning,
            text=answer if self.thinks else reasoning + answer,
            finish_reason=reason,
            closed=self.closed,
            forced=self.forced,
            usage=Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=len(self.ids),
                reasoning_tokens=self.reasoning_tokens,
            ),
        )
