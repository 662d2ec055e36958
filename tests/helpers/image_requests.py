"""Images and requests with them: what the engine's tests about images share."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from engine.api import Completion, GenerationRequest, ImagePart, Message, SamplingParams

TINY = Path(__file__).resolve().parents[1] / "golden" / "tiny_hf"
WARM = 3.0
"""Temperature at which another image gives another draw for one token in three."""
MASKS = ["prefix", "block", "pair", "causal"]


def png(seed: int, width: int = 84, height: int = 56) -> bytes:
    """A file of noise; 84 x 56 pixels are 6 tokens."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


CAT, DOG, BIRD = png(1), png(2), png(3, width=112)


def words(seed: int, count: int = 8) -> str:
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(13, 100, count))


def request(name: str, text: str, *images: bytes, **sampling: object) -> GenerationRequest:
    parts = tuple(ImagePart(data=image) for image in images)
    return GenerationRequest(
        id=name,
        messages=(Message(role="user", text=text, images=parts),),
        sampling=SamplingParams.model_validate({"max_tokens": 10, "temperature": WARM, **sampling}),
    )


def tokens(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]
