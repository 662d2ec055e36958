"""What a stub server writes instead of a model: letters that depend on the prompt, the seed and the place alone.

Its tokenizer is that of the tiny models of these tests: a token a byte, and the tags. So a folder with that tokenizer
gives a client the very ids of the server, and a turn that is continued goes on as if it had never been broken off.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SPECIAL = ("<pad>", "<bos>", "<|im_start|>", "<|im_end|>")
TAGS = ("<think>", "</think>")
LETTERS = "abcdeéö "


def _characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself, or the next free one above 255."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    free = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(free)) for byte in range(256)]


_PLACES = {character: place for place, character in enumerate(sorted(_characters()))}
ID_OF_BYTE = [len(SPECIAL) + _PLACES[character] for character in _characters()]
BYTE_OF_ID = {token: byte for byte, token in enumerate(ID_OF_BYTE)}
ID_OF_TAG = {text: i for i, text in enumerate(SPECIAL)} | {text: 260 + i for i, text in enumerate(TAGS)}
OPEN, CLOSE, START, END = (ID_OF_TAG[text] for text in ("<think>", "</think>", "<|im_start|>", "<|im_end|>"))
_TAG = re.compile("|".join(map(re.escape, ID_OF_TAG)))


def encode(text: str) -> list[int]:
    """Token ids of a text; a special token or a tag spelled in it becomes that token, as servers have it."""
    ids: list[int] = []
    at = 0
    for tag in _TAG.finditer(text):
        ids += [ID_OF_BYTE[byte] for byte in text[at : tag.start()].encode()]
        ids.append(ID_OF_TAG[tag[0]])
        at = tag.end()
    return ids + [ID_OF_BYTE[byte] for byte in text[at:].encode()]


def decode(ids: Sequence[int]) -> str:
    """Text of tokens, special ones and tags skipped."""
    return bytes(BYTE_OF_ID[token] for token in ids if token in BYTE_OF_ID).decode(errors="replace")


@dataclass(frozen=True)
class Writer:
    """A model that is none.

    thinks    it reasons between think tags first.
    opens     the chat template opens the tag for it; otherwise the model writes it.
    endless   it never closes its reasoning, nor ends its answer.
    context   tokens of prompt and completion together.
    """

    thinks: bool = True
    opens: bool = True
    endless: bool = False
    context: int = 4096

    def prompt_ids(
        self, messages: Sequence[tuple[str, str]], *, thinking: bool, continues: bool, tools: Sequence[Any] = ()
    ) -> list[int]:
        """The chat template, applied to (role, text); `continues` leaves the last turn open."""
        told = [("tools", json.dumps(list(tools), ensure_ascii=False))] if tools else []
        turns = [f"<|im_start|>{role}\n{text}" for role, text in (*told, *messages)]
        if not continues:
            turns.append(f"<|im_start|>assistant\n{self._reply(thinking)}")
        return encode("<bos>" + "<|im_end|>\n".join(turns))

    def _reply(self, thinking: bool) -> str:
        if not self.thinks:
            return ""
        if not thinking:
            return "<think>\n\n</think>\n\n"
        return "<think>\n" if self.opens else ""

    def tokens(self, prompt: Sequence[int], seed: int) -> Generator[int, bool | None, None]:
        """What comes after a prompt, END last; for ever if endless. True sent into its reasoning ends that."""
        start = len(prompt) - 1 - prompt[::-1].index(START)
        turn = list(prompt[start + len(encode("<|im_start|>assistant\n")) :])
        draws = random.Random(f"{seed} {decode(prompt[:start])}")
        reasoning, answer = (list(self._drawn(draws, number)) for number in range(2))
        if not self.thinks:
            yield from self._from(reasoning + answer, len(turn))
            return
        if CLOSE not in turn:
            if OPEN not in turn:
                yield OPEN
                yield ID_OF_BYTE[ord("\n")]
            reasoned = turn[turn.index(OPEN) + 2 :] if OPEN in turn else []  # after its line break
            for token in self._from(reasoning, len(reasoned)):
                if token == END:
                    break
                if (yield token) is not None:
                    break
            yield CLOSE
        yield from self._from(answer, len(turn) - 1 - turn.index(CLOSE) if CLOSE in turn else 0)

    def _drawn(self, draws: random.Random, number: int) -> list[int]:
        text = "".join(draws.choices(LETTERS, k=draws.randint(40, 60)))
        return encode(text if number == 0 else rf"{text} \boxed{{{draws.randint(0, 9)}}}")

    def _from(self, ids: list[int], at: int) -> Iterator[int]:
        """The rest of what was drawn, and END; an endless one begins again instead."""
        while self.endless:
            yield ids[at % len(ids)]
            at += 1
        yield from ids[at:]
        yield END
