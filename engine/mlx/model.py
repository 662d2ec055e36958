"""What the engine asks of a model, and of what a model remembers of its rows.

The engine knows no family: a model that implements `TextModel`, and `SeeingModel` if it sees, runs in it. Two names for
what one layer remembers: a `RowCache` holds one row while its prompt is computed, a `BatchCache` holds the rows that
decode together. They may be one class, as ZAYA1's, or two, as in mlx-lm.

Shapes: B rows, n tokens, V words of the vocabulary, H numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np


class RowCache(Protocol):
    """What one layer remembers of a row whose prompt is being computed."""

    @property
    def state(self) -> Any:
        """All arrays held, to be evaluated after each pass: nested in lists and tuples, as `mx.eval` takes them."""

    @property
    def nbytes(self) -> int:
        """Memory of these arrays, the room into which they grow included."""


class BatchCache(RowCache, Protocol):
    """What one layer remembers of the B rows that decode together. A row is right wherever it stands among others."""

    def extend(self, other: Any) -> None:
        """Append the rows of another cache of this layer, however long they are."""

    def filter(self, batch_indices: Sequence[int]) -> None:
        """Keep the rows at these places, in this order."""


class PaddedCache(BatchCache, Protocol):
    """A cache, empty at first, in which prompts of several lengths are computed in one pass."""

    def prepare(self, *, lengths: Sequence[int], right_padding: Sequence[int]) -> None:
        """Announce so many tokens of each row, and so many of padding behind them."""

    def finalize(self) -> None:
        """Forget the padding, after the pass."""

    def extract(self, index: int) -> RowCache:
        """The row at a place, alone."""


@dataclass(frozen=True, slots=True)
class StepWeights:
    """Bytes of the weights that decode steps read.

    always   whatever the rows are.
    experts  of all experts together: each is read once, if a row chose it.
    classes  what a row chooses among, experts or none.
    chosen   how many of these a row chooses.
    """

    always: int
    experts: int = 0
    classes: int = 1
    chosen: int = 1

    def read_by(self, rows: int) -> int:
        """Of a step of so many rows, expected where each choice is as likely as any other."""
        return self.always + round(self.experts * (1 - (1 - self.chosen / self.classes) ** rows))


class TextModel(Protocol):
    """A model as the engine runs it. All methods are for the one thread that touches MLX."""

    @property
    def max_rows(self) -> int | None:
        """Rows that may share a pass; None: as many as there is memory for. With 1, its caches need no `extend` or
        `filter`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how it runs, a sentence each."""

    @property
    def takes_padding(self) -> bool:
        """True if prompts may share a pass: then `make_cache` gives `PaddedCache`s for several rows."""

    @property
    def ragged(self) -> bool:
        """True if rows that decode together take memory for their own lengths; else each for that of the longest."""

    @property
    def vocab_size(self) -> int | None:
        """Numbers in the logits of a token; None: not known."""

    @property
    def weight_bytes(self) -> int:
        """Memory of its parameters."""

    @property
    def step_weights(self) -> StepWeights:
        """What of these a decode step reads: no vision tower, nor what is looked up by the token."""

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        """Token ids [B, n], and its own caches of B rows -> logits [B, n, V]. The caches then hold the n tokens."""

    def make_cache(self, rows: int = 1) -> Sequence[RowCache]:
        """An empty cache for each layer, for a prompt or for several that share a pass."""

    def copy_cache(self, caches: Sequence[Any]) -> Sequence[RowCache] | None:
        """Caches of one row that share nothing writable with these; None: this model's cannot be copied safely."""

    def batch_cache(self, caches: Sequence[Any], places: Sequence[int]) -> Sequence[BatchCache]:
        """A batch whose row i goes on from row places[i] of a prompt's caches, as `make_cache` made them. They stay as
        they are if they hold one row; caches of several, of prompts that shared a pass, are used up."""

    def cache_bytes(self, tokens: int) -> int:
        """Memory of one row's caches with so many tokens, all layers together."""


class VisionTower(Protocol):
    """Turns the patches of images into features."""

    def __call__(self, patches: mx.array, grids: Sequence[tuple[int, int, int]]) -> mx.array:
        """Patches of some images, one after the other, and the frames, rows and columns of each -> a feature [H] for
        each place that they take in a prompt."""


class SeeingModel(TextModel, Protocol):
    """A model that reads images too."""

    @property
    def vision_tower(self) -> VisionTower | None:
        """None: a model of a family that sees, which itself reads text only."""

    def __call__(
        self,
        inputs: mx.array,
        cache: Any,
        input_embeddings: mx.array | None = None,
        image_mask: mx.array | None = None,
    ) -> mx.array:
        """As a `TextModel`; what `embed` gives stands for the inputs."""

    @property
    def image_masks(self) -> Sequence[str]:
        """Names of the ways in which it can read images."""

    def set_image_mask(self, how: Any) -> None:
        """Read images in one of these ways. Caches made before are not to be used any more."""

    def embed(self, ids: mx.array, features: mx.array | None = None) -> tuple[mx.array, mx.array | None]:
        """Token ids [B, n] and the features of their images, in order -> embeddings [B, n, H], and which of the tokens
        are an image's [B, n]. Raises RequestError: the features are not as many as these tokens."""

    def unsplittable(self, ids: Sequence[int] | np.ndarray) -> Sequence[tuple[int, int]]:
        """Half-open ranges of a whole prompt's tokens that one pass must hold whole, in order."""
