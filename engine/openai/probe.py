"""Finds out what a server can do, with a few short requests that are the same for every server.

Nothing is taken from a server's name: forks, proxies and versions differ. What a server must show to count as able to
do something stands with each question.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.api import SamplingParams, Tool
from engine.errors import EngineError, ModelError, RequestError
from engine.openai.asking import Asker, UnreachableError
from engine.openai.bodies import OPTIONAL, Capabilities, bounded, chat_body, completion_body, declared, image_url
from engine.openai.estimated import EstimatedTokenizer
from engine.openai.tokens import TAGS
from engine.openai.wire import REASONING_FIELDS, Delta, read_models

QUESTION = "Reply with the word OK."
_ANSWER_TOKENS = 64
_BUDGETED_TOKENS = 24
"""The length of an answer that is to show whether a seed, or a thinking budget of one token, is kept."""
_LITTLE_REASONING = 4
"""Tokens of reasoning that a server may take over a budget of one: the words with which it ends the reasoning."""
_SAMPLING = SamplingParams(temperature=1.0)
_SQUARE = 64
_TOOL = Tool(name="get_time", description="The time of day in a city.")
_NAMED = 20
"""Models that a message lists."""
_NAMES = {"max_tokens": "max_completion_tokens"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server answered.

    deltas    as they came.
    streamed  it came as a stream.
    """

    deltas: Sequence[Delta]
    streamed: bool

    @property
    def reasoning(self) -> str:
        return "".join(delta.reasoning for delta in self.deltas)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for delta in self.deltas for token in delta.token_ids or ())

    @property
    def field(self) -> str:
        return next((delta.field for delta in self.deltas if delta.field), "")

    @property
    def prompt_ids(self) -> tuple[int, ...] | None:
        return next((delta.prompt_ids for delta in self.deltas if delta.prompt_ids), None)

    @property
    def prompt_tokens(self) -> int | None:
        return next((delta.prompt_tokens for delta in self.deltas if delta.prompt_tokens is not None), None)

    @property
    def reasoned(self) -> tuple[int, bool]:
        """About how many tokens of reasoning there were, and whether it was closed."""
        reasoning, text = self.reasoning, self.text
        closed = bool(self.field and text)
        if not self.field:
            reasoning, tag, _ = text.partition(TAGS[1])
            closed = bool(tag)
        return len(EstimatedTokenizer(thinks=False).encode(reasoning)), closed


def find_model(asker: Asker, model: str) -> Mapping[str, Any]:
    """What each server says of the model: the first one's entry of `GET /models`, empty where there is no such list.

    Servers that cannot be reached are passed over, as long as one can. Raises EngineError: ModelError for a server that
    does not have the model, with those that it has.
    """
    entries: list[Mapping[str, Any]] = []
    trouble = ""
    for base in asker.settings.base_urls:
        try:
            entries.append(_entry(asker, base, model))
        except UnreachableError as error:
            trouble = str(error)
    if not entries:
        raise ModelError(trouble)
    return entries[0]


def _entry(asker: Asker, base: str, model: str) -> Mapping[str, Any]:
    listed = asker.get(f"{base}/models", read_models)
    if listed is None:  # not every proxy has one; whether it is a server at all shows with the first request
        return {}
    for entry in listed:
        if entry["id"] == model:
            return entry
    names = ", ".join(str(entry["id"]) for entry in listed[:_NAMED])
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    raise ModelError(f"{base} has no model {model!r}; it has {names or 'none'}{more}")


class Probe:
    """The questions to one server about one model, each a method; `first` comes before the others."""

    def __init__(self, asker: Asker, model: str) -> None:
        self._asker, self._model = asker, model
        self.can = Capabilities(fields=frozenset(OPTIONAL))
        self.shown = Shown((), streamed=True)
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]

    def first(self) -> None:
        """An ordinary request with all that is optional; what is refused is left out until it is taken.

        Raises EngineError if the server refuses the request without any of it.
        """
        streaming = True
        while True:
            can = replace(self.can, streaming=streaming, token_ids=False)
            try:
                self.shown = self._ask(can, _ANSWER_TOKENS, **self._optional(streaming=streaming))
                break
            except RequestError as error:
                refused = self._refused(str(error), can.fields)
                if refused:
                    self.can = replace(self.can, fields=can.fields - refused)
                elif can.max_tokens in _NAMES and can.max_tokens in str(error):
                    self.can = replace(self.can, max_tokens=_NAMES[can.max_tokens])
                elif streaming and "stream" in str(error):
                    streaming = False
                elif can.fields:
                    last = next(name for name in OPTIONAL if name in can.fields)
                    self.can = replace(self.can, fields=can.fields - {last})
                else:
                    raise
        self.can = replace(
            self.can,
            streaming=self.shown.streamed,
            token_ids=any(delta.token_ids for delta in self.shown.deltas),
            reasoning=self._where_reasoning_is(),
            logprobs=any(delta.logprobs for delta in self.shown.deltas),
        )

    def keeps_seeds(self) -> bool:
        """The same words come again with the same seed, at temperature 1."""
        if "seed" not in self.can.fields:
            return False
        again = self._ask(self.can, _BUDGETED_TOKENS, **self._optional())
        first, second = ((shown.reasoning, shown.text) for shown in (self.shown, again))
        # The shorter one may end in the midst of a character.
        return all(one.startswith(two.rstrip("\ufffd")) for one, two in zip(first, second, strict=True))

    def keeps_budget(self) -> bool:
        """With a budget of one token the reasoning is closed at once, and without one it was not."""
        tokens, closed = self.shown.reasoned
        if closed and tokens <= 2 * _LITTLE_REASONING:
            return False  # it reasons so little that nothing can be told
        try:
            tokens, closed = self._ask(self.can, _BUDGETED_TOKENS, thinking_token_budget=1, **self._template()).reasoned
        except RequestError:
            return False
        return closed and tokens <= _LITTLE_REASONING

    def continues_after(self, prompt: str | Sequence[int], tokens: int) -> bool:
        """`/completions` takes a prompt of so many tokens, and counts as many."""
        try:
            body = completion_body(self._model, prompt, _SAMPLING, self.can, **bounded(1, self.can))
            shown = Shown(*self._asker.stream("/completions", body))
        except EngineError:
            return False
        return shown.prompt_tokens == tokens

    def continues_turns(self) -> bool:
        """A prompt that ends in an assistant's turn of one token is, where it is to go on, shorter than where a turn is
        to follow; or hardly longer than the prompt without it."""
        begun = [*self.messages, {"role": "assistant", "content": "1"}]
        try:
            followed = self._ask(self.can, 1, begun).prompt_tokens
            continued = self._ask(
                self.can, 1, begun, continue_final_message=True, add_generation_prompt=False
            ).prompt_tokens
        except EngineError:
            return False
        without = self.shown.prompt_tokens
        if without is None or followed is None or continued is None:
            return False
        return continued < followed or continued - without <= 1

    def reads_images(self) -> bool:
        """A prompt with an image is taken, and is longer for it."""
        image = {"type": "image_url", "image_url": {"url": image_url(white_square(_SQUARE))}}
        seen = [{"role": "user", "content": [image, {"type": "text", "text": QUESTION}]}]
        return self._lengthens(messages=seen)

    def takes_tools(self) -> bool:
        """A request with a tool is taken, and its prompt is longer for it."""
        return self._lengthens(**declared([_TOOL]))

    def _lengthens(self, messages: Sequence[dict[str, Any]] | None = None, **more: Any) -> bool:
        try:
            tokens = self._ask(self.can, 1, messages, **more).prompt_tokens
        except EngineError:
            return False
        without = self.shown.prompt_tokens
        return tokens is not None and without is not None and tokens > without

    def gives_several(self) -> bool:
        """Two choices come where two are asked for."""
        body = chat_body(self._model, self.messages, _SAMPLING, self.can, n=2, **bounded(1, self.can))
        body.pop("stream_options", None)
        try:
            answer = self._asker.post("/chat/completions", {**body, "stream": False})
        except EngineError:
            return False
        choices = answer.get("choices")
        return isinstance(choices, list) and len(choices) == 2

    def _ask(
        self, can: Capabilities, tokens: int, messages: Sequence[dict[str, Any]] | None = None, **more: Any
    ) -> Shown:
        body = chat_body(self._model, messages or self.messages, _SAMPLING, can, **{**bounded(tokens, can), **more})
        return Shown(*self._asker.stream("/chat/completions", body))

    def _optional(self, *, streaming: bool = True) -> dict[str, Any]:
        """All optional fields that are taken, with their values."""
        left_out = () if streaming and self.can.streaming else ("stream_options",)
        return {name: value for name, value in OPTIONAL.items() if name in self.can.fields and name not in left_out}

    def _template(self) -> dict[str, Any]:
        name = "chat_template_kwargs"
        return {name: OPTIONAL[name]} if name in self.can.fields else {}

    @staticmethod
    def _refused(message: str, fields: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name in fields if name in message)

    def _where_reasoning_is(self) -> Any:
        if self.shown.field in REASONING_FIELDS:
            return self.shown.field
        return "tags" if any(tag in self.shown.text for tag in TAGS) else "none"


def white_square(side: int) -> bytes:
    """A PNG of so many pixels a side."""
    rows = (b"\0" + b"\xff" * (3 * side)) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
