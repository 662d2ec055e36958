"""What is computed once: each image, and beginnings that prompts share. Nothing is shared that differs, and what is
found again gives what computing it anew gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_calls import after_each_step, complete
from image_requests import BIRD, CAT, DOG, MASKS, TINY, request, tokens, words

from engine.families.zaya.weights import load
from engine.mlx.engine import MLXEngine
from engine.mlx.memory import CacheCost
from engine.mlx.scheduler import Scheduler

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # other tests of the engine run on trio too


# ---- once for all


async def test_each_image_is_encoded_once(fresh: Callable[..., MLXEngine], encoded: list[tuple[int, int, int]]) -> None:
    """Whatever the text beside it, the place in the prompt, or the call."""
    engine = fresh()
    requests = [request("cat", words(1), CAT), request("both", words(2), DOG, CAT), request("again", words(3), CAT)]
    for _ in range(2):
        await complete(engine, requests)
    assert encoded == [(1, 4, 6), (1, 4, 6)]
    await complete(engine, [request("r", words(1), BIRD)])
    assert encoded[2:] == [(1, 4, 8)]


async def test_a_prompts_images_are_computed_once_for_all_its_texts(
    fresh: Callable[..., MLXEngine], prefilled: list[int]
) -> None:
    """As in a round of aggregation prompts, and in the rounds after it."""
    engine = fresh()
    first, *rest = await complete(engine, [request(f"r{i}", f"w50 {words(i)}", CAT, seed=i) for i in range(4)])
    # <bos> w10 <vs> 6 x <image> <ve> and the first word of the text, which the mask takes in too
    assert first.usage.cached_tokens == 0
    assert [completion.usage.cached_tokens for completion in rest] == [11] * 3
    assert sum(prefilled) == 11 + 4 * (first.usage.prompt_tokens - 1 - 11)
    (later,) = await complete(engine, [request("later", f"w50 {words(9)}", CAT)])
    assert later.usage.cached_tokens == 11
    (other,) = await complete(engine, [request("other", f"w50 {words(9)}", DOG)])
    assert other.usage.cached_tokens == 0


# ---- beginnings of prompts, with and without images


@pytest.mark.parametrize("mask", MASKS)
async def test_warm_equals_cold(
    masked: Callable[[str], Path], fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    """Warm and cold rows in one call; beginnings that end in text, at an image and between two."""
    monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", 6)
    folder = masked(mask)
    common = words(1, 25)
    requests = [
        request(f"{kind} {i}", f"{common} {words(i, 2 + 5 * i)}", *images, seed=i)
        for i in range(2)
        for kind, images in {
            "text": (),
            "cat": (CAT,),
            "dog": (DOG,),
            "cat dog": (CAT, DOG),
            "cats": (CAT, CAT),
        }.items()
    ]
    cold = fresh(folder)
    monkeypatch.setattr("engine.mlx.prefixes.PrefixCache.longest", lambda self, prompt: None)
    expected = await complete(cold, requests)
    assert not any(completion.usage.cached_tokens for completion in expected)
    monkeypatch.undo()
    monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", 6)
    warm = fresh(folder)
    await complete(warm, requests[:2])
    again = await complete(warm, requests[::-1])
    assert tokens(again) == tokens(expected[::-1])
    assert sum(completion.usage.cached_tokens > 0 for completion in again) > 5


async def test_prompts_that_diverge_share_what_comes_before(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", 8)
    common = words(1, 20)  # with <bos> and w10 before it: 22 tokens, two chunks
    requests = [request(f"r{i}", f"{common} {words(i + 2)}", seed=i) for i in range(4)]
    engine = fresh()
    done = await complete(engine, requests)
    assert [completion.usage.cached_tokens for completion in done] == [0, 16, 16, 16]
    alone = [(await complete(fresh(), [each]))[0].token_ids for each in requests]
    assert tokens(done) == alone
    (later,) = await complete(engine, [request("later", f"{words(1, 10)} {words(50, 9)}")])
    assert later.usage.cached_tokens == 8


async def test_models_of_mlx_lm_share_beginnings_too(
    llama_folder: Path, fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.mlx.engine._PREFILL_CHUNK_CPU", 32)
    requests = [request(f"r{i}", f"{'a long beginning ' * 5}{i}{'!' * i}", seed=i) for i in range(4)]
    done = await complete(fresh(llama_folder), requests)
    assert [completion.usage.cached_tokens for completion in done] == [0, 64, 64, 64]
    alone = [(await complete(fresh(llama_folder), [each]))[0].token_ids for each in requests]
    assert tokens(done) == alone


async def test_beginnings_are_let_go_of_after_a_failure(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, kept = fresh(), []
    await complete(engine, [request("cat", words(1), CAT)])

    def failing(scheduler: Scheduler) -> None:
        kept.append(scheduler._prefiller.prefixes.nbytes)
        raise MemoryError

    engine.call(failing)
    engine.call(lambda scheduler: kept.append(scheduler._prefiller.prefixes.nbytes))
    (again,) = await complete(engine, [request("again", words(1), CAT)])
    assert kept[0] > kept[1] == again.usage.cached_tokens == 0


async def test_beginnings_give_way_to_rows(fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    cost = CacheCost.of(load(TINY)[0])
    engine = fresh(kv_bytes=cost.of_rows([40, 40]))

    def nbytes(scheduler: Scheduler) -> int:
        return scheduler._prefiller.prefixes.nbytes + cost.of_rows(map(scheduler._likely_tokens, scheduler._batch.rows))

    used = after_each_step(monkeypatch, nbytes)
    requests = [request(f"{i}", words(i), image, seed=i) for i, image in enumerate([CAT, DOG, BIRD, CAT, DOG, BIRD])]
    done = await complete(engine, requests)
    assert max(used) <= cost.of_rows([40, 40])
    assert tokens(done) == tokens(await complete(fresh(), requests))
