"""Requests with images that cannot be run, that fail, that are cancelled, and those beside them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import anyio
import mlx.core as mx
import pytest
from engine_calls import complete
from image_requests import CAT, DOG, TINY, png, request, words

from engine.api import (
    Completion,
    Failure,
    GenerationRequest,
    TokenChunk,
)
from engine.errors import ContextError, OutOfMemoryError, RequestError
from engine.families.zaya.weights import load
from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.mlx.memory import CacheCost
from engine.mlx.scheduler import Scheduler
from engine.vision.preprocess import ImageProcessor, PreparedImage
from engine.vision.tower import VisionTower

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # other tests of the engine run on trio too


@pytest.fixture(scope="module")
def tiny(listening: Path) -> Iterator[MLXEngine]:
    engine = load_engine(listening)
    yield engine
    engine.close()


# ---- what cannot be run


async def refused(engine: MLXEngine, requests: Sequence[GenerationRequest]) -> str:
    with pytest.raises(RequestError) as caught:
        async with engine.generate(requests):
            pass
    return str(caught.value)


async def test_bad_images_are_refused_before_anything_runs(
    tiny: MLXEngine, encoded: list[tuple[int, int, int]], prefilled: list[int]
) -> None:
    good = request("good", words(1), CAT)
    for bad in (b"", b"no image", CAT[:60]):
        assert "request 'bad', image 2: " in await refused(tiny, [good, request("bad", words(1), CAT, bad)])
    assert encoded == prefilled == []


async def test_more_images_than_the_context_holds(tiny: MLXEngine) -> None:
    message = await refused(tiny, [request("r", words(1), *[png(i, 448, 448) for i in range(2)])])
    assert "its prompt has 528 tokens, 512 of them for 2 images, and tiny_hf reads 512 at most" in message
    with pytest.raises(ContextError):
        async with tiny.generate([request("r", words(1), png(0, 896, 448))]):
            pass


async def test_a_model_that_reads_text_only_takes_no_images(llama: MLXEngine) -> None:
    assert not llama.model.images
    assert "reads text only" in await refused(llama, [request("r", "a", CAT)])


def test_a_model_that_sees_says_so(tiny: MLXEngine) -> None:
    assert tiny.model.images
    assert tiny.tokenizer.prompt_tokens(request("r", "w20", CAT).messages) == 2 + 8 + 1 + 2


async def test_image_tokens_count_in_admission(fresh: Callable[..., MLXEngine]) -> None:
    cost = CacheCost.of(load(TINY)[0])
    engine = fresh(kv_bytes=cost.of_rows([40]))
    requests = [request("fits", words(1, 4), CAT), request("does not", words(1, 4), png(0, 448, 448))]
    async with engine.generate(requests) as stream:
        ends = {e.request_id: e async for e in stream if not isinstance(e, TokenChunk)}
    assert isinstance(ends["fits"], Completion)
    failure = ends["does not"]
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, OutOfMemoryError)
    assert "one completion of 276 tokens" in str(failure.error)


async def test_a_prompt_that_ends_with_its_image_fails_alone(
    listening: Path, tmp_path: Path, fresh: Callable[..., MLXEngine]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(listening, folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["chat_template"] = (
        "{{ '<bos>' }}{% for m in messages %}{% if m['content'] is string %} {{ m['content'] }}{% else %}"
        " {{ m['content'][-1]['text'] }} <image>{% endif %}{% endfor %}"
    )
    file.write_text(json.dumps(settings))
    async with fresh(folder).generate([request("image", "w20", CAT), request("text", "w20")]) as stream:
        ends = {e.request_id: e async for e in stream if not isinstance(e, TokenChunk)}
    assert isinstance(ends["text"], Completion)
    failure = ends["image"]
    assert isinstance(failure, Failure)
    assert "put text after it" in str(failure.error)


async def test_a_prefill_that_fails_fails_alone(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image whose features do not fit the memory is no reason to end what others have begun."""
    engine = fresh()

    def out_of_memory(*_: object) -> mx.array:
        raise RuntimeError("[malloc] Unable to allocate 1 bytes")

    async with engine.generate([request("text", words(1), seed=1, max_tokens=200)]) as stream:
        await anext(stream)
        monkeypatch.setattr(VisionTower, "__call__", out_of_memory)
        async with engine.generate([request(f"image {i}", words(1), CAT) for i in range(2)]) as other:
            ends = [event async for event in other if not isinstance(event, TokenChunk)]
        monkeypatch.undo()
        rest = [event async for event in stream]
    assert [isinstance(end, Failure) and isinstance(end.error, OutOfMemoryError) for end in ends] == [True, True]
    assert isinstance(rest[-1], Completion)
    (after,) = await complete(engine, [request("after", words(1), CAT)])
    assert after.usage.completion_tokens == 10


async def test_cancelled_while_its_images_are_computed(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left and cancelled between two images of a prompt; what comes next is untouched by it."""
    stays = request("stays", words(3), DOG, CAT, seed=4)
    (expected,) = await complete(fresh(), [stays])
    stream = fresh().generate([request("left", words(1), CAT, DOG), stays])
    compute = VisionTower.__call__

    def cancelling(this: VisionTower, patches: mx.array, grids: Sequence[tuple[int, int, int]]) -> mx.array:
        stream.cancel("left")
        return compute(this, patches, grids)

    monkeypatch.setattr(VisionTower, "__call__", cancelling)
    async with stream:
        ends = {e.request_id: e async for e in stream if not isinstance(e, TokenChunk)}
    left, done = ends["left"], ends["stays"]
    assert isinstance(left, Completion)
    assert isinstance(done, Completion)
    assert (left.finish_reason, left.usage.completion_tokens) == ("cancelled", 0)
    assert done.token_ids == expected.token_ids


async def test_text_decodes_on_while_images_are_computed(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image or one chunk a step: a prompt of many images does not hold up those who decode."""
    engine, log = fresh(), []
    step, compute = Scheduler.step, VisionTower.__call__

    def watched_step(this: Scheduler) -> None:
        rows = len(this._batch.rows)
        step(this)
        log.append(("step", rows))

    def watched(this: VisionTower, *args: object) -> object:
        log.append(("image", 0))
        return compute(this, *args)

    monkeypatch.setattr(Scheduler, "step", watched_step)
    monkeypatch.setattr(VisionTower, "__call__", watched)
    async with engine.generate([request("text", words(1), max_tokens=300, seed=1)]) as stream:
        await anext(stream)
        await complete(engine, [request("images", words(1), *[png(i) for i in range(10, 14)], max_tokens=2)])
    first = log.index(("image", 0))
    assert log[first : first + 8] == [("image", 0), ("step", 1)] * 4


class Waiting:
    """Holds the preparation of images until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.free = threading.Event(), threading.Event()
        prepare = ImageProcessor.prepare

        def held(this: ImageProcessor, data: bytes) -> PreparedImage:
            self.begun.set()
            assert self.free.wait(60)
            assert threading.current_thread().name != "mlx-engine"
            return prepare(this, data)

        patch.setattr(ImageProcessor, "prepare", held)


async def test_images_are_prepared_beside_the_worker(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, waiting = fresh(), Waiting(monkeypatch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(complete, engine, [request("image", words(1), CAT)])
        await anyio.to_thread.run_sync(waiting.begun.wait)
        await complete(engine, [request("text", words(1))])  # meanwhile
        waiting.free.set()


async def test_cancelled_while_its_images_are_prepared(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch, encoded: list[tuple[int, int, int]]
) -> None:
    engine, waiting = fresh(), Waiting(monkeypatch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(complete, engine, [request("left", words(1), CAT, DOG)])
        await anyio.to_thread.run_sync(waiting.begun.wait)
        tasks.cancel_scope.cancel()
        waiting.free.set()
    (done,) = await complete(engine, [request("next", words(1), CAT)])
    assert done.usage.completion_tokens == 10
    assert encoded == [(1, 4, 6)]
