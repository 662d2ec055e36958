"""Memory that runs out while rows decode: they go on, fewer at a time, and say what they would have said."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from engine_calls import complete, same_likelihoods
from hypothesis import given, settings
from hypothesis import strategies as st
from image_requests import CAT, DOG, request, words
from mlx_lm.models.llama import Model as Llama
from scheduling import Driver, tiny, tokens

from engine.api import Completion, Failure, GenerationRequest, Message, SamplingParams
from engine.errors import OutOfMemoryError
from engine.families.zaya.model import Model
from engine.mlx.engine import MLXEngine
from engine.mlx.model import TextModel

IMAGE_TOKEN = 127
END_IDS = range(0, 128, 25)
PROMPTS = [[i, *range(3, 3 + 7 * i % 20), 9] for i in range(1, 7)]


class Short:
    """A model for whose decode steps memory is short.

    is_short  told the number of the step, from 1, and the tokens [B, 1] and caches that it is given.
    late      it shows only once the caches have been written.
    """

    def __init__(self, is_short: Callable[[int, mx.array, Any], bool], *, late: bool = True) -> None:
        self._model: TextModel = tiny()
        self._is_short = is_short
        self._late = late
        self._steps = itertools.count(1)
        self.accidents = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        short = inputs.shape[1] == 1 and self._is_short(next(self._steps), inputs, cache)
        logits = self._model(inputs, cache=cache) if self._late or not short else None
        if logits is None or short:
            self.accidents += 1
            raise RuntimeError("[malloc] Unable to allocate 123456 bytes.")
        return logits


@cache
def undisturbed(max_tokens: int, times: int = 1) -> list[tuple[int, ...]]:
    """What the prompts, so many times each, give where memory is not short."""
    driver = Driver(tiny(), end_ids=END_IDS)
    driver.submit(PROMPTS * times, max_tokens=max_tokens)
    return tokens(driver.run())


@settings(max_examples=15)
@given(steps=st.sets(st.integers(1, 40), min_size=1, max_size=5), late=st.booleans(), rows=st.integers(2, 6))
def test_accidents_change_no_token(steps: set[int], late: bool, rows: int) -> None:
    model = Short(lambda step, inputs, _: step in steps and inputs.shape[0] > 1, late=late)
    driver = Driver(model, end_ids=END_IDS)
    driver.submit(PROMPTS[:rows], max_tokens=20)
    assert tokens(driver.run()) == undisturbed(20)[:rows]
    assert all(driver.shown(i) == row.completion().token_ids for i, row in enumerate(driver.rows))


@pytest.mark.parametrize("fit", [1, 2, 3])
def test_where_few_rows_fit_few_run(fit: int) -> None:
    """It tries one more for each that ends, and so halves again and again; no row is lost."""
    model = Short(lambda _, inputs, __: inputs.shape[0] > fit)
    driver = Driver(model, end_ids=END_IDS)
    driver.submit(PROMPTS * 3, max_tokens=20)
    ran: list[int] = []
    ends = driver.run(lambda scheduler: ran.append(len(scheduler._batch.rows)))
    assert tokens(ends) == undisturbed(20, 3)
    assert max(ran) == fit
    assert 1 <= model.accidents <= len(ends) + 3


def test_what_does_not_fit_even_alone_fails_and_says_what_to_lower() -> None:
    """Rows of 30 tokens and more together are too many; of the last row's prompt alone, too."""
    model = Short(lambda _, inputs, cache: inputs.shape[0] * cache[0].size() >= 30)
    prompts = [[5, 6, 7], [5, 8, 7], list(range(40, 60))]
    driver = Driver(model)
    driver.submit(prompts, max_tokens=15)
    *short, long = driver.run()
    expected = Driver(tiny())
    expected.submit(prompts, max_tokens=15)
    whole = tokens(expected.run())
    assert tokens(short) == whole[:2]
    assert isinstance(long, Failure)
    assert isinstance(long.error, OutOfMemoryError)
    assert str(long.error) == (
        "out of memory while generating ([malloc] Unable to allocate 123456 bytes.): lower `n`, `beta` or `tau`"
    )
    # What it had written is not lost.
    assert 5 < len(driver.shown(2)) < 15
    assert driver.shown(2) == whole[2][: len(driver.shown(2))]


def test_a_prefill_waits_for_memory_while_others_decode() -> None:
    """The second prompt fits only once the first row has ended; the third never does."""
    running = [True]

    class Shorter(Short):
        def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
            if inputs.shape[1] > 1 and (inputs.shape[1] > 40 or (inputs.shape[1] > 20 and running[0])):
                raise RuntimeError("[malloc] Unable to allocate 1 bytes.")
            return super().__call__(inputs, cache)

    driver = Driver(Shorter(lambda *_: False))
    driver.submit([[5, 6, 7]], max_tokens=20)
    driver.scheduler.step()
    driver.submit([list(range(1, 31)), list(range(1, 61))], max_tokens=4)

    def look(_: object) -> None:
        running[0] = driver.rows[0].finish_reason is None

    first, second, third = driver.run(look)
    expected = Driver(tiny())
    expected.submit([list(range(1, 31))], seed=1, max_tokens=4)
    assert isinstance(first, Completion)
    assert tokens([second]) == tokens(expected.run())
    assert isinstance(third, Failure)
    assert isinstance(third.error, OutOfMemoryError)


# ---- through the engine: tags, budgets, cues, text, images


def _accidents(monkeypatch: pytest.MonkeyPatch, model: type, steps: set[int]) -> list[int]:
    """Have some decode steps of a class of models fail; returns the numbers of those that did."""
    forward, count, failed = model.__call__, itertools.count(1), list[int]()

    def faulty(self: Any, inputs: mx.array, *args: Any, **options: Any) -> mx.array:
        logits: mx.array = forward(self, inputs, *args, **options)
        if inputs.shape[1] == 1 and (step := next(count)) in steps and inputs.shape[0] > 1:
            failed.append(step)
            raise RuntimeError("[malloc] Unable to allocate 1 bytes.")
        return logits

    monkeypatch.setattr(model, "__call__", faulty)
    return failed


@pytest.mark.anyio
@pytest.mark.parametrize("first", range(2, 8))
async def test_budgets_and_forced_tokens_go_on_where_they_were(
    llama: MLXEngine, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The closing tag is forced after five tokens or so: an accident at any step around it."""
    requests = [
        GenerationRequest(
            id=f"r{i}",
            messages=(Message(role="user", text="Hello wörld" + "!" * i),),
            sampling=SamplingParams(seed=i, reasoning_budget=3 + i % 3, answer_budget=6, top_p=0.9),
            likelihoods=i > 0,
        )
        for i in range(5)
    ]
    expected = await complete(llama, requests)
    failed = _accidents(monkeypatch, Llama, {first, first + 3, first + 4})
    found = await complete(llama, requests)
    assert [_without_rounding(c) for c in found] == [_without_rounding(c) for c in expected]
    assert all(same_likelihoods(a, b) for a, b in zip(found, expected, strict=True))
    assert first in failed
    assert any(completion.forced for completion in expected)


@pytest.mark.anyio
async def test_images_are_read_again_and_image_tokens_that_were_written_show_none(
    fresh: Callable[..., MLXEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, forward = fresh(), Model.__call__

    def fond(self: Model, *args: Any, **options: Any) -> mx.array:
        return forward(self, *args, **options) + 15 * (mx.arange(128) == IMAGE_TOKEN)

    monkeypatch.setattr(Model, "__call__", fond)
    requests = [request(f"{i}", words(i), image, seed=i, max_tokens=24) for i, image in enumerate([CAT, DOG, CAT, DOG])]
    expected = await complete(engine, requests)
    assert any(IMAGE_TOKEN in completion.token_ids[:2] for completion in expected)
    failed = _accidents(monkeypatch, Model, {4, 8, 12})
    found = await complete(engine, requests)
    assert [_without_rounding(c) for c in found] == [_without_rounding(c) for c in expected]
    assert failed


def _without_rounding(completion: Completion) -> Completion:
    """But for what was found among known beginnings, which depends on what came before, and for likelihoods, which
    differ in their last digits."""
    usage = completion.usage.model_copy(update={"cached_tokens": 0})
    return completion.model_copy(update={"usage": usage, "likelihoods": None})
