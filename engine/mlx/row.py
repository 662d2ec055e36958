"""A sequence as the MLX engine runs it."""

from __future__ import annotations

from collections.abc import Callable

from engine.api import EngineEvent, Failure, GenerationRequest
from engine.errors import EngineError
from engine.mlx.features import PreparedImage
from engine.mlx.tokenizer import ChatTokenizer
from engine.sequence import Sequence


class Row(Sequence):
    """A sequence that has a place in the batch, or waits for one.

    prompt_ids  the prompt, rendered.
    emit        where the events of its request go; called on the engine's thread.
    images      of the prompt, in the order of their places.
    number      in the order in which rows came; the scheduler sets it, and lets the lower go first.
    budget      the most tokens that it may write; the scheduler sets it.
    error       what ended it, if it came to grief.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt_ids: list[int],
        tokenizer: ChatTokenizer,
        *,
        emit: Callable[[EngineEvent], None],
        context_tokens: int | None = None,
        images: tuple[PreparedImage, ...] = (),
    ) -> None:
        super().__init__(
            request,
            tokenizer,
            prompt_tokens=len(prompt_ids),
            opened=tokenizer.opens_thinking(prompt_ids),
            context_tokens=context_tokens,
        )
        self.prompt_ids = prompt_ids
        self.emit = emit
        self.images = images
        self.number = self.budget = 0
        self.error: EngineError | None = None

    @property
    def ids(self) -> list[int]:
        """The prompt and what was generated: what caches must hold, but for the last token, for the row to go on."""
        return self.prompt_ids + self.token_ids

    @property
    def length(self) -> int:
        """How many `ids` there are."""
        return self.prompt_tokens + len(self.token_ids)

    def fail(self, error: EngineError) -> None:
        """End here, without a completion; the text up to here is still sent."""
        if self.finish_reason is None:
            self.error = error
            self.finish("cancelled")

    def send_end(self) -> None:
        """Send what is left of its text, and how it ended; only once `finish_reason` is set."""
        for chunk in self.chunks():
            self.emit(chunk)
        self.emit(self.completion() if self.error is None else Failure(self.request.id, self.error))
