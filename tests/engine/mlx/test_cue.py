"""A model without think tags that used up its reasoning budget is asked for its answer with the beginning of one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import (
    AnswerCue,
    Completion,
    Engine,
    EngineEvent,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenChunk,
)
from engine.mlx.engine import MLXEngine
from engine.mlx.tokenizer import ChatTokenizer
from engine.scripted import ByteTokenizer, Script, ScriptedEngine
from engine.sequence import Sequence

pytestmark = pytest.mark.anyio
CUE = AnswerCue(text="\n= [", stop=("]",))
CUE_TOKENS = 4  # a byte each, in the tokenizers here


def request(name: str = "r", **sampling: Any) -> GenerationRequest:
    settings = {"cue": CUE, "reasoning_budget": 3, "answer_budget": 8, **sampling}
    return GenerationRequest(
        id=name, messages=(Message(role="user", text="Hello wörld"),), sampling=SamplingParams(**settings)
    )


async def complete(engine: Engine, requests: list[GenerationRequest]) -> list[Completion]:
    async with engine.generate(requests) as stream:
        done = {event.request_id: event async for event in stream if isinstance(event, Completion)}
    return [done[one.id] for one in requests]


def feed(text: str, tokenizer: ChatTokenizer, asked: GenerationRequest) -> tuple[Completion, list[EngineEvent]]:
    """Draw these letters, forced tokens first, until the sequence ends; one that does not is cancelled."""
    sequence = Sequence(asked, tokenizer, prompt_tokens=1, opened=False)
    rest, events = tokenizer.encode(text), []
    while sequence.finish_reason is None and (sequence.forced or rest):
        sequence.accept(sequence.forced[0] if sequence.forced else rest.pop(0))
        events += sequence.chunks()
    sequence.finish("cancelled")
    return sequence.completion(), [*events, *sequence.chunks()]


@pytest.mark.parametrize(
    ("sampling", "text", "finish", "generated"),
    [
        ({}, "abc\n= [defg", "length", 3 + CUE_TOKENS + 4),
        ({"cue": AnswerCue(text="\n= [", stop=("f",))}, "abc\n= [de", "stop", 3 + CUE_TOKENS + 3),
        ({"stop": ("ef",)}, "abc\n= [d", "stop", 3 + CUE_TOKENS + 3),
        # The model did not write the cue: what stops the model does not stop that.
        ({"stop": ("=",)}, "abc\n= [defg", "length", 3 + CUE_TOKENS + 4),
        ({"answer_budget": None}, "abc\n= [defghi", "cancelled", 3 + CUE_TOKENS + 6),
        ({"answer_budget": CUE_TOKENS + 1}, "abc\n= [d", "length", 3 + CUE_TOKENS + 1),
        ({"answer_budget": CUE_TOKENS}, "abc", "budget", 3),
        ({"answer_budget": 0}, "abc", "budget", 3),
        ({"force_answer": False}, "abc", "budget", 3),
        ({"cue": None}, "abc", "budget", 3),
        ({"max_tokens": 5}, "abc\n= [", "length", 5),
    ],
)
def test_at_beta(plain: MLXEngine, sampling: dict[str, Any], text: str, finish: str, generated: int) -> None:
    done, _ = feed("abcdefghi", plain.tokenizer, request(**sampling))
    assert (done.reasoning, done.text, done.finish_reason) == ("abc", text, finish)
    assert len(done.token_ids) == done.usage.completion_tokens == generated
    assert (done.usage.reasoning_tokens, done.closed, done.forced) == (3, False, "=" in text)
    assert plain.tokenizer.decode(done.reasoning_ids) == "abc", "a tail holds nothing of the cue"


@given(
    text=st.text("ab]é=", max_size=20),
    beta=st.integers(1, 9),
    answer=st.integers(0, 12),
    stop=st.sampled_from([(), ("b",), ("=",), ("a]",)]),
)
def test_chunks_add_up_to_the_completion(plain: MLXEngine, text: str, beta: int, answer: int, stop: Any) -> None:
    asked = request(reasoning_budget=beta, answer_budget=answer, stop=stop)
    done, chunks = feed(text, plain.tokenizer, asked)
    found = [chunk for chunk in chunks if isinstance(chunk, TokenChunk)]
    assert tuple(i for chunk in found for i in chunk.token_ids) == done.token_ids
    assert "".join(chunk.text for chunk in found) == done.text
    assert "".join(chunk.text for chunk in found if chunk.section == "reasoning") == done.reasoning
    assert done.usage.reasoning_tokens <= beta
    assert done.usage.completion_tokens <= beta + answer


def test_who_concludes_gets_the_cue_at_the_next_token(plain: MLXEngine) -> None:
    sequence = Sequence(request(reasoning_budget=100), plain.tokenizer, prompt_tokens=1, opened=False)
    first, second = plain.tokenizer.encode("ab")
    sequence.accept(first)
    sequence.conclude()
    sequence.accept(second)
    assert list(sequence.forced) == plain.tokenizer.encode(CUE.text)


async def test_the_same_alone_and_in_a_batch(plain: MLXEngine) -> None:
    requests = [
        request(f"r{i}", seed=i, temperature=1.0, reasoning_budget=5 + i % 4, answer_budget=6 + 5 * (i % 3))
        for i in range(12)
    ]
    together = await complete(plain, requests)
    alone = [(await complete(plain, [one]))[0] for one in requests]
    assert [done.token_ids for done in together] == [done.token_ids for done in alone]
    forced = [done for done in together if done.forced]
    assert len(forced) > 6
    for done in forced:
        assert done.text.startswith(f"{done.reasoning}{CUE.text}")
        before = done.usage.reasoning_tokens
        assert list(done.token_ids[before : before + CUE_TOKENS]) == plain.tokenizer.encode(CUE.text)


async def test_noise_before_and_after_the_cue_is_that_of_its_draws(plain: MLXEngine) -> None:
    """The cue takes the place of draws; it does not move them."""
    (free,) = await complete(plain, [request(seed=4, temperature=1.0, reasoning_budget=40, cue=None)])
    (asked,) = await complete(plain, [request(seed=4, temperature=1.0, reasoning_budget=6)])
    assert asked.token_ids[:6] == free.token_ids[:6]


async def test_a_model_that_thinks_closes_its_tag_instead(llama: MLXEngine) -> None:
    with_cue, without = await complete(llama, [request("a", seed=1), request("b", seed=1, cue=None)])
    assert (with_cue.token_ids, with_cue.text) == (without.token_ids, without.text)
    assert with_cue.closed


@pytest.mark.parametrize("step", [1, 2, 50])
async def test_a_script_answers_after_the_cue(step: int) -> None:
    script = Script(reasoning="on and on ", answer="42]and more", never_ends=True)
    engine = ScriptedEngine(script, thinks=False, tokens_per_step=step)
    async with engine.generate([request(reasoning_budget=25, answer_budget=20)]) as stream:
        events = [event async for event in stream]
    done = events.pop()
    assert isinstance(done, Completion)
    assert (done.text, done.finish_reason, done.forced) == (f"{done.reasoning}\n= [42", "stop", True)
    chunks = [event for event in events if isinstance(event, TokenChunk)]
    assert "".join(chunk.text for chunk in chunks) == done.text
    assert tuple(i for chunk in chunks for i in chunk.token_ids) == done.token_ids
    assert ByteTokenizer().decode(done.reasoning_ids) == done.reasoning == "on and on on and on on an"
