"""A tiny ZAYA1 with random weights, and ways to run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import mlx.core as mx
import numpy as np
import pytest

from engine.families.zaya import CCACache, Model, load
from engine.families.zaya.config import ImageMask


@pytest.fixture(scope="session")
def tiny(golden: Path) -> Model:
    """4 layers, hidden 64, vocabulary 128; its skip class is chosen now and then."""
    return load(golden / "tiny_hf")[0]


@pytest.fixture(scope="session")
def vl(golden: Path) -> Path:
    """The checkpoint of `tiny`, which sees."""
    return golden / "tiny_hf"


@pytest.fixture(scope="session")
def logits_alone(tiny: Model) -> Callable[[Sequence[int]], np.ndarray]:
    """The truth that every other way to run the model is held against: one row, one pass, no padding. [L, V]"""
    known: dict[tuple[int, ...], np.ndarray] = {}

    def run(tokens: Sequence[int]) -> np.ndarray:
        key = tuple(tokens)
        if key not in known:
            known[key] = np.array(tiny(mx.array([list(key)]), tiny.make_cache())[0])
        return known[key]

    return run


@pytest.fixture(scope="session")
def prefilled(tiny: Model) -> Callable[[Sequence[int]], list[CCACache]]:
    """Caches of one row that have seen the tokens."""

    def run(tokens: Sequence[int]) -> list[CCACache]:
        caches = tiny.make_cache()
        tiny(mx.array([list(tokens)]), caches)
        return caches

    return run


@pytest.fixture(scope="session")
def models(tiny: Model) -> dict[ImageMask, Model]:
    """The tiny model under each reading of images."""
    found = {}
    for how in get_args(ImageMask):
        found[how] = Model(tiny.args)
        found[how].update(tiny.parameters())
        found[how].set_image_mask(how)
    return found
