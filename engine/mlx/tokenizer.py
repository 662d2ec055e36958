"""A model's tokenizer and chat template, behind `engine.api.Tokenizer`."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from engine.api import Message, Tool
from engine.detokenizer import REPLACEMENT, decode_cut
from engine.errors import RequestError
from engine.mlx.features import ImageStore
from engine.mlx.turns import Piece, SetApart, turns
from engine.tools import TAGS

_TAG_WINDOW_TOKENS = 8
"""Tokens at the end of a prompt in which its chat template may have opened the think tag."""
_TURN_END = "<|im_end|>"
"""The end of a turn in ChatML; some configurations name another end token, and such a model would talk on for ever."""
_IMAGE_PLACE = "<image>"
"""The place of an image, as chat templates may write it where the tokenizer names its image token otherwise."""
_OF_TOOLS = re.compile(r"</?\w*tool_(?:call|response)s?>")
"""Tokens around calls and their results: structure, whether a tokenizer calls them special or not."""


class ChatTokenizer:
    """Wraps mlx-lm's `TokenizerWrapper`; safe to call from several threads.

    images  measures the images of prompts; None: the model reads text only.

    Attributes:
        end_ids      tokens that end a completion: the model's, and the one with which its chat template ends a turn.
        think_open   tokens of the opening think tag, empty if the model has none.
        think_close  tokens of the closing one.
        forced_close what the engine writes to end the reasoning: the tag and the blank line that chat templates put
                     after it. After the bare tag, cut off in the middle of a thought, models go on thinking.
    """

    def __init__(self, wrapped: Any, images: ImageStore | None = None) -> None:
        self._wrapped = wrapped
        self._images = images
        self._lock = threading.Lock()  # fast tokenizers must not be reconfigured while another thread uses them
        self.end_ids = frozenset(int(i) for i in wrapped.eos_token_ids) | _turn_end(wrapped)
        self.think_open: tuple[int, ...] = tuple(wrapped.think_start_tokens or ())
        self.think_close: tuple[int, ...] = tuple(wrapped.think_end_tokens or ())
        blank = wrapped.encode("\n\n", add_special_tokens=False)
        self.forced_close = (*self.think_close, *blank) if self.think_close else ()
        self._tag_ids = frozenset(tag[0] for tag in (self.think_open, self.think_close) if len(tag) == 1)
        image_ids = frozenset((images.token_id, *images.mark_ids)) if images is not None else frozenset[int]()
        self._hidden_ids = self._tag_ids | image_ids  # in text for people; not every tokenizer calls them special
        added = {i: (str(token), token.special) for i, token in wrapped.added_tokens_decoder.items()}
        of_tools = {i: text for i, (text, _) in added.items() if _OF_TOOLS.fullmatch(text)}
        special_ids = frozenset(wrapped.all_special_ids) | self._hidden_ids | of_tools.keys()
        # Calls are read from the text, so that their tags must stand in it.
        self._spelled_out = {i: text for i, text in of_tools.items() if added[i][1]}
        specials = [text for i, (text, special) in added.items() if special or i in special_ids]
        places = [] if images is None else _image_places(wrapped, images.token_id)
        # Overlapping ones are each found: the match is empty, what follows it is looked at only.
        self._spelled = re.compile(f"(?={_any_of([*specials, *places])})")
        self._place = re.compile(_any_of(places))

    @property
    def thinks(self) -> bool:
        """The model writes its reasoning between think tags."""
        return bool(self.think_close)

    @property
    def takes_tools(self) -> bool:
        """The chat template has a place for tools, and has the model write its calls in a form that is read."""
        template = getattr(self._wrapped, "chat_template", None)
        words = " ".join(map(str, template.values())) if isinstance(template, dict) else str(template)
        return "tools" in words and any(f"<{tag}>" in words for tag in TAGS)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped; bytes that are no UTF-8 are dropped at both ends."""
        return decode_cut(self.decode_exactly, token_ids)

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones skipped but for those around calls; bytes that are no UTF-8 become U+FFFD."""
        shown = [i for i in token_ids if i not in self._hidden_ids]
        cuts = [at for at, i in enumerate(shown) if i in self._spelled_out] if self._spelled_out else []
        if not cuts:
            return self._decode(shown)
        runs = [shown[a + 1 : b] for a, b in pairwise([-1, *cuts, len(shown)])]
        tags = [self._spelled_out[shown[at]] for at in cuts]
        return "".join(run + tag for run, tag in zip(map(self._decode, runs), [*tags, ""], strict=True))

    def _decode(self, token_ids: Sequence[int]) -> str:
        if not token_ids:
            return ""
        with self._lock:
            text: str = self._wrapped.decode(list(token_ids), skip_special_tokens=True)
        return text

    def spell(self, token_ids: Sequence[int]) -> str:
        """Text of tokens with special ones spelled out, as a server that reads text takes it: without the BOS token,
        which that puts before it."""
        with self._lock:
            text: str = self._wrapped.decode(list(token_ids), skip_special_tokens=False)
        return text.removeprefix(self._wrapped.bos_token) if self._wrapped.bos_token else text

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text: nothing is added, and special tokens spelled in it stay plain text."""
        pieces = (self._encode(piece, add_special_tokens=False) for piece in self._split_specials(text))
        return [token for piece in pieces for token in piece]

    def token_of(self, text: str) -> int | None:
        """The one token that is decoded to a text, though `encode` may write it with several; None if there is none.

        The first question takes a while: it decodes the whole vocabulary.
        """
        return self._texts.get(text)

    @cached_property
    def _texts(self) -> dict[str, int]:
        """Tokens by their text, the first of each; those that are a part of a character have none."""
        texts: dict[str, int] = {}
        for token in range(len(self._wrapped)):
            text = self.decode_exactly([token])
            if text and REPLACEMENT not in text:
                texts.setdefault(text, token)
        return texts

    def prompt_tokens(self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()) -> int:
        """Length of the prompt that a request with these messages and tools is given."""
        return len(self.prompt_ids(messages, thinking=thinking, tools=tools))

    def prompt_ids(
        self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """Tokens of the rendered conversation, up to where the model goes on; BOS once, where the model has one.

        Where the chat template writes the image token, it stands as often as the image has tokens. What people write
        never becomes a special token: a spelled-out `<|im_end|>`, `</think>` or `<image>` in a message, a tool or a
        call is encoded as the plain text it is. Raises RequestError when the chat template refuses the messages or has
        no place for their images, and for images that are unusable or given to a model that reads text only.
        """
        sizes = self._image_sizes(messages)
        pieces = self._pieces(messages, thinking, tools)
        found = sum(len(self._place.findall(piece.text)) for piece in pieces if not piece.by_people)
        if sizes and not self._wrapped.has_chat_template:
            raise RequestError(
                "the model has no chat template, which would say where images stand: its folder needs "
                "chat_template.jinja, or chat_template.json"
            )
        if found != len(sizes):
            raise RequestError(
                f"the model's chat template does not fit the messages: places for images: {found}, images: {len(sizes)}"
            )
        ids: list[int] = []
        places = iter(sizes)
        for number, piece in enumerate(pieces):
            if piece.by_people:
                ids += self.encode(piece.text)
            else:
                ids += self._encode_template(piece.text, places, first=number == 0)
        return ids

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        """True if the prompt itself ends inside an opened think tag, as many templates leave it."""
        end = list(prompt_ids[-(_TAG_WINDOW_TOKENS + len(self.think_open)) :])
        return self.thinks and _last_index(end, self.think_open) > _last_index(end, self.think_close)

    def _image_sizes(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of each image, in order."""
        images = [image for message in messages for image in message.images]
        if images and self._images is None:
            raise RequestError("the prompt has images, but the model reads text only")
        return [self._images.tokens(image.data) for image in images] if self._images is not None else []

    def _pieces(self, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool]) -> list[Piece]:
        """The rendered conversation; what people wrote stands apart if a special token is spelled in it."""
        apart = SetApart(self._spelled)
        return [cut for piece in self._pieces_of_turns(messages, thinking, tools, apart) for cut in apart.pieces(piece)]

    def _pieces_of_turns(
        self, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool], apart: SetApart
    ) -> list[Piece]:
        """The same, with what is spelled in tools and calls still marked."""
        rendered = self._render(messages, thinking, tools, apart)
        if not any(self._spelled.search(message.text) for message in messages):
            return [Piece(rendered)]
        marked = [m.model_copy(update={"text": _marker(i)}) if m.text else m for i, m in enumerate(messages)]
        pieces: list[Piece] = []
        rest = self._render(marked, thinking, tools, apart)
        for i, message in enumerate(messages):
            if not message.text:  # beside calls; templates ask whether there is one
                continue
            before, found, rest = rest.partition(_marker(i))
            if not found:  # the template drops or rewrites this message; only the plain rendering can be right
                self._check_unplaced(messages)
                return [Piece(rendered)]
            pieces += [Piece(before), Piece(message.text, by_people=True)]
        return [*pieces, Piece(rest)]

    def _check_unplaced(self, messages: Sequence[Message]) -> None:
        """Refuse a text that would be taken for a place of an image."""
        if self._images is not None and any(self._place.search(message.text) for message in messages):
            raise RequestError(
                "a message spells the model's image token, and the chat template rewrites messages, so that it cannot "
                "be told from an image: write it otherwise"
            )

    def _render(self, messages: Sequence[Message], thinking: bool, tools: Sequence[Tool], apart: SetApart) -> str:
        if not self._wrapped.has_chat_template:
            return "\n\n".join(message.text for message in messages)
        try:
            rendered: str = self._wrapped.apply_chat_template(
                turns(messages, apart),
                tools=[apart(tool.declared) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=thinking,
            )
        except (TemplateError, ValueError, TypeError) as error:  # TypeError: a list where only a text was thought of
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error
        return rendered

    def _encode_template(self, text: str, places: Iterator[int], *, first: bool) -> list[int]:
        """Tokens of a chat template's own words, with each place of an image as wide as the next of `places`."""
        ids: list[int] = []
        for number, part in enumerate(self._place.split(text)):
            if number > 0:
                assert self._images is not None, "no other model has places"
                ids += [self._images.token_id] * next(places)
            at_start = first and number == 0
            ids += self._encode_rendered(part) if at_start else self._encode(part, add_special_tokens=False)
        return ids

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


def _image_places(wrapped: Any, token_id: int) -> list[str]:
    """What stands for an image in a rendered prompt: the image token, unless the tokenizer has none of that number."""
    token = wrapped.convert_ids_to_tokens(token_id)
    return sorted({_IMAGE_PLACE} | ({token} if token else set()))


def _turn_end(wrapped: Any) -> set[int]:
    """The token that ends a turn in ChatML, if the chat template is of that kind."""
    template = getattr(wrapped, "chat_template", None)
    if not isinstance(template, str) or _TURN_END not in template:
        return set()
    token = wrapped.convert_tokens_to_ids(_TURN_END)
    return {token} if isinstance(token, int) and token in wrapped.added_tokens_decoder else set()


def _any_of(words: Sequence[str]) -> str:
    """A pattern that any of the words matches, the longest first; without words it matches nothing."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)"


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
