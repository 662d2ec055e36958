"""The boundary between those who want text and those who generate it.

Plain data crosses it: frozen records in, a stream of events out. This module imports the standard library
and pydantic only, so that a caller may depend on it without pulling in MLX.

Reasoning models write `<think> reasoning </think> answer`. The two *sections* have budgets of their own
(`SamplingParams.reasoning_budget`, `answer_budget`), enforced by the engine token by token. A model without
think tags has one section: all it writes counts as reasoning and is also the answer text. Only a cue
(`SamplingParams.cue`) begins an answer section for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.likelihoods import Likelihoods as Likelihoods  # noqa: PLC0414 - a name of this module, too
from engine.tools import Tool as Tool  # noqa: PLC0414
from engine.tools import ToolCall as ToolCall  # noqa: PLC0414

Role = Literal["system", "user", "assistant", "tool"]
Section = Literal["reasoning", "answer"]
FinishReason = Literal["stop", "length", "budget", "cancelled"]
"""Why a completion ended.

stop       the model ended it: an end token, a stop string, or the end of its reasoning when no answer is wanted
length     `max_tokens` or `answer_budget` was used up
budget     `reasoning_budget` was used up inside the reasoning, and no answer was forced
cancelled  the caller cancelled it; what was generated until then is kept
"""

COUNTABLE = 2**31
"""All that engines count, tokens and places in a vocabulary, is less."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImagePart(_Record):
    """An image of a message, as the bytes of its file (PNG, JPEG, ...)."""

    data: bytes = Field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """What logs call it: the digest of `data`, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


class Message(_Record):
    """One turn of a conversation; `images` come before `text`, as vision chat templates put them.

    calls    what an assistant's turn ended with, after its text.
    answers  the id of the call whose result a tool's turn is.
    """

    role: Role
    text: str
    images: tuple[ImagePart, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None


class AnswerCue(_Record):
    """How a model without think tags is asked for its answer: with the beginning of it.

    text  written for the model, token by token as if it had drawn it.
    stop  strings that end what the model writes after that, beside `SamplingParams.stop`.
    """

    text: str = Field(min_length=1)
    stop: tuple[str, ...] = ()


class SamplingParams(_Record):
    """How one completion is drawn, and how long it may be.

    temperature       0 is greedy.
    top_p, top_k, min_p   1.0, 0 and 0.0 switch them off. Each keeps at least the most likely token.
    max_tokens        bound on all generated tokens; None: the two budgets alone decide.
    stop              strings that end the completion; they and what follows are not part of its text.
    seed              64-bit. The i-th draw of a completion depends on (seed, i) alone, never on its neighbours.
    reasoning_budget  beta: generated tokens before the closing think tag; None: no limit but the context.
    answer_budget     tokens after the reasoning; None: no limit but the context; 0: no answer is wanted, the
                      completion stops when its reasoning ends.
    force_answer      at `reasoning_budget` inside the reasoning, close the think tag for the model (with the blank
                      line that follows it in chat templates) and let it answer: budget forcing. If false, or if
                      `answer_budget` is 0, it ends there: `budget`.
    cue               what `force_answer` writes where the model has no think tags. It counts as part of the answer
                      section; without one, or if it would use up `answer_budget`, such a model ends there: `budget`.
    """

    temperature: float = Field(1.0, ge=0.0, le=10.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0, lt=COUNTABLE)
    min_p: float = Field(0.0, ge=0.0, le=1.0)
    max_tokens: int | None = Field(None, ge=1, lt=COUNTABLE)
    stop: tuple[str, ...] = ()
    seed: int = Field(0, ge=0, lt=2**64)
    reasoning_budget: int | None = Field(None, ge=1, lt=COUNTABLE)
    answer_budget: int | None = Field(None, ge=0, lt=COUNTABLE)
    force_answer: bool = True
    cue: AnswerCue | None = None


class GenerationRequest(_Record):
    """One completion to generate.

    id        chosen by the caller, unique within one `Engine.generate` call; every event carries it.
    thinking  ask the chat template for a reasoning section, where the model has one. If false, all that is written is
              the answer section, unless the model opens a think tag all the same.
    tools     what the model is told that it may call. Its calls are text of the answer section, in the model's own
              form; those that a server took out of the text are put back as `<tool_call>` with JSON in it.
    likelihoods   how likely each token was is wanted with the completion.
    """

    id: str
    messages: tuple[Message, ...] = Field(min_length=1)
    sampling: SamplingParams = SamplingParams()
    thinking: bool = True
    tools: tuple[Tool, ...] = ()
    likelihoods: bool = False


class Usage(_Record):
    """Tokens of one completion. `cached_tokens` of the prompt had been computed before (a shared prefill).

    completion_tokens counts every token generated for the request, forced ones included;
    reasoning_tokens those before the closing think tag, or before the cue.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Newly generated tokens of one request, all of one section.

    `text` is what they add to the section's text; it never ends inside a character, so it may be empty or
    lag behind `token_ids` by a few tokens.
    """

    request_id: str
    token_ids: tuple[int, ...]
    text: str
    section: Section


class Interruption(_Record):
    """What broke while a completion was generated elsewhere, and what was done about it.

    action        `retried`: asked for again, before there was a token; `continued`: from the token where it broke,
                  nothing was lost; `restarted`: from the beginning, with the same seed, after a `Restarted`.
    after_tokens  how many tokens there were.
    error         what broke, in a line.
    """

    action: Literal["retried", "continued", "restarted"]
    after_tokens: int
    error: str


class Completion(_Record):
    """A finished completion; the last event of its request.

    token_ids    every generated token in order: reasoning, closing think tag, answer, end token if any.
    reasoning    text of the reasoning section, without tags.
    text         text of the answer section. For a model without think tags all that it wrote: `reasoning`, and the cue
                 with what follows it.
    closed       the reasoning was closed by its end tag (the model's own, or a forced one).
    forced       the engine ended it, with the tag or with the cue, at `reasoning_budget` or by `conclude`.
    approximate  its token ids are an estimate: who generated it does not say which they were.
    interruptions   of the connection to who generates it; what was generated before the last `restarted` is not in it.
    likelihoods  of its tokens, if they were asked for.
    """

    request_id: str
    token_ids: tuple[int, ...] = Field(repr=False)
    reasoning: str = Field(repr=False)
    text: str
    finish_reason: FinishReason
    closed: bool = False
    forced: bool = False
    usage: Usage = Usage()
    approximate: bool = False
    interruptions: tuple[Interruption, ...] = ()
    likelihoods: Likelihoods | None = Field(None, repr=False)

    @property
    def reasoning_ids(self) -> tuple[int, ...]:
        """Token ids of the reasoning section; an opening tag is among them only if the model wrote it itself."""
        return self.token_ids[: self.usage.reasoning_tokens]


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that came to grief alone; the last event of its request. The others go on.

    interruptions  that it had come over before.
    """

    request_id: str
    error: EngineError
    interruptions: tuple[Interruption, ...] = ()


@dataclass(frozen=True, slots=True)
class Restarted:
    """A request that starts again, with its seed, because what came of it was lost on the way: its chunks so far are
    void, and the next ones are the first of its completion."""

    request_id: str


EngineEvent = TokenChunk | Restarted | Completion | Failure


class GenerationStream(Protocol):
    """The events of one `Engine.generate` call: iterate it once, inside `async with`.

    It ends after every request had its `Completion` or `Failure`; if the engine is closed meanwhile, that is a
    `Failure` with EngineClosedError. Events of one request are in order; those of different requests interleave
    freely. The token ids of a request's chunks, put together, are those of its `Completion`, and so are the texts of
    each section (for a model without think tags: of both, its text); a `Restarted` voids the chunks before it.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None:
        """Cancel what still runs: its rows are free at the engine's next step."""

    def __aiter__(self) -> AsyncIterator[EngineEvent]: ...

    async def __anext__(self) -> EngineEvent: ...

    def cancel(self, request_id: str) -> None:
        """End a request now; its `Completion` (`cancelled`) still comes. Unknown or finished: no effect."""

    def conclude(self, request_id: str, at: int = 0) -> None:
        """As if the reasoning budget were `at` tokens, or as many as have been drawn, if these are more, one that is
        being drawn among them: the request answers then, or ends with `budget`. A server may obey later. In the answer
        section, unknown or finished: no effect."""


class Tokenizer(Protocol):
    """What the method needs to know of a model's tokens."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 are dropped at both ends."""

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text: nothing is added, and special tokens spelled in it stay plain text."""

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()) -> int:
        """Length of the prompt that a request with these messages and tools is given."""


class RecommendedSampling(_Record):
    """How those who made a model would have it sampled; fields as in `SamplingParams`."""

    temperature: float = Field(1.0, gt=0.0, le=10.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0.0, le=1.0)


Capability = Literal["images", "tools", "conclude", "seeds", "exact_tokens", "logprobs"]
"""What some engines can do and others cannot: fields of `ModelInfo`."""
_LACKING: dict[Capability, str] = {
    "images": "reads text only: use a model that sees",
    "tools": "calls no tools: use a model whose chat template has a place for them",
    "conclude": "cannot be made to answer in the midst of its reasoning: use a model of the mlx engine, or a server "
    "that can go on with an assistant's turn",
    "seeds": "draws without seeds: use a model of the mlx engine",
    "exact_tokens": "counts tokens roughly: use a model of the mlx engine, or name a `tokenizer`",
    "logprobs": "does not say how likely its tokens were: use a model of the mlx engine, or a server that gives "
    "log-probabilities",
}


class ModelInfo(_Record):
    """What an engine runs and what it can do with it, as written into run logs.

    context_tokens  prompt and completion together; None if unknown.
    fingerprint     changes whenever the weights or the tokenizer do, or what else makes other tokens of them.
    thinks          it writes its reasoning between think tags.
    notes           what people should know before they trust it or wait for it here, a sentence each, for displays.
    sampling        None if its makers do not say.
    details         more facts for people; `source` is what opens it again, as `rsa solve --model` takes it.

    What the engine can do; who is asked for more says so with `lacks`:

    max_rows        completions that decode together, while further ones wait; None: all that are asked for.
    images          it reads the images of messages.
    tools           it can be told of tools, and reads turns with calls and their results.
    conclude        it can be made to answer in the midst of its reasoning: `SamplingParams.force_answer` and `cue`, and
                    `GenerationStream.conclude`. Without it, who is out of budget or concluded ends with `budget`.
    seeds           it obeys `SamplingParams.seed`. Without it, no two completions are the same.
    exact_tokens    its token ids and the counts of its tokenizer are the model's own, not an estimate.
    logprobs        it can say how likely each token was: `GenerationRequest.likelihoods`.
    """

    name: str
    context_tokens: int | None = None
    fingerprint: str = ""
    thinks: bool = True
    notes: tuple[str, ...] = ()
    sampling: RecommendedSampling | None = None
    details: dict[str, str | int | float | bool | None] = {}
    max_rows: int | None = None
    images: bool = False
    tools: bool = False
    conclude: bool = True
    seeds: bool = True
    exact_tokens: bool = True
    logprobs: bool = False

    def lacks(self, capability: Capability) -> str | None:
        """The model's name, what it cannot do, and who can: the end of a refusal. None if it can."""
        return None if getattr(self, capability) else f"{self.name} {_LACKING[capability]}"


@runtime_checkable
class Engine(Protocol):
    """Generates completions, many at once. Safe to call from one event loop (asyncio or trio)."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        """Start generating; nothing runs before the stream is entered.

        Raises, on entering the stream and before anything is generated: RequestError (two requests of one id, a prompt
        without a word, whatever images it has, and what the engine lacks: images, tools, a cue, likelihoods),
        ImageError, ContextError (a prompt that leaves no room for a token), EngineClosedError.
        """

    async def aclose(self) -> None:
        """Cancel everything and free the model. Idempotent."""


class Memory(Protocol):
    """What a model takes of the memory that it is in, in bytes, as far as its engine can say.

    room_bytes        for the caches of all rows.
    copy_bytes_per_s  read and written by a copy of a large array there: measured.
    """

    @property
    def room_bytes(self) -> int: ...

    @property
    def copy_bytes_per_s(self) -> float: ...

    def step_bytes(self, rows: int, tokens: int) -> int:
        """What a decode step of so many rows, each with so many tokens, has to read: weights once, and their caches."""

    def cache_bytes(self, rows: int, tokens: int) -> int:
        """What the caches of such rows are counted as when rows are admitted."""


@runtime_checkable
class KnowsIfAlive(Protocol):
    """An engine that can say whether it has come to its end."""

    @property
    def alive(self) -> bool:
        """Whether it can generate: not once it was closed, or its worker has died."""


@runtime_checkable
class KnowsMemory(Protocol):
    """An engine whose model is in memory that it can speak of."""

    async def memory(self) -> Memory:
        """Takes about a second, and is right while nothing is generated.

        Raises EngineClosedError, and OutOfMemoryError if there is none for two arrays to copy.
        """
