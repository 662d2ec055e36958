"""The contract of `engine.api`, stated once: promises that every engine keeps, each a function that checks one.

`test_contract.py` has the scripted and the MLX engine keep them. An engine of another kind brings a `Subject`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from engine.api import (
    AnswerCue,
    Completion,
    Engine,
    Failure,
    GenerationRequest,
    ImagePart,
    Message,
    SamplingParams,
    TokenChunk,
    Tool,
    ToolCall,
    Usage,
)
from engine.errors import ContextError, EngineClosedError, EngineError, RequestError

from .subject import ENDLESS_TOKENS, Subject, completions, events_of, mixed, request, split

CUE = AnswerCue(text="\n= [")

Promise = Callable[[Subject], Awaitable[None]]
PROMISES: list[Promise] = []


def promise(check: Promise) -> Promise:
    PROMISES.append(check)
    return check


# ---- events


@promise
async def every_request_ends_once_and_last(subject: Subject) -> None:
    events = await events_of(subject.thinking, *mixed())
    for each in mixed():
        own = [event for event in events if event.request_id == each.id]
        assert [isinstance(event, Completion) for event in own] == [False] * (len(own) - 1) + [True]
    assert await events_of(subject.thinking) == []


@promise
async def chunks_add_up_to_the_completion(subject: Subject) -> None:
    events = await events_of(subject.thinking, *mixed())
    for each in mixed():
        chunks, end = split(events, each.id)
        assert tuple(token for chunk in chunks for token in chunk.token_ids) == end.token_ids
        assert "".join(chunk.text for chunk in chunks if chunk.section == "reasoning") == end.reasoning
        assert "".join(chunk.text for chunk in chunks if chunk.section == "answer") == end.text
        assert all(chunk.token_ids or chunk.text for chunk in chunks), "none says nothing"
        sections = [chunk.section for chunk in chunks]
        assert sections == sorted(sections, key=["reasoning", "answer"].index)


@promise
async def chunks_of_a_model_without_tags_add_up_too(subject: Subject) -> None:
    asked = request(reasoning_budget=9, answer_budget=8, cue=CUE, seed=3)
    chunks, end = split(await events_of(subject.plain, asked), "a")
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == end.token_ids
    assert "".join(chunk.text for chunk in chunks) == end.text
    assert "".join(chunk.text for chunk in chunks if chunk.section == "reasoning") == end.reasoning


@promise
async def every_token_is_accounted_for(subject: Subject) -> None:
    for each, end in zip(mixed(), await completions(subject.thinking, *mixed()), strict=True):
        usage = end.usage
        assert usage.prompt_tokens == subject.thinking.tokenizer.prompt_tokens(each.messages)
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens
        assert usage.completion_tokens == len(end.token_ids)
        assert len(end.reasoning_ids) == usage.reasoning_tokens <= usage.completion_tokens
        assert usage + Usage() == usage


# ---- budgets and sections


@promise
async def reasoning_stops_at_its_budget_and_is_made_to_answer(subject: Subject) -> None:
    (end,) = await completions(subject.endless, request(reasoning_budget=20, answer_budget=5))
    assert (end.forced, end.closed, end.usage.reasoning_tokens) == (True, True, 20)
    assert end.finish_reason in ("stop", "length")
    for each, done in zip(mixed(), await completions(subject.thinking, *mixed()), strict=True):
        assert done.usage.reasoning_tokens <= (each.sampling.reasoning_budget or 0)
        assert done.closed or done.finish_reason == "stop", "it may end its turn in the midst of its reasoning"
        assert not done.forced or done.usage.reasoning_tokens == each.sampling.reasoning_budget


@promise
async def reasoning_ends_at_its_budget_where_no_answer_is_forced(subject: Subject) -> None:
    for answer_budget, force_answer in ((0, True), (5, False)):
        asked = request(reasoning_budget=20, answer_budget=answer_budget, force_answer=force_answer)
        (end,) = await completions(subject.endless, asked)
        assert (end.finish_reason, end.text, len(end.token_ids)) == ("budget", "", 20)
        assert (end.forced, end.closed) == (False, False)


@promise
async def an_answer_keeps_to_its_budget(subject: Subject) -> None:
    for budget in (1, 4):
        (end,) = await completions(subject.endless, request(reasoning_budget=3, answer_budget=budget))
        assert (end.finish_reason, end.closed) == ("length", True)
        after_the_tag = end.usage.completion_tokens - end.usage.reasoning_tokens
        assert budget < after_the_tag <= budget + 3, "the closing tag, of three tokens at most, and the answer"


@promise
async def max_tokens_bounds_everything(subject: Subject) -> None:
    (end,) = await completions(subject.endless, request(max_tokens=7, reasoning_budget=ENDLESS_TOKENS))
    assert (end.finish_reason, len(end.token_ids), end.closed) == ("length", 7, False)


@promise
async def the_context_bounds_everything(subject: Subject) -> None:
    asked = request(text="x" * 470, seed=1, reasoning_budget=10**6)
    (end,) = await completions(subject.plain, asked)
    room = 512 - end.usage.prompt_tokens
    assert 0 < len(end.token_ids) <= room
    assert end.finish_reason == ("length" if len(end.token_ids) == room else "stop")


@promise
async def without_thinking_all_is_the_answer(subject: Subject) -> None:
    asked = [request(f"r{i}", thinking=False, seed=i, max_tokens=9, reasoning_budget=2) for i in range(4)]
    ends = await completions(subject.thinking, *asked)
    for end in ends:
        assert (end.reasoning, end.usage.reasoning_tokens, end.closed, end.forced) == ("", 0, False, False)
    assert 2 < max(len(end.token_ids) for end in ends) <= 9, "the budget of reasoning is not the answer's"


@promise
async def a_model_without_tags_answers_with_what_it_reasons(subject: Subject) -> None:
    (end,) = await completions(subject.plain, request(reasoning_budget=5, answer_budget=9, seed=3))
    assert end.text == end.reasoning
    assert (end.finish_reason, end.usage.reasoning_tokens, end.closed) == ("budget", 5, False)


@promise
async def a_model_without_tags_goes_on_after_a_cue(subject: Subject) -> None:
    cue = subject.plain.tokenizer.encode(CUE.text)
    (end,) = await completions(subject.plain, request(reasoning_budget=5, answer_budget=len(cue) + 2, cue=CUE, seed=3))
    assert (end.forced, end.closed, end.usage.reasoning_tokens) == (True, False, 5)
    assert list(end.token_ids[5 : 5 + len(cue)]) == cue
    assert end.text.startswith(end.reasoning + CUE.text)
    assert len(end.token_ids) <= 5 + len(cue) + 2
    (short,) = await completions(subject.plain, request(reasoning_budget=5, answer_budget=len(cue), cue=CUE, seed=3))
    assert (short.finish_reason, short.forced) == ("budget", False), "no token would be left after it"


@promise
async def a_model_that_thinks_has_no_use_for_a_cue(subject: Subject) -> None:
    with_cue, without = await completions(
        subject.thinking,
        request("a", seed=1, reasoning_budget=5, answer_budget=4, cue=CUE),
        request("b", seed=1, reasoning_budget=5, answer_budget=4),
    )
    assert (with_cue.token_ids, with_cue.text) == (without.token_ids, without.text)


@promise
async def a_stop_string_ends_the_text_before_it(subject: Subject) -> None:
    (free,) = await completions(subject.plain, request(seed=2, max_tokens=120))
    stop = next(free.text[i : i + 2] for i in range(5, len(free.text) - 1) if "\ufffd" not in free.text[i : i + 2])
    events = await events_of(subject.plain, request(seed=2, max_tokens=120, stop=("not in it \0", stop)))
    chunks, end = split(events, "a")
    assert (end.text, end.finish_reason) == (free.text[: free.text.index(stop)], "stop")
    assert "".join(chunk.text for chunk in chunks) == end.text
    assert free.token_ids[: len(end.token_ids)] == end.token_ids


# ---- seeds


@promise
async def a_seed_gives_the_same_draws_alone_and_in_a_batch(subject: Subject) -> None:
    together = await completions(subject.thinking, *mixed())
    alone = [(await completions(subject.thinking, each))[0] for each in mixed()]
    assert [end.token_ids for end in together] == [end.token_ids for end in alone]
    assert [end.text for end in together] == [end.text for end in alone]


@promise
async def other_seeds_give_other_draws(subject: Subject) -> None:
    asked = [request(f"r{i}", seed=i, temperature=1.0, reasoning_budget=30, answer_budget=0) for i in range(8)]
    assert len({end.token_ids for end in await completions(subject.thinking, *asked)}) > 4


# ---- likelihoods


def wanting(requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    return [each.model_copy(update={"likelihoods": True}) for each in requests]


@promise
async def likelihoods_are_those_of_the_drawn_tokens_or_refused(subject: Subject) -> None:
    engine = subject.thinking
    if engine.model.lacks("logprobs") is not None:
        await refused(
            engine, RequestError, "'a' wants likelihoods, but .* does not say how likely", *wanting([request()])
        )
        return
    together, unasked = await completions(engine, *wanting(mixed())), await completions(engine, *mixed())
    assert any(end.forced for end in together)
    for end, other in zip(together, unasked, strict=True):
        assert (end.token_ids, other.likelihoods) == (other.token_ids, None)
        assert end.likelihoods is not None
        numbers, reasoned = end.likelihoods.log_probabilities, end.usage.reasoning_tokens
        assert len(numbers) == len(end.token_ids)
        assert any(number is not None for number in numbers[:reasoned])
        assert not end.forced or numbers[reasoned] is None, "a forced tag was not drawn"
        assert all(number <= 0 for number in numbers if number is not None)
        entropies = end.likelihoods.entropies
        assert entropies is None or [n is None for n in entropies] == [n is None for n in numbers]


@promise
async def all_of_the_reasoning_has_likelihoods(subject: Subject) -> None:
    if subject.thinking.model.lacks("logprobs") is not None:
        return
    for end in await completions(subject.thinking, *wanting(mixed())):
        assert end.likelihoods is not None
        assert None not in end.likelihoods.log_probabilities[: end.usage.reasoning_tokens]


@promise
async def likelihoods_are_the_same_alone_and_in_a_batch(subject: Subject) -> None:
    engine = subject.thinking
    if engine.model.lacks("logprobs") is not None:
        return
    # Half of them ask: what is computed for a batch must not come to the wrong row.
    some = [*wanting(mixed()[::2]), *mixed()[1::2]]
    for end, asked in zip(await completions(engine, *some), some, strict=True):
        (alone,) = await completions(engine, asked)
        assert (end.likelihoods is None) == (alone.likelihoods is None) == (not asked.likelihoods)
        if end.likelihoods is not None and alone.likelihoods is not None:
            assert end.likelihoods.log_probabilities == near(alone.likelihoods.log_probabilities)
            assert end.likelihoods.entropies == near(alone.likelihoods.entropies)


def near(numbers: Sequence[float | None] | None) -> object:
    return numbers and pytest.approx(numbers, abs=1e-3)


# ---- while they run


@promise
async def what_is_cancelled_ends_with_what_it_has(subject: Subject) -> None:
    asked = [request(name, reasoning_budget=ENDLESS_TOKENS, seed=i) for i, name in enumerate("ab")]
    ends: dict[str, Completion] = {}
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate(asked) as stream:
            stream.cancel("unknown")
            async for event in stream:
                if isinstance(event, Completion):
                    ends[event.request_id] = event
                    stream.cancel(event.request_id)
                elif event.request_id == "a" or "a" in ends:
                    stream.cancel(event.request_id)
    for end in ends.values():
        assert end.finish_reason == "cancelled"
        assert 0 < len(end.token_ids) < ENDLESS_TOKENS
        assert end.usage.completion_tokens == len(end.token_ids)


@promise
async def what_is_concluded_answers(subject: Subject) -> None:
    asked = request(reasoning_budget=ENDLESS_TOKENS, answer_budget=4)
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate([asked]) as stream:
            stream.conclude("unknown")
            events = []
            async for event in stream:
                events.append(event)
                stream.conclude("a")
    _, end = split(events, "a")
    assert (end.forced, end.closed, end.finish_reason) == (True, True, "length")
    assert end.usage.reasoning_tokens < ENDLESS_TOKENS


@promise
async def what_is_concluded_at_a_place_is_as_if_that_were_its_budget(subject: Subject) -> None:
    place, asked = 7, request(reasoning_budget=ENDLESS_TOKENS, answer_budget=4)
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate([asked]) as stream:
            stream.conclude("a", at=ENDLESS_TOKENS)
            stream.conclude("a", at=place)
            _, concluded = split([event async for event in stream], "a")
        async with subject.endless.generate([request(reasoning_budget=place, answer_budget=4)]) as stream:
            _, budgeted = split([event async for event in stream], "a")
    assert concluded.usage.reasoning_tokens == budgeted.usage.reasoning_tokens == place
    assert concluded.token_ids[:place] == budgeted.token_ids[:place]
    assert (concluded.closed, concluded.forced) == (budgeted.closed, budgeted.forced)
    if not str(subject.endless.model.details.get("source")).startswith("openai:"):  # a server may draw the answer anew
        assert concluded.token_ids == budgeted.token_ids


@promise
async def what_is_concluded_where_no_answer_is_wanted_ends(subject: Subject) -> None:
    asked = request(reasoning_budget=ENDLESS_TOKENS, answer_budget=0)
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate([asked]) as stream:
            events = []
            async for event in stream:
                events.append(event)
                stream.conclude("a")
    _, end = split(events, "a")
    assert (end.finish_reason, end.text, end.forced) == ("budget", "", False)


@promise
async def leaving_a_stream_frees_its_rows(subject: Subject) -> None:
    rows = subject.endless.model.max_rows
    assert rows is not None
    asked = [request(f"r{i}", reasoning_budget=ENDLESS_TOKENS, seed=i) for i in range(rows)]
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate(asked) as stream:
            await anext(stream)
        (after,) = await completions(subject.endless, request(max_tokens=3))  # would wait for a row otherwise
    assert len(after.token_ids) == 3


@promise
async def a_cancelled_row_makes_room_for_one_that_waits(subject: Subject) -> None:
    rows = subject.endless.model.max_rows or 0
    running = [request(f"r{i}", reasoning_budget=ENDLESS_TOKENS, seed=i) for i in range(rows)]
    ends = []
    with anyio.fail_after(subject.patience_s):
        async with subject.endless.generate([*running, request("next", "other", max_tokens=3)]) as stream:
            async for event in stream:
                if isinstance(event, Completion):
                    ends.append((event.request_id, event.finish_reason))
                    if event.request_id == "next":
                        break
                else:
                    stream.cancel("r0")
    assert ends == [("r0", "cancelled"), ("next", "length")]


@promise
async def streams_run_side_by_side(subject: Subject) -> None:
    ends: dict[str, Completion] = {}

    async def run(asked: Sequence[GenerationRequest], started: anyio.Event) -> None:
        async with subject.thinking.generate(asked) as stream:
            async for event in stream:
                started.set()
                if isinstance(event, Completion):
                    ends[event.request_id] = event

    async with anyio.create_task_group() as group:
        for asked in (mixed()[:3], mixed()[3:4], mixed()[4:]):
            started = anyio.Event()
            group.start_soon(run, asked, started)
            await started.wait()
    alone = [(await completions(subject.thinking, each))[0] for each in mixed()]
    assert [ends[end.request_id].token_ids for end in alone] == [end.token_ids for end in alone]


# ---- what is refused, and what fails


async def refused(engine: Engine, error: type[EngineError], words: str, *requests: GenerationRequest) -> None:
    with pytest.raises(error, match=words) as caught:
        async with engine.generate(requests):
            pass
    assert "\n" not in str(caught.value)


@promise
async def bad_requests_are_refused_on_entering(subject: Subject) -> None:
    engine, image = subject.thinking, ImagePart(data=b"x")
    await refused(engine, RequestError, "two requests .*'a'", request("a"), request("a", "other"))
    await refused(engine, RequestError, "'b'.*prompt is empty", request("a"), request("b", " \n"))
    seeing = GenerationRequest(id="a", messages=(Message(role="user", text="?", images=(image,)),))
    await refused(engine, RequestError, "'a' has images, but .* reads text only", seeing)
    wordless = GenerationRequest(id="a", messages=(Message(role="user", text="", images=(image,)),))
    await refused(engine, RequestError, "prompt is empty", wordless)
    await refused(engine, ContextError, "'a'.* 512 at most", request("a", "x" * 600))


@promise
async def a_refusal_takes_no_rows(subject: Subject) -> None:
    await refused(subject.endless, RequestError, "two requests", *[request(max_tokens=3) for _ in range(9)])
    with anyio.fail_after(subject.patience_s):
        (after,) = await completions(subject.endless, request(max_tokens=3))
    assert len(after.token_ids) == 3


@promise
async def nothing_runs_before_the_stream_is_entered(subject: Subject) -> None:
    subject.thinking.generate([request("a", " ")])
    rows = subject.endless.model.max_rows or 0
    subject.endless.generate([request(f"r{i}", reasoning_budget=ENDLESS_TOKENS) for i in range(rows)])
    with anyio.fail_after(subject.patience_s):
        (after,) = await completions(subject.endless, request(max_tokens=3))
    assert len(after.token_ids) == 3


@promise
async def a_failure_stays_alone(subject: Subject) -> None:
    engine = subject.failing()
    events = await events_of(engine, request("bad", max_tokens=400), request("good", "other", max_tokens=5))
    (failure,) = (event for event in events if event.request_id == "bad" and not isinstance(event, TokenChunk))
    assert isinstance(failure, Failure)
    assert str(failure.error)
    assert split(events, "good")[1].usage.completion_tokens == 5
    await engine.aclose()


@promise
async def closing_the_engine_fails_what_runs_and_what_comes(subject: Subject) -> None:
    engine = subject.fresh()
    async with engine.generate([request(name, reasoning_budget=ENDLESS_TOKENS) for name in "ab"]) as stream:
        await anext(stream)
        await engine.aclose()
        ends = [event async for event in stream if not isinstance(event, TokenChunk)]
    assert sorted(end.request_id for end in ends) == ["a", "b"]
    assert all(isinstance(end, Failure) and isinstance(end.error, EngineClosedError) for end in ends)
    await engine.aclose()  # idempotent
    await refused(engine, EngineClosedError, "open a new one", request())


# ---- what the engine says of itself


@promise
async def the_engine_says_what_it_can(subject: Subject) -> None:
    for engine, thinks in ((subject.thinking, True), (subject.plain, False), (subject.endless, True)):
        assert isinstance(engine, Engine)
        assert engine.model.name
        assert (engine.model.thinks, engine.model.images) == (thinks, False)
        assert engine.model.lacks("conclude") is None, "the promises above are about an engine that can"
        assert "reads text only" in (engine.model.lacks("images") or "")


@promise
async def the_tokenizer_reads_what_it_writes(subject: Subject) -> None:
    tokenizer = subject.thinking.tokenizer
    for text in ("Hello wörld", "</think> is <think>", "42\n\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode("wörld")
    assert all(tokenizer.decode(ids[i:]) in "wörld" for i in range(len(ids))), "a part of it, cut anywhere"
    one, two = (Message(role="user", text="a" * n) for n in (1, 2))
    assert tokenizer.prompt_tokens([one]) < tokenizer.prompt_tokens([two])


# ---- tools

TOOL = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "number"}}})
TALK_WITH_A_CALL = (
    Message(role="user", text="1 + 2?"),
    Message(role="assistant", text="", calls=(ToolCall(id="call_1", name="add", arguments='{"a": 1.5}'),)),
    Message(role="tool", text="3", answers="call_1"),
)


@promise
async def tools_are_part_of_the_prompt_or_refused(subject: Subject) -> None:
    engine, sampling = subject.thinking, SamplingParams(max_tokens=3)
    asked = [
        request("plain", max_tokens=3),
        request("told", max_tokens=3).model_copy(update={"tools": (TOOL,)}),
        GenerationRequest(id="answered", messages=TALK_WITH_A_CALL, sampling=sampling, tools=(TOOL,)),
    ]
    if engine.model.lacks("tools") is not None:
        for each in asked[1:]:
            await refused(engine, RequestError, f"{each.id!r} has tools, but .* calls no tools", each)
        return
    ends = await completions(engine, *asked)
    counted = [engine.tokenizer.prompt_tokens(each.messages, tools=each.tools) for each in asked]
    assert [end.usage.prompt_tokens for end in ends] == counted
    assert counted[1] - counted[0] >= len(TOOL.name + TOOL.description)
    silent = engine.tokenizer.prompt_tokens([m.model_copy(update={"calls": ()}) for m in TALK_WITH_A_CALL])
    told = engine.tokenizer.prompt_tokens(TALK_WITH_A_CALL)
    assert told > silent, "a call is a part of its turn"
