"""What becomes of images before the model reads them: patches, once per content, then features, once per content.

Patches are made by Pillow and NumPy on any thread (`ImageStore`), features by the model's vision tower on the one
thread that touches MLX (`FeatureCache`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import mlx.core as mx

_PATCH_BYTES = 256 << 20
"""Bytes of patches kept, three or more images of the largest size (8,000 tokens are 75 MB of patches): a run needs them
until its first prompt is computed."""
_FEATURE_BYTES = 256 << 20
"""Bytes of features kept: eight or more images of the largest size, in bfloat16."""


class PreparedImage(Protocol):
    """An image as the vision tower takes it, named by the SHA-256 of its file."""

    @property
    def patches(self) -> Any:
        """[P, numbers in a patch], float32, NumPy's."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches over time, height and width; their product is P."""

    @property
    def tokens(self) -> int:
        """Places it takes in a prompt."""

    @property
    def sha256(self) -> str: ...


class ImageProcessor(Protocol):
    """Makes patches of the bytes of an image file."""

    def prepare(self, data: bytes) -> PreparedImage:
        """Raises ImageError for what is no usable image."""


class ImageStore:
    """The images of prompts, each decoded once while it is in use. Safe to call from several threads.

    Attributes:
        token_id  stands in a prompt for one token of an image.
        mark_ids  tokens that chat templates put around images.
    """

    def __init__(
        self, processor: ImageProcessor, *, token_id: int, mark_ids: Sequence[int] = (), max_bytes: int = _PATCH_BYTES
    ) -> None:
        self.token_id = token_id
        self.mark_ids = tuple(mark_ids)
        self._processor = processor
        self._max_bytes = max_bytes
        self._prepared: OrderedDict[str, PreparedImage] = OrderedDict()  # the most recently used last
        self._tokens: dict[str, int] = {}  # outlives the patches: prompts are measured again and again
        self._lock = threading.Lock()
        self._decoding = threading.Lock()  # one at a time: decoding a photograph takes some hundred megabytes

    def tokens(self, data: bytes) -> int:
        """Places that an image takes in a prompt. Raises ImageError for what is no usable image."""
        known = self._tokens.get(_sha256(data))
        return self.prepare(data).tokens if known is None else known

    def prepare(self, data: bytes) -> PreparedImage:
        """The patches of an image. Raises ImageError for what is no usable image."""
        name = _sha256(data)
        found = self._find(name)
        if found is not None:
            return found
        with self._decoding:
            found = self._find(name)  # another thread may have had the same wish
            if found is None:
                found = self._processor.prepare(data)
                self._keep(name, found)
        return found

    def _find(self, name: str) -> PreparedImage | None:
        with self._lock:
            found = self._prepared.get(name)
            if found is not None:
                self._prepared.move_to_end(name)
            return found

    def _keep(self, name: str, image: PreparedImage) -> None:
        with self._lock:
            self._tokens[name] = image.tokens
            self._prepared[name] = image
            used = sum(each.patches.nbytes for each in self._prepared.values())
            while used > self._max_bytes and len(self._prepared) > 1:
                used -= self._prepared.popitem(last=False)[1].patches.nbytes


class FeatureCache:
    """Features of images, computed by `tower` and kept as far as `max_bytes` go. For the thread that touches MLX."""

    def __init__(self, tower: Any, max_bytes: int = _FEATURE_BYTES) -> None:
        self._tower = tower
        self._max_bytes = max_bytes
        self._features: OrderedDict[str, mx.array] = OrderedDict()  # the most recently used last

    def get(self, image: PreparedImage) -> mx.array:
        """[image.tokens, hidden], evaluated."""
        found = self._features.get(image.sha256)
        if found is None:
            found = self._tower(mx.array(image.patches), [image.grid])
            mx.eval(found)
            self._features[image.sha256] = found
            self._shrink()
        self._features.move_to_end(image.sha256)
        return found

    def _shrink(self) -> None:
        used = sum(each.nbytes for each in self._features.values())
        while used > self._max_bytes and len(self._features) > 1:
            used -= self._features.popitem(last=False)[1].nbytes


@lru_cache(maxsize=16)  # a prompt is measured for each candidate of each round
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
