"""A model's tokenizer and chat template, behind `engine.api.Tokenizer`."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from engine.api import Message
from engine.errors import RequestError
from engine.mlx.detokenizer import REPLACEMENT

_TAG_WINDOW_TOKENS = 8
"""How far from the end of a prompt its chat template may have opened the think tag."""


class ChatTokenizer:
    """Wraps mlx-lm's `TokenizerWrapper`; safe to call from several threads.

    Attributes:
        end_ids      tokens that end a completion.
        think_open   tokens of the opening think tag, empty if the model has none.
        think_close  tokens of the closing one.
        forced_close what the engine writes to end the reasoning: the tag and the blank line that chat templates put
                     after it. After the bare tag, cut off in the middle of a thought, models go on thinking.
    """

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._lock = threading.Lock()  # fast tokenizers must not be reconfigured while another thread uses them
        self.end_ids = frozenset(int(i) for i in wrapped.eos_token_ids)
        self.think_open: tuple[int, ...] = tuple(wrapped.think_start_tokens or ())
        self.think_close: tuple[int, ...] = tuple(wrapped.think_end_tokens or ())
        blank = wrapped.encode("\n\n", add_special_tokens=False)
        self.forced_close = (*self.think_close, *blank) if self.think_close else ()
        self._tag_ids = frozenset(tag[0] for tag in (self.think_open, self.think_close) if len(tag) == 1)
        special_ids = frozenset(wrapped.all_special_ids) | self._tag_ids
        added = wrapped.added_tokens_decoder.items()
        specials = [str(token) for i, token in added if token.special or i in special_ids]
        # Overlapping ones are each found: the match is empty, what follows it is looked at only.
        self._spelled = re.compile(f"(?={'|'.join(map(re.escape, specials)) or '$^'})")

    @property
    def thinks(self) -> bool:
        """The model writes its reasoning between think tags."""
        return bool(self.think_close)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 are dropped at both ends."""
        return self.decode_exactly(token_ids).strip(REPLACEMENT)

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 become U+FFFD."""
        shown = [i for i in token_ids if i not in self._tag_ids]  # tags are not "special" to every tokenizer
        with self._lock:
            text: str = self._wrapped.decode(shown, skip_special_tokens=True)
        return text

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text: nothing is added, and special tokens spelled in it stay plain text."""
        pieces = (self._encode(piece, add_special_tokens=False) for piece in self._split_specials(text))
        return [token for piece in pieces for token in piece]

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True) -> int:
        """Length of the prompt that a request with these messages is given."""
        return len(self.prompt_ids(messages, thinking=thinking))

    def prompt_ids(self, messages: Sequence[Message], *, thinking: bool = True) -> list[int]:
        """Tokens of the rendered conversation, up to where the model goes on; BOS once, where the model has one.

        What people write never becomes a special token: a spelled-out `<|im_end|>` or `</think>` in a message is
        encoded as the plain text it is. Raises RequestError when the chat template refuses the messages.
        """
        rendered = self._render(messages, thinking)
        if not any(self._spelled.search(message.text) for message in messages):
            return self._encode_rendered(rendered)
        marked = [m.model_copy(update={"text": _marker(i)}) for i, m in enumerate(messages)]
        ids: list[int] = []
        rest = self._render(marked, thinking)
        for i, message in enumerate(messages):
            before, found, rest = rest.partition(_marker(i))
            if not found:  # the template drops or rewrites this message; only the plain rendering can be right
                return self._encode_rendered(rendered)
            ids += self._encode_rendered(before) if i == 0 else self._encode(before, add_special_tokens=False)
            ids += self.encode(message.text)
        return ids + self._encode(rest, add_special_tokens=False)

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """True if the prompt itself ends inside an opened think tag, as many templates leave it."""
        end = list(prompt_ids[-(_TAG_WINDOW_TOKENS + len(self.think_open)) :])
        return self.thinks and _last_index(end, self.think_open) > _last_index(end, self.think_close)

    def _render(self, messages: Sequence[Message], thinking: bool) -> str:
        turns = [{"role": message.role, "content": message.text} for message in messages]
        if not self._wrapped.has_chat_template:
            return "\n\n".join(turn["content"] for turn in turns)
        try:
            rendered: str = self._wrapped.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        except (TemplateError, ValueError) as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error
        return rendered

    def _encode_rendered(self, text: str) -> list[int]:
        bos = self._wrapped.bos_token
        return self._encode(text, add_special_tokens=not (bos and text.startswith(bos)))

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        with self._lock:
            ids: list[int] = self._wrapped.encode(text, add_special_tokens=add_special_tokens)
        # A post-processor may close the sequence too; a prompt stays open.
        return ids[:-1] if add_special_tokens and ids and ids[-1] in self.end_ids else ids

    def _split_specials(self, text: str) -> list[str]:
        """Pieces of `text`, cut after the first character of every special token spelled in it."""
        cuts = [0, *(match.start() + 1 for match in self._spelled.finditer(text)), len(text)]
        return [text[a:b] for a, b in pairwise(cuts)]


def _marker(index: int) -> str:
    """A text that stands in for message `index` and that no template or person writes."""
    return f"\x02message {index}\x03"


def _last_index(ids: Sequence[int], pattern: Sequence[int]) -> int:
    """Where `pattern` last begins in `ids`; -1 if nowhere."""
    width = len(pattern)
    for start in range(len(ids) - width, -1, -1):
        if tuple(ids[start : start + width]) == tuple(pattern):
            return start
    return -1
