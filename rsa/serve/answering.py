"""An answer on its way to a client: what every door reads, whoever makes it.

A door (`rsa.serve.chat`, `rsa.serve.responses`) asks `rsa.serve.service.Service.ask` for an `Answering` and relies on
this, whether the model itself answers or a run of Markovian RSA:

* `await answering.begun()` waits until tokens are on their way, and raises what was wrong with the request. It may be
  waited for with a time limit; then what is wrong comes from reading.
* `async for part in answering` gives `ReasoningDelta`, `AnswerDelta` and `ToolCalls`, in order for each choice, and one
  `Finished` for each choice; then it ends. Deltas of a choice, put together, are the texts of its `Finished`. Without
  `deltas`, only `Finished` comes. An error is raised as it is: `rsa.serve.errors.api_error` has what clients are
  told.
* `answering.leave()` says that nobody reads any more, and must be called whatever happened: what still runs is
  cancelled, its rows are free at the engine's next step; not so a run in the background. Idempotent; does not wait.

An `Answering` is read once, by one task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from engine.api import ToolCall, Usage
from rsa.errors import RSAError

FinishReason = Literal["stop", "length", "tool_calls"]


class RunEndedError(RSAError):
    """What was to answer ended without a result: it was cancelled or interrupted, or failed in an earlier process.

    interrupted  because the server is about to end.
    """

    def __init__(self, message: str, *, interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning of a choice: of the model's own, or lines about how a run goes."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More of the text of a choice."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """More calls of a choice."""

    calls: tuple[ToolCall, ...]
    index: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A choice that is whole.

    usage     of this choice; of a run, summed over its rounds.
    run_id    of the run that made it.
    metadata  what a door hands on as the field `rsa`: of a run its votes, rounds, why it ended, warnings; plain JSON.
    """

    text: str
    reasoning: str
    usage: Usage
    finish_reason: FinishReason
    calls: tuple[ToolCall, ...] = ()
    run_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    index: int = 0


Part = ReasoningDelta | AnswerDelta | ToolCalls | Finished


class Answering(ABC):
    """The parts of an answer, as they come; see the module.

    run_id  of the run that makes it, from the beginning; None for the model itself.
    """

    run_id: str | None = None

    @abstractmethod
    async def begun(self) -> None:
        """Wait until it has begun. Raises what hindered it."""

    @abstractmethod
    def leave(self) -> None:
        """Nobody reads any more."""

    @abstractmethod
    async def __anext__(self) -> Part: ...

    def __aiter__(self) -> Self:
        return self


async def finished(answering: AsyncIterator[Part]) -> list[Finished]:
    """All choices, whole, in order. Raises what reading raises."""
    found = [part async for part in answering if isinstance(part, Finished)]
    return sorted(found, key=lambda choice: choice.index)
