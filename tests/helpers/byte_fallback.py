"""A tokenizer that writes what it has no word for in bytes, as those of Llama, Gemma and ZAYA1 do."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models

SPACE = "▁"
WORDS = ("a", "b", SPACE, SPACE + "x", "é")


class ByteFallbackTokenizer:
    """A real tokenizer of five words and all bytes; token 0 ends a completion, 1 and 2 are think tags.

    strips  its decoder takes a space from the beginning of a text, as Llama's does and Gemma's does not.
    """

    def __init__(self, *, strips: bool) -> None:
        self.strips = strips
        tokens = ["<end>", "<think>", "</think>", *WORDS, *(f"<0x{byte:02X}>" for byte in range(256))]
        vocab = {token: i for i, token in enumerate(tokens)}
        self._vocab = vocab
        self._tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        self._tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
        self.end_ids = frozenset([0])
        self.think_open, self.think_close = (1,), (2,)
        self.forced_close = self.think_close

    def opens_thinking(self, prompt_ids: Sequence[int]) -> bool:
        return prompt_ids[-1] == self.think_open[0]

    def encode(self, text: str) -> list[int]:
        """A token for each word of one character, bytes for the others."""
        return [token for character in text.replace(" ", SPACE) for token in self._encode(character)]

    def byte(self, byte: int) -> int:
        """The token of one byte."""
        return self._vocab[f"<0x{byte:02X}>"]

    def decode_exactly(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([i for i in token_ids if i > 2]))

    def _encode(self, character: str) -> list[int]:
        if character in WORDS:
            return [self._vocab[character]]
        return [self.byte(byte) for byte in character.encode()]
