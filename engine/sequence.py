"""One completion while it grows: its tokens, its sections and budgets, its text. The same for every engine.

Pure Python: an engine feeds it one token at a time and asks when it is finished. No array is ever seen here, and no
prompt: tokens may be drawn here, or come from a server, with or without their text.
"""

from __future__ import annotations

from collections import abc, deque
from typing import Protocol

from engine.api import (
    AnswerCue,
    Completion,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    Section,
    TokenChunk,
    Usage,
)
from engine.detokenizer import Detokenizer
from engine.likelihoods import Likelihood, Likelihoods


class SequenceTokenizer(Protocol):
    """What a sequence needs to know of a model's tokens."""

    @property
    def end_ids(self) -> abc.Set[int]:
        """Tokens that end a completion."""

    @property
    def think_open(self) -> tuple[int, ...]:
        """Tokens of the opening think tag; empty if the model has none."""

    @property
    def think_close(self) -> tuple[int, ...]:
        """Tokens of the closing think tag; empty if the model has none."""

    @property
    def forced_close(self) -> tuple[int, ...]:
        """What is written for the model to end its reasoning: the closing tag first, then what chat templates put
        after it."""

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text."""

    def decode_exactly(self, token_ids: abc.Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 become U+FFFD."""


class _SectionText:
    """Text of one section as it grows. Nothing is shown that a stop string may still swallow."""

    def __init__(self, decode: abc.Callable[[abc.Sequence[int]], str], stop: tuple[str, ...]) -> None:
        self._detokenizer = Detokenizer(decode)
        self._stop = stop
        self._undecoded: list[int] = []
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self._fresh: list[str] = []  # to be shown with the next chunk
        self._parts: list[str] = []  # shown
        self.stopped = False

    def begin_with(self, text: str) -> None:
        """Show a text first that the model did not draw; no stop string is looked for in it."""
        self._fresh.append(text)

    def add(self, token: int, text: str | None) -> None:
        if text is not None:
            self._decode()
            self._scan(text)
            return
        self._undecoded.append(token)
        if self._stop:  # a stop string ends the completion at the very token that completes it
            self._decode()

    def fresh(self) -> str:
        """Text to show now; every call returns what is new since the last."""
        self._decode()
        text, self._fresh = "".join(self._fresh), []
        self._parts.append(text)
        return text

    def finish(self) -> str:
        """All that is left to show at the end of the section."""
        self._decode()
        self._scan(self._detokenizer.finish())
        if not self.stopped:
            self._fresh.append(self._held)
        return self.fresh()

    @property
    def text(self) -> str:
        """All that has been shown."""
        return "".join(self._parts)

    @property
    def written(self) -> str:
        """All that is known of it, shown or held back."""
        self._decode()
        return "".join([*self._parts, *self._fresh, self._held])

    def _decode(self) -> None:
        if self._undecoded:
            self._scan(self._detokenizer.add(self._undecoded))
        self._undecoded = []

    def _scan(self, text: str) -> None:
        if self.stopped:
            return
        if not self._stop:  # as mostly
            self._fresh.append(text)
            return
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self._fresh.append(text[: min(found)])
            self._held, self.stopped = "", True
            return
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._fresh.append(text[: len(text) - keep])
        self._held = text[len(text) - keep :]


def _overlap(written: abc.Sequence[object], pattern: abc.Sequence[object]) -> int:
    """Length of the longest end of `written` that begins `pattern`, short of all of it. Both are text, or token ids."""
    longest = min(len(written), len(pattern) - 1)
    return next((n for n in range(longest, 0, -1) if list(written[-n:]) == list(pattern[:n])), 0)


class Sequence:
    """The state of one request between admission and its `Completion`.

    Attributes:
        prompt_tokens  length of the prompt.
        token_ids      what was generated, forced tokens included.
        finish_reason  None while it runs.
        cached_tokens  how much of the prompt had been computed before.
        concludes_at   the reasoning tokens with which it is to answer at the latest: see `conclude`.

    `accept` takes the next token. If `forced` is not empty afterwards, its first token must be fed as the next one
    instead of what the model draws.
    """

    def __init__(
        self,
        request: GenerationRequest,
        tokenizer: SequenceTokenizer,
        *,
        prompt_tokens: int,
        opened: bool,
        context_tokens: int | None = None,
    ) -> None:
        """opened: the prompt itself ends inside an opened think tag."""
        self.request = request
        self.prompt_tokens = prompt_tokens
        self.token_ids: list[int] = []
        self.forced: deque[int] = deque()
        self.finish_reason: FinishReason | None = None
        self.cached_tokens = 0
        self.concludes_at: int | None = None
        self._tokenizer = tokenizer
        self._limit = _max_new_tokens(request.sampling, prompt_tokens, len(tokenizer.think_close), context_tokens)
        self._opened = opened
        self._closed = self._was_forced = False
        self._section: Section = "reasoning" if self._opened or request.thinking else "answer"
        self._reasoning_tokens = self._answer_tokens = 0
        self._texts = {
            "reasoning": _SectionText(tokenizer.decode_exactly, request.sampling.stop),
            "answer": _SectionText(tokenizer.decode_exactly, request.sampling.stop),
        }
        self._tag: list[tuple[int, str | None]] = []  # the beginning of a closing tag of several tokens, perhaps
        self._likelihoods: list[Likelihood | None] | None = [] if request.likelihoods else None
        self._unsent: list[int] = []
        self._chunks: list[TokenChunk] = []
        self._cued = False
        self._cue_tokens = 0  # of the cue that are still to come

    @property
    def section(self) -> Section:
        """The one that the next token belongs to."""
        return self._section

    @property
    def total_tokens(self) -> int | None:
        """Prompt and completion at their longest; None if nothing bounds it."""
        return None if self._limit is None else self.prompt_tokens + self._limit

    @property
    def tokens_left(self) -> int | None:
        """Tokens that it takes at most before it ends, or its reasoning is ended; None if nothing bounds it."""
        sampling, bounds = self.request.sampling, []
        if self._limit is not None:
            bounds.append(self._limit - len(self.token_ids))
        if self._section == "answer" and sampling.answer_budget is not None:
            bounds.append(sampling.answer_budget - self._answer_tokens)
        if self._section == "reasoning" and sampling.reasoning_budget is not None and not self._was_forced:
            bounds.append(sampling.reasoning_budget - self._reasoning_tokens - len(self._tag))
        return min(bounds, default=None)

    def accept(self, token: int, text: str | None = None, likelihood: Likelihood | None = None) -> None:
        """Take the next token. Sets `finish_reason`, or fills `forced`, if it is time.

        text        what it adds to the text of its section, where somebody else has decoded it; None: it is decoded
                    here.
        likelihood  of the draw, kept if the request wants it; a forced token is none.
        """
        if self.forced:
            self.forced.popleft()
            likelihood = None
        self.token_ids.append(token)
        if self._likelihoods is not None:
            self._likelihoods.append(likelihood)
        self._unsent.append(token)
        if token in self._tokenizer.end_ids:
            self.finish("stop")
        elif self._section == "reasoning":
            self._accept_reasoning(token, text)
        else:
            self._accept_answer(token, text)
        if self.finish_reason is None and self._limit is not None and len(self.token_ids) >= self._limit:
            self.finish("length")

    @property
    def concluding(self) -> bool:
        """Somebody wants it to answer before its reasoning budget is used up."""
        return self.concludes_at is not None

    def conclude(self, at: int = 0) -> None:
        """Treat the reasoning budget as used up at so many tokens, at the next one if there are more."""
        self.concludes_at = at if self.concludes_at is None else min(at, self.concludes_at)

    def end_reasoning(self) -> None:
        """End the reasoning here, as at its budget: sets `finish_reason`, or fills `forced`. Nothing in the answer."""
        if self._section == "reasoning" and self.finish_reason is None and not self._was_forced:
            self._end_reasoning()

    def end_at_budget(self) -> None:
        """End here, as if no answer were to be forced: what is in `forced` cannot be written."""
        self.forced.clear()
        self._was_forced = False
        self.finish("budget")

    def finish(self, reason: FinishReason) -> None:
        """End here; the first reason given stands."""
        if self.finish_reason is None:
            self.finish_reason = reason
            self._release_tag()
            self._cut_chunk(self._texts[self._section].finish())

    def chunks(self) -> list[TokenChunk]:
        """Chunks to send now."""
        if self._unsent and self.finish_reason is None:
            self._cut_chunk(self._texts[self._section].fresh())
        chunks, self._chunks = self._chunks, []
        return chunks

    def written(self) -> tuple[str, str]:
        """Text of the two sections so far, with what is held back from chunks as it may begin a stop string."""
        return self._texts["reasoning"].written, self._texts["answer"].written

    def completion(self) -> Completion:
        """The finished completion; only once `finish_reason` is set."""
        assert self.finish_reason is not None
        reasoning, answer = self._texts["reasoning"].text, self._texts["answer"].text
        untagged = self._cued or (self._section == "reasoning" and not self._opened)
        return Completion(
            request_id=self.request.id,
            token_ids=tuple(self.token_ids),
            reasoning=reasoning,
            text=reasoning + answer if untagged else answer,
            finish_reason=self.finish_reason,
            closed=self._closed,
            forced=self._was_forced,
            usage=self.usage(),
            likelihoods=None if self._likelihoods is None else Likelihoods.of(self._likelihoods),
        )

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=len(self.token_ids),
            reasoning_tokens=self._reasoning_tokens,
        )

    def _accept_reasoning(self, token: int, text: str | None) -> None:
        sampling = self.request.sampling
        if len(self.token_ids) == 1 and token in self._tokenizer.think_open[:1]:
            self._opened = True
        self._tag.append((token, text))
        close = self._tokenizer.think_close
        # Asked of every token, and mostly it is a part of no tag.
        held = tuple(token for token, _ in self._tag) if token in close else ()
        if held and held == close:
            self._close_reasoning()
        else:
            self._release_tag(keep=_overlap(held, close))
            # Forced tokens are the closing tag itself: no budget is counted against them.
            if self._texts["reasoning"].stopped:
                self.finish("stop")
            elif not self.forced and not self._was_forced and self._reasoning_is_over(sampling.reasoning_budget):
                self._end_reasoning()

    def _reasoning_is_over(self, budget: int | None) -> bool:
        written = self._reasoning_tokens + len(self._tag)
        return any(bound is not None and written >= bound for bound in (budget, self.concludes_at))

    def _end_reasoning(self) -> None:
        sampling = self.request.sampling
        if not sampling.force_answer or sampling.answer_budget == 0:
            self.finish("budget")
        elif self._opened:
            self._release_tag()
            self._was_forced = True
            self.forced.extend(self._tokenizer.forced_close)
        elif sampling.cue is None or not self._give_cue(sampling.cue):
            self.finish("budget")

    def _give_cue(self, cue: AnswerCue) -> bool:
        """Begin the answer section with a cue; False if the model has think tags, or no token would be left for it."""
        sampling, tokens = self.request.sampling, self._tokenizer.encode(cue.text)
        if self._tokenizer.think_close or len(tokens) >= (sampling.answer_budget or len(tokens) + 1):
            return False
        self._cut_chunk(self._texts["reasoning"].finish())
        self._section = "answer"
        self._texts["answer"] = _SectionText(self._tokenizer.decode_exactly, (*sampling.stop, *cue.stop))
        self._texts["answer"].begin_with(cue.text)
        self._cued = self._was_forced = True
        self._cue_tokens = len(tokens)
        self.forced.extend(tokens)
        return True

    def _close_reasoning(self) -> None:
        self._tag.clear()
        self._closed = True
        self._cut_chunk(self._texts["reasoning"].finish())
        self._section = "answer"
        if self.request.sampling.answer_budget == 0:
            self.finish("stop")

    def _release_tag(self, keep: int = 0) -> None:
        """Count all but the last `keep` held tokens as reasoning: they did not become a closing tag."""
        while len(self._tag) > keep:
            self._texts["reasoning"].add(*self._tag.pop(0))
            self._reasoning_tokens += 1

    def _accept_answer(self, token: int, text: str | None) -> None:
        if len(self.token_ids) == 1 and token in self._tokenizer.think_open[:1]:
            self._section, self._opened = "reasoning", True  # it thinks although it was not asked to
            self._reasoning_tokens += 1
            return
        self._answer_tokens += 1
        if self._cue_tokens > 0:  # its text is there already
            self._cue_tokens -= 1
            return
        self._texts["answer"].add(token, text)
        budget = self.request.sampling.answer_budget
        if self._texts["answer"].stopped:
            self.finish("stop")
        elif budget is not None and self._answer_tokens >= budget:
            self.finish("length")

    def _cut_chunk(self, text: str) -> None:
        if self._unsent or text:
            self._chunks.append(TokenChunk(self.request.id, tuple(self._unsent), text, self._section))
            self._unsent = []


def _max_new_tokens(sampling: SamplingParams, prompt: int, tag: int, context: int | None) -> int | None:
    """The most tokens a completion may have; None if nothing bounds it. `tag` is the length of a closing tag."""
    bounds = [sampling.max_tokens, None if context is None else context - prompt]
    if sampling.reasoning_budget is not None and sampling.answer_budget is not None:
        bounds.append(sampling.reasoning_budget + tag + sampling.answer_budget)
    return min((bound for bound in bounds if bound is not None), default=None)
