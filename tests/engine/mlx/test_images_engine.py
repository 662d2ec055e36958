"""Images on the engine: equal to the model alone, in any company and in chunks of any size.

The model is tiny, random and real in every part: tests/golden/tiny_hf, made to listen (fixture `listening`).
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import mlx.core as mx
import numpy as np
import pytest
from engine_calls import complete
from image_requests import BIRD, CAT, DOG, MASKS, TINY, WARM, request, tokens, words

from engine.api import (
    Completion,
    EngineEvent,
    GenerationRequest,
)
from engine.families.zaya.weights import load
from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.mlx.row import Row
from engine.mlx.sampler import BatchSampler
from engine.mlx.scheduler import Scheduler
from engine.mlx.tokenizer import ChatTokenizer
from engine.vision.preprocess import ImageProcessor, PreparedImage

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # other tests of the engine run on trio too


# ---- equal to the model


def written(folder: Path, asked: GenerationRequest) -> tuple[int, ...]:
    """What the model writes without engine, cache or batch: everything anew for each token."""
    model, args = load(folder)
    assert args.vision is not None
    assert model.vision_tower is not None
    processor, (message,) = ImageProcessor.from_folder(folder, args.vision), asked.messages
    prepared = [processor.prepare(image.data) for image in message.images]
    places = [token for image in prepared for token in (125, *[127] * image.tokens, 126)]
    ids = [2, 10, *places, *(int(word[1:]) for word in message.text.split()), 11, 12]
    patches = mx.concatenate([mx.array(image.patches) for image in prepared])
    features = model.vision_tower(patches, [image.grid for image in prepared])
    embeddings, mask = model.embed(mx.array([ids]), features)
    sampler, prompt = BatchSampler([asked.sampling]), len(ids)
    while len(ids) < prompt + 10 and ids[-1] != 106:
        logits = model(mx.array([ids]), input_embeddings=embeddings, image_mask=mask)
        ids.append(int(sampler(logits[:, -1], [len(ids) - prompt]).tokens.item()))
        embeddings = mx.concatenate([embeddings, model.embed(mx.array([ids[-1:]]), None)[0]], axis=1)
        mask = mx.concatenate([mask, mx.zeros((1, 1), mx.bool_)], axis=1)
    return tuple(ids[prompt:])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("images", [(CAT,), (CAT, BIRD)], ids=["one", "two"])
@pytest.mark.parametrize("temperature", [0.0, WARM])
async def test_tokens_are_the_models(
    masked: Callable[[str], Path],
    fresh: Callable[..., MLXEngine],
    mask: str,
    images: Sequence[bytes],
    temperature: float,
) -> None:
    folder = masked(mask)
    asked = request("r", words(1), *images, temperature=temperature, seed=3)
    (done,) = await complete(fresh(folder), [asked])
    assert done.token_ids == written(folder, asked)


class Untokenized(ChatTokenizer):
    """For prompts that are token ids."""

    def __init__(self) -> None:
        self.end_ids = frozenset()
        self.think_open = self.think_close = ()

    def decode_exactly(self, token_ids: object) -> str:
        return ""


@pytest.mark.parametrize(
    ("mask", "key"), [("prefix", "fa2"), ("block", "block"), ("pair", "pair"), ("causal", "causal")]
)
@pytest.mark.parametrize("which", ["one", "two"])
@pytest.mark.parametrize("chunk", [4, 512])
def test_the_first_token_is_that_of_the_references(
    masked: Callable[..., Path], mask: str, key: str, which: str, chunk: int
) -> None:
    """The authors' code's logits, for token ids and pixels that no tokenizer and no file has made."""
    golden = np.load(TINY.parent / "tiny_vl_masks.npz")
    ids = golden[f"{which}_ids"].ravel().tolist()
    images, at = [], 0
    for t, h, w in golden[f"{which}_grid"].tolist():
        patches = golden[f"{which}_pv"][at : at + t * h * w]
        images.append(PreparedImage(patches=patches, grid=(t, h, w), tokens=t * h * w // 4, sha256=f"{at:064}"))
        at += t * h * w
    model, args = load(masked(mask, TINY))
    scheduler = Scheduler(
        model,
        max_rows=16,
        kv_bytes=1 << 30,
        prefill_chunk=chunk,
        context_tokens=None,
        image_token=args.image_token_id,
    )
    asked = [request(f"{seed}", "?", seed=seed, temperature=2 * WARM * (seed > 0), max_tokens=1) for seed in range(16)]
    events: list[EngineEvent] = []
    scheduler.submit([Row(r, ids, Untokenized(), emit=events.append, images=tuple(images)) for r in asked])
    while not scheduler.idle:
        scheduler.step()
    logits = mx.array(golden[f"{which}_{key}"].reshape(len(ids), -1)[-1:])
    expected = BatchSampler([r.sampling for r in asked])(mx.repeat(logits, 16, axis=0), [0] * 16).tokens.tolist()
    first = {event.request_id: event.token_ids for event in events if isinstance(event, Completion)}
    assert [first[r.id] for r in asked] == [(token,) for token in expected]
    assert len(set(expected)) > 8


@pytest.mark.parametrize("frames", [2, None])
async def test_a_preprocessor_file_that_means_another_tower(
    alone: dict[str, tuple[int, ...]],
    listening: Path,
    tmp_path: Path,
    fresh: Callable[..., MLXEngine],
    frames: int | None,
) -> None:
    """Published files say two frames a patch, or nothing, for a tower of one."""
    shutil.copytree(listening, tmp_path / "model")
    file = tmp_path / "model" / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    del settings["temporal_patch_size"]
    file.write_text(json.dumps(settings if frames is None else {**settings, "temporal_patch_size": frames}))
    (done,) = await complete(fresh(tmp_path / "model"), [MIXED[0]])
    assert done.token_ids == alone["cat"]


# ---- equal to each alone

MIXED = [
    request("cat", words(1), CAT, seed=1),
    request("text", words(2, 20), seed=2, temperature=4.0, top_p=0.9),
    request("dog", words(1), DOG, seed=1),
    request("both", words(3), DOG, CAT, seed=4),
    request("short", words(4, 2), seed=5),
    request("cat again", words(5, 30), CAT, seed=6, temperature=9.0, top_k=40),
]
"""Two images with one text, one image with two texts, and texts of several lengths."""


@pytest.fixture(scope="module")
def alone(listening: Path) -> dict[str, tuple[int, ...]]:
    """What each of `MIXED` gives on an engine of its own."""

    async def main() -> dict[str, tuple[int, ...]]:
        found = {}
        for each in MIXED:
            engine = await anyio.to_thread.run_sync(load_engine, listening)
            found[each.id] = (await complete(engine, [each]))[0].token_ids
            await engine.aclose()
        return found

    return anyio.run(main)


async def test_mixed_requests_in_any_order_equal_each_alone(
    alone: dict[str, tuple[int, ...]], fresh: Callable[..., MLXEngine]
) -> None:
    assert len(set(alone.values())) == len(MIXED), "else the test could not fail"
    engine = fresh()
    for order in itertools.islice(itertools.permutations(MIXED), 0, 720, 211):
        for each, done in zip(order, await complete(engine, order), strict=True):
            assert done.token_ids == alone[each.id], each.id


async def test_requests_that_join_while_others_decode_equal_each_alone(
    alone: dict[str, tuple[int, ...]], fresh: Callable[..., MLXEngine]
) -> None:
    """Different images, one after the other and at the same time: none is described as another."""
    engine, done = fresh(max_rows=3), {}

    async def run(each: GenerationRequest, begun: anyio.Event) -> None:
        async with engine.generate([each]) as stream:
            begun.set()
            async for event in stream:
                if isinstance(event, Completion):
                    done[each.id] = event.token_ids

    async with anyio.create_task_group() as tasks:
        for each in MIXED:
            begun = anyio.Event()
            tasks.start_soon(run, each, begun)
            await begun.wait()
    assert done == alone


@pytest.mark.parametrize(
    ("mask", "chunk"), [("prefix", 1), ("prefix", 7), ("block", 3), ("pair", 3), ("causal", 1), ("causal", 7)]
)
async def test_short_chunks_equal_one_piece(
    masked: Callable[[str], Path],
    fresh: Callable[..., MLXEngine],
    monkeypatch: pytest.MonkeyPatch,
    mask: str,
    chunk: int,
) -> None:
    folder = masked(mask)
    whole = tokens(await complete(fresh(folder), MIXED))
    monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", chunk)
    assert tokens(await complete(fresh(folder), MIXED)) == whole
