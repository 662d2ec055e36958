"""One completion of a stub server, token by token, as its answers are made from it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stub_server.writing import BYTE_OF_ID, CLOSE, END, ID_OF_TAG, OPEN, Writer

Section = str
_TEXT_OF_TAG = {ID_OF_TAG[text]: text for text in ("<think>", "</think>")}


@dataclass(frozen=True)
class Piece:
    """One token of a completion, and the text that it brings to light; `section` is reasoning or answer."""

    section: Section
    text: str
    token: int


class Generation:
    """Tokens of a writer after a prompt, with the limits that a request sets.

    budget  tokens of reasoning after which the server closes it; None: it does not.
    tagged  whether tags stand in the text; otherwise they part the two sections, unseen.

    After `pieces`: `finish` (stop or length), `tokens` (all of them) and `reasoning_tokens`.
    """

    def __init__(
        self,
        writer: Writer,
        prompt: Sequence[int],
        *,
        seed: int,
        max_tokens: int,
        stop: Sequence[str] = (),
        budget: int | None = None,
        tagged: bool = False,
    ) -> None:
        self._drawn = writer.tokens(prompt, seed)
        self._max_tokens, self._stop, self._budget, self._tagged = max_tokens, tuple(stop), budget, tagged
        opened = len(prompt) - 1 - prompt[::-1].index(OPEN) if OPEN in prompt else -1
        self._reasons = opened >= 0 and CLOSE not in prompt[opened:]
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # text that may begin a stop string
        self._hold = max((len(stop) - 1 for stop in self._stop), default=0)
        self.tokens: list[int] = []
        self.reasoning_tokens = 0
        self.finish = "stop"

    def pieces(self) -> Iterator[Piece]:
        """Each token; the last one may have held text with it."""
        while True:
            over = self._reasons and self._budget is not None and self.reasoning_tokens >= self._budget
            token = self._drawn.send(True) if over else next(self._drawn)
            self.tokens.append(token)
            section = "reasoning" if self._reasons else "answer"
            text, stopped = self._shown(token)
            ended = stopped or token == END
            if not ended and len(self.tokens) >= self._max_tokens:
                ended, self.finish = True, "length"
            if ended and not stopped:
                text += self._held + self._bytes.decode(b"", final=True)
            yield Piece(section, text, token)
            if ended:
                return

    def _shown(self, token: int) -> tuple[str, bool]:
        """The text that a token brings, and whether a stop string ends it."""
        text = self._held + self._text(token)
        self._held = ""
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            return text[: min(found)], True
        if self._hold and token not in (CLOSE, END):
            text, self._held = text[: -self._hold], text[-self._hold :]
        return text, False

    def _text(self, token: int) -> str:
        if token in BYTE_OF_ID:
            self.reasoning_tokens += self._reasons
            return self._bytes.decode(bytes([BYTE_OF_ID[token]]))
        left = self._bytes.decode(b"", final=True)
        self._bytes.reset()
        if token == OPEN:
            self._reasons = True
        if token == CLOSE:
            self._reasons = False
        return left + (_TEXT_OF_TAG.get(token, "") if self._tagged else "")
