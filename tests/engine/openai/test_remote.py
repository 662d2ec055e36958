"""What a server is asked to begin, and to go on with: after ids, after a text, after a turn."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_server import MODEL, URL, Told, ToldServer, chunk, end

from engine.api import Completion, GenerationRequest, Message, ModelInfo, SamplingParams
from engine.byte_tokenizer import THINK_CLOSE, ByteTokenizer
from engine.openai.asking import Asker
from engine.openai.bodies import Capabilities
from engine.openai.connection import Settings, settings_of
from engine.openai.engine import OpenAIEngine
from engine.openai.remote import Remote
from engine.openai.tokens import RemoteTokenizer
from engine.sequence import Sequence

BYTES = ByteTokenizer()
FIELDS = frozenset(["seed", "chat_template_kwargs", "top_k"])


SETTINGS = settings_of(URL, api_key_env="NO_KEY", max_rows=4, timeout_s=5.0, max_retries=2, backoff_s=0.0)


def remote(settings: Settings, **can: Any) -> Remote:
    def count(messages: Any, thinking: bool, tools: Any) -> int:
        return BYTES.prompt_tokens(messages, thinking=thinking)

    return Remote(
        name=MODEL,
        settings=settings,
        can=Capabilities(**{"fields": FIELDS, "reasoning": "reasoning", **can}),
        tokenizer=RemoteTokenizer("local", BYTES, count),  # type: ignore[arg-type]
        info=ModelInfo(name=MODEL),
        render=lambda request: BYTES.prompt_ids(request.messages, thinking=request.thinking),
        spell=lambda ids: "".join(f"<{token}>" for token in ids),
    )


def request(*, thinking: bool = True, **sampling: Any) -> GenerationRequest:
    given = {"reasoning_budget": 20, "answer_budget": 10, "seed": 5, **sampling}
    messages = (Message(role="user", text="What?"),)
    return GenerationRequest(
        id="r", messages=messages, thinking=thinking, sampling=SamplingParams.model_validate(given)
    )


def grown(asked: GenerationRequest, ids: list[int]) -> Sequence:
    """A sequence that has taken these tokens, and what they force."""
    prompt = BYTES.prompt_ids(asked.messages, thinking=asked.thinking)
    sequence = Sequence(asked, BYTES, prompt_tokens=len(prompt), opened=asked.thinking)
    for token in ids:
        sequence.accept(token)
        while sequence.forced:
            sequence.accept(sequence.forced[0])
    return sequence


@given(reasoning=st.text("ab ", max_size=30), answer=st.text("cd ", max_size=9), closed=st.booleans())
def test_what_is_asked_for_next_fits_what_is_written(reasoning: str, answer: str, closed: bool) -> None:
    asked = request()
    sequence = grown(asked, [*reasoning.encode(), *([THINK_CLOSE, *answer.encode()] if closed else [])])
    if sequence.finish_reason is not None:
        return
    written, done = sequence.token_ids, len(sequence.token_ids)
    bodies = {
        continues: remote(SETTINGS, continues=continues).asked(sequence, None) for continues in ("ids", "text", "turn")
    }
    for _, body in bodies.values():
        assert 1 <= body["max_tokens"] <= 20 + 1 + 10 - done or sequence.section == "answer"
        assert body["max_tokens"] == sequence.tokens_left or sequence.section == "reasoning"
        assert body["seed"] == 5 + done
    if done == 0:
        assert {path for path, _ in bodies.values()} == {"/chat/completions"}
        return
    prompt = BYTES.prompt_ids(asked.messages)
    assert bodies["ids"] == ("/completions", {**bodies["ids"][1], "prompt": [*prompt, *written]})
    assert bodies["text"][1]["prompt"] == "".join(f"<{token}>" for token in [*prompt, *written])
    path, body = bodies["turn"]
    assert path == "/chat/completions"
    turn = body["messages"][-1]
    assert turn["role"] == "assistant"
    text, tag, after = turn["content"].removeprefix("<think>\n").partition("\n</think>")
    assert text == sequence.written()[0].lstrip()
    assert bool(tag) == (sequence.section == "answer")
    assert after == (sequence.written()[1] or "\n\n" if tag else "")


def test_a_budget_is_asked_for_only_of_who_keeps_it_and_only_while_it_thinks() -> None:
    keeping, other = remote(SETTINGS, thinking_budget=True), remote(SETTINGS)
    for each, thinking, budget in ((keeping, True, 20), (keeping, False, None), (other, True, None)):
        _, body = each.asked(grown(request(thinking=thinking), []), None)
        assert body.get("thinking_token_budget") == budget
        assert body["chat_template_kwargs"] == {"enable_thinking": thinking}


def test_prompt_ids_that_a_server_told_are_taken_before_our_own() -> None:
    sequence = grown(request(), list(b"ab"))
    _, body = remote(SETTINGS, continues="ids").asked(sequence, [900, 901])
    assert body["prompt"] == [900, 901, *b"ab"]


@pytest.mark.parametrize(("counted", "approximate"), [(0, False), (1, True)])
def test_a_prompt_that_a_server_parts_otherwise_makes_a_candidate_approximate(counted: int, approximate: bool) -> None:
    """counted: tokens more than were sent."""
    prompt = len(BYTES.prompt_ids(request().messages))

    def answer(path: str, body: dict[str, Any]) -> Told | Exception:
        if path == "/chat/completions":
            return Told([chunk(reasoning="a" * 30)])
        usage = {"prompt_tokens": prompt + 20 + 1 + counted, "completion_tokens": 3}
        return Told([{"choices": [{"index": 0, "text": "abc"}]}, end(), {"choices": [], "usage": usage}, "[DONE]"])

    given = settings_of(
        URL, api_key_env="NO_KEY", max_rows=4, timeout_s=5.0, max_retries=2, backoff_s=0.0, transport=ToldServer(answer)
    )
    engine = OpenAIEngine(remote(given, continues="text"), Asker(given))

    async def run() -> Completion:
        async with engine.generate([request()]) as stream:
            events = [event async for event in stream]
        await engine.aclose()
        assert isinstance(events[-1], Completion)
        return events[-1]

    done = anyio.run(run)
    assert (done.text, done.forced, done.usage.reasoning_tokens) == ("abc", True, 20)
    assert done.approximate is approximate
