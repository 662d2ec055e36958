"""Every engine keeps the contract, and whoever breaks one promise of it is found out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from engine.api import Completion, EngineEvent, GenerationRequest, GenerationStream, ModelInfo, TokenChunk, Tokenizer
from engine.errors import OutOfMemoryError, RequestError
from engine.families.mlx_lm.model import AdaptedModel
from engine.loader import load_engine
from engine.mlx.engine import MLXEngine
from engine.mlx.memory import CacheCost
from engine.scripted import Script, ScriptedEngine

from .contract import PROMISES, Promise
from .subject import ENDLESS_TOKENS, Subject

pytestmark = pytest.mark.anyio


# ---- the scripted engine


def by_seed(request: GenerationRequest) -> Script:
    """Letters of a generator of its own, some of which take two bytes."""
    draws = random.Random(request.sampling.seed)
    texts = ("".join(draws.choices("abcdeéö ", k=draws.randint(40, 60))) for _ in range(2))
    return Script(next(texts), next(texts), never_ends=request.sampling.max_tokens is not None)


def broken_for_bad(request: GenerationRequest) -> Script:
    return Script("abc", error=OutOfMemoryError("lower n"), fail_after=1) if request.id == "bad" else by_seed(request)


def scripted(script: Any = by_seed, **options: Any) -> ScriptedEngine:
    return ScriptedEngine(script, tokens_per_step=3, images=False, **{"context_tokens": 512, **options})


def endless_script() -> ScriptedEngine:
    script = Script("on and on ", "an answer of some length", never_ends=True)
    return scripted(script, context_tokens=2 * ENDLESS_TOKENS, max_rows=2)


@pytest.fixture
def scripted_subject() -> Subject:
    return Subject(
        thinking=scripted(),
        plain=scripted(thinks=False),
        endless=endless_script(),
        fresh=endless_script,
        failing=lambda: scripted(broken_for_bad),
    )


# ---- the MLX engine


def endless_llama(folder: Path) -> MLXEngine:
    """Nothing is an end token, and the closing tag is three tokens that a random model will not write in a row."""
    engine = load_engine(folder, max_rows=2)
    engine.tokenizer.end_ids = frozenset()
    engine.tokenizer.think_close = engine.tokenizer.forced_close = engine.tokenizer.think_close * 3
    return engine


def with_room_for_one_short(folder: Path) -> MLXEngine:
    from mlx_lm.utils import load_model

    return load_engine(folder, kv_bytes=CacheCost.of(AdaptedModel(load_model(folder)[0])).of_rows([100]))


@pytest.fixture(scope="module")
def mlx_subject(tmp_path_factory: pytest.TempPathFactory, make_llama: Callable[..., Path]) -> Iterator[Subject]:
    models = tmp_path_factory.mktemp("models")
    folder, plain = make_llama(models / "tiny"), make_llama(models / "plain", thinks=False)
    long = make_llama(models / "long", context=2 * ENDLESS_TOKENS)
    subject = Subject(
        thinking=load_engine(folder),
        plain=load_engine(plain),
        endless=endless_llama(long),
        fresh=lambda: endless_llama(long),
        failing=lambda: with_room_for_one_short(folder),
    )
    yield subject
    for engine in (subject.thinking, subject.plain, subject.endless):
        assert isinstance(engine, MLXEngine)
        engine.close()


# ---- both keep it


@pytest.mark.parametrize("kind", ["scripted", pytest.param("mlx", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
async def test_the_engine_keeps(promise: Promise, kind: str, request: pytest.FixtureRequest) -> None:
    await promise(request.getfixturevalue(f"{kind}_subject"))


# ---- and the suite is red for who does not


class Deviant:
    """The scripted engine with one promise broken."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine

    @property
    def model(self) -> ModelInfo:
        return self.engine.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return DeviantStream(self.engine.generate(requests))

    async def aclose(self) -> None:
        await self.engine.aclose()


class DeviantStream:
    """Hands on everything; what is broken overrides a part."""

    def __init__(self, stream: GenerationStream) -> None:
        self.stream = stream

    async def __aenter__(self) -> Self:
        await self.stream.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stream.__aexit__(*exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EngineEvent:
        return await anext(self.stream)

    def cancel(self, request_id: str) -> None:
        self.stream.cancel(request_id)

    def conclude(self, request_id: str, at: int = 0) -> None:
        self.stream.conclude(request_id, at)


class OverBudget(Deviant):
    """Gives each request one token more of reasoning than it may have."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return self.engine.generate([more_reasoning(request) for request in requests])


def more_reasoning(request: GenerationRequest) -> GenerationRequest:
    budget = request.sampling.reasoning_budget
    wider = request.sampling.model_copy(update={"reasoning_budget": None if budget is None else budget + 1})
    return request.model_copy(update={"sampling": wider})


class SeedsByPlace(Deviant):
    """Draws by the place of a request among its neighbours."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        moved = [
            each.model_copy(update={"sampling": each.sampling.model_copy(update={"seed": each.sampling.seed + place})})
            for place, each in enumerate(requests)
        ]
        return self.engine.generate(moved)


class KeepsRows(Deviant):
    """Lets the rows of a stream that was left run on."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return LeftRunning(self.engine.generate(requests))


class LeftRunning(DeviantStream):
    async def __aexit__(self, *exc: object) -> None:
        pass


class LosesText(Deviant):
    """Leaves out the text of the last chunk of each request."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return LosingText(self.engine.generate(requests))


class LosingText(DeviantStream):
    async def __anext__(self) -> EngineEvent:
        event = await anext(self.stream)
        if isinstance(event, TokenChunk) and event.section == "answer":
            return TokenChunk(event.request_id, event.token_ids, "", event.section)
        return event


class TakesAnything(Deviant):
    """Drops what it should refuse."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return Accepting(self.engine.generate(requests))


class Accepting(DeviantStream):
    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except RequestError:
            return self


class NeverConcludes(Deviant):
    """Turns a deaf ear to `conclude`."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return Deaf(self.engine.generate(requests))


class Deaf(DeviantStream):
    def conclude(self, request_id: str, at: int = 0) -> None:
        pass


class Miscounts(Deviant):
    """Forgets forced tokens in what it counts."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return Miscounting(self.engine.generate(requests))


class Miscounting(DeviantStream):
    async def __anext__(self) -> EngineEvent:
        event = await anext(self.stream)
        if isinstance(event, Completion) and event.forced:
            fewer = event.usage.model_copy(update={"completion_tokens": event.usage.completion_tokens - 1})
            return event.model_copy(update={"usage": fewer})
        return event


class ForgetsTools(Deviant):
    """Does not tell the model of tools."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return self.engine.generate([request.model_copy(update={"tools": ()}) for request in requests])


class OneLate(Deviant):
    """Tells of each token how likely the one before it was."""

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return TellingLate(self.engine.generate(requests))


class TellingLate(DeviantStream):
    async def __anext__(self) -> EngineEvent:
        event = await anext(self.stream)
        if isinstance(event, Completion) and event.likelihoods is not None:
            numbers = event.likelihoods.log_probabilities
            late = event.likelihoods.model_copy(update={"log_probabilities": (*numbers[:1], *numbers[:-1])})
            return event.model_copy(update={"likelihoods": late})
        return event


@pytest.mark.parametrize(
    ("deviant", "broken"),
    [
        (OverBudget, "reasoning_stops_at_its_budget_and_is_made_to_answer"),
        (SeedsByPlace, "a_seed_gives_the_same_draws_alone_and_in_a_batch"),
        (KeepsRows, "leaving_a_stream_frees_its_rows"),
        (LosesText, "chunks_add_up_to_the_completion"),
        (TakesAnything, "bad_requests_are_refused_on_entering"),
        (NeverConcludes, "what_is_concluded_answers"),
        (Miscounts, "every_token_is_accounted_for"),
        (OneLate, "likelihoods_are_those_of_the_drawn_tokens_or_refused"),
        (ForgetsTools, "tools_are_part_of_the_prompt_or_refused"),
    ],
)
async def test_who_breaks_a_promise_is_found_out(deviant: type[Deviant], broken: str) -> None:
    subject = Subject(
        thinking=deviant(scripted()),
        plain=deviant(scripted(thinks=False)),
        endless=deviant(endless_script()),
        fresh=lambda: deviant(endless_script()),
        failing=lambda: deviant(scripted(broken_for_bad)),
        patience_s=0.5,
    )
    (promise,) = (each for each in PROMISES if each.__name__ == broken)
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        await promise(subject)
