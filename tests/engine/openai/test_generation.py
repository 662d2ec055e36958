"""What becomes of a request whose server breaks, refuses, or ends elsewhere than it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from told_server import MODEL, URL, Told, ToldServer, chunk, end, said

from engine.api import (
    AnswerCue,
    Completion,
    EngineEvent,
    Failure,
    GenerationRequest,
    Interruption,
    Message,
    Restarted,
    SamplingParams,
    TokenChunk,
)
from engine.errors import ContextError, ModelError, RequestError
from engine.openai.engine import OpenAIEngine
from engine.openai.opening import open_openai

pytestmark = pytest.mark.anyio

Answer = Callable[[str, dict[str, Any]], Told | Exception]
CUT = httpx2.ReadError("connection lost")


class Scripted:
    """Answers the probe as a plain model would, and then, once `answers` are given, with these in turn."""

    def __init__(self, *, continues: bool = False, reasoning: bool = False, logprobs: bool = False) -> None:
        self.continues, self.reasoning, self.logprobs = continues, reasoning, logprobs
        self.answers: list[Told | Exception] | None = None

    def __call__(self, path: str, body: dict[str, Any]) -> Told | Exception:
        if path not in ("/chat/completions", "/completions"):
            return Told(status=404)
        if self.answers is not None:
            return self.answers.pop(0)
        if path == "/completions":
            return Told(status=404)
        turns = body["messages"]
        goes_on = turns[-1]["role"] == "assistant"
        tokens = (
            9 + 4 * (len(turns) - 1) - (3 if goes_on and self.continues and body.get("continue_final_message") else 0)
        )
        counts = chunk(usage={"prompt_tokens": tokens, "completion_tokens": 1})
        if self.logprobs:
            return Told([likely("OK", -0.5), end(), counts, "[DONE]"])
        if self.reasoning:
            return Told(
                [chunk(reasoning="one two three four five six seven eight nine ten"), chunk("OK"), end(), counts]
            )
        return Told([chunk("OK"), end(), counts, "[DONE]"])


def opened(script: Scripted, *, base_url: Any = URL, **options: Any) -> tuple[OpenAIEngine, ToldServer]:
    server = ToldServer(script)
    engine = open_openai(MODEL, base_url=base_url, transport=server, **{"backoff_s": 0.0, "max_retries": 3, **options})
    server.bodies.clear()
    server.hosts.clear()
    server.headers.clear()
    return engine, server


def request(name: str = "a", **sampling: Any) -> GenerationRequest:
    given = {"reasoning_budget": 50, "answer_budget": 20, "seed": 2**40 + 7, **sampling}
    return GenerationRequest(
        id=name, messages=(Message(role="user", text="What?"),), sampling=SamplingParams.model_validate(given)
    )


async def events_of(engine: OpenAIEngine, *requests: GenerationRequest) -> list[EngineEvent]:
    try:
        async with engine.generate(requests or [request()]) as stream:
            return [event async for event in stream]
    finally:
        await engine.aclose()


def ended(events: Sequence[EngineEvent]) -> Completion:
    assert isinstance(events[-1], Completion), events[-1]
    return events[-1]


def failed(events: Sequence[EngineEvent]) -> Failure:
    assert isinstance(events[-1], Failure), events[-1]
    assert "\n" not in str(events[-1].error)
    return events[-1]


# ---- what is tried again


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Told(status=429, body={"error": "later"}, headers={"retry-after": "0"}), "answered 429: later"),
        (Told(status=500, body={"error": {"message": "oh"}}), "answered 500: oh"),
        (Told(status=503), "answered 503"),
        (httpx2.ConnectError("refused"), "cannot connect to http://told/v1 (refused)"),
        (httpx2.ConnectTimeout(""), "does not answer within"),
        (httpx2.ReadTimeout(""), "said nothing for 600 s"),
        (httpx2.ProxyError("407"), "the proxy on the way to http://told/v1 refuses (407)"),
        (Told([]), "the answer of http://told/v1 ended in the midst"),
        (Told(["{\"choices\""]), "no JSON"),
        (Told([{"choices": 3}]), "no choices"),
        (Told([{"error": {"message": "overheated", "code": 503}}]), "broke off (503: overheated)"),
        (Told([CUT]), "the connection to http://told/v1 broke (connection lost)"),
        (Told([httpx2.DecodingError("bad gzip")]), "the connection to http://told/v1 broke (bad gzip)"),
    ],
)  # fmt: skip
async def test_what_may_go_better_is_tried_again(broken: Told | Exception, says: str) -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [broken, broken, said("four")]
    end = ended(await events_of(engine))
    assert (end.text, end.finish_reason) == ("four", "stop")
    assert [(each.action, each.after_tokens) for each in end.interruptions] == [("retried", 0)] * 2
    assert all(says in each.error for each in end.interruptions)
    assert [body for _, body in server.bodies] == [server.bodies[0][1]] * 3, "with its seed"


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (Told(status=400, body={"error": {"message": "bad"}}), RequestError),
        (Told(status=400, body={"error": {"message": "maximum context length is 10"}}), ContextError),
        (Told(status=401), ModelError),
        (Told(status=404, body={"error": "unknown"}), ModelError),
        (Told(status=418, body={"error": "teapot"}), RequestError),
        (Told([{"error": {"message": "bad", "code": 400}}]), RequestError),
    ],
)
async def test_what_will_not_go_better_fails_at_once(refused: Told, kind: type[Exception]) -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [refused]
    failure = failed(await events_of(engine))
    assert type(failure.error) is kind
    assert "http://told/v1" in str(failure.error)
    assert len(server.bodies) == 1


async def test_a_request_is_given_up_after_so_many_tries() -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [Told(status=500)] * 9
    failure = failed(await events_of(engine))
    assert "answered 500; given up after 4 tries" in str(failure.error)
    assert (len(failure.interruptions), len(server.bodies)) == (3, 4)


# ---- what is not lost


async def test_a_cut_stream_goes_on_where_it_stood() -> None:
    script = Scripted(continues=True)
    engine, server = opened(script)
    script.answers = [Told([chunk("one two "), CUT]), Told([chunk("three "), CUT]), said("four")]
    events = await events_of(engine)
    end = ended(events)
    assert end.text == "one two three four"
    assert [each.action for each in end.interruptions] == ["continued", "continued"]
    assert not any(isinstance(event, Restarted) for event in events)
    assert "".join(event.text for event in events if isinstance(event, TokenChunk)) == end.text
    turns = [body["messages"] for _, body in server.bodies]
    assert [turn[-1]["content"] for turn in turns] == ["What?", "one two ", "one two three "]
    assert all(body["continue_final_message"] and not body["add_generation_prompt"] for _, body in server.bodies[1:])
    allowed = [body["max_tokens"] for _, body in server.bodies]
    assert allowed == sorted(allowed, reverse=True)
    assert len(set(allowed)) == 3
    assert len({body["seed"] for _, body in server.bodies}) == 3, "the same draws would come again"


def likely(word: str, number: float) -> Any:
    """A chunk of a word that the server calls one token."""
    return chunk(word, logprobs={"content": [{"token": word, "logprob": number}]})


@pytest.mark.parametrize("continues", [True, False])
async def test_likelihoods_keep_their_places_where_a_stream_breaks(continues: bool) -> None:
    """What was lost with the first answer is not there, and what goes on stands where it goes on."""
    script = Scripted(continues=continues, logprobs=True)
    engine, server = opened(script)
    assert engine.model.lacks("logprobs") is None
    script.answers = [
        Told([likely("one", -1.0), likely(" two", -2.0), chunk(" and"), CUT]),
        Told([likely(" three", -3.0), end()]),
    ]
    done = ended(await events_of(engine, request().model_copy(update={"likelihoods": True})))
    assert done.likelihoods is not None
    assert done.likelihoods.log_probabilities == ((-1.0, -2.0, None, -3.0) if continues else (-3.0,))
    assert done.likelihoods.entropies is None
    assert [body["logprobs"] for _, body in server.bodies] == [True, True]


async def test_a_server_that_says_nothing_of_likelihoods_is_not_asked_for_them() -> None:
    script = Scripted()
    engine, server = opened(script)
    with pytest.raises(RequestError, match=r"'a' wants likelihoods, but .* does not say how likely its tokens were"):
        await events_of(engine, request().model_copy(update={"likelihoods": True}))
    assert not server.bodies


async def test_a_cut_stream_that_nobody_can_continue_starts_again_with_its_seed() -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [Told([chunk("one two "), CUT]), said("three ", "four")]
    events = await events_of(engine)
    end = ended(events)
    assert end.text == "three four"
    assert end.interruptions == (
        Interruption(
            action="restarted", after_tokens=3, error="the connection to http://told/v1 broke (connection lost)"
        ),
    )
    at = next(place for place, event in enumerate(events) if isinstance(event, Restarted))
    before, after = events[:at], events[at:]
    assert "".join(event.text for event in before if isinstance(event, TokenChunk)) == "one two "
    assert "".join(event.text for event in after if isinstance(event, TokenChunk)) == end.text
    assert server.bodies[0] == server.bodies[1]


async def test_tokens_in_between_are_progress_only_where_they_are_kept() -> None:
    cuts = [Told([*[chunk(f" {number}")] * 5, CUT]) for number in range(9)]
    script = Scripted(continues=True)
    engine, _ = opened(script)
    script.answers = [*cuts, said(" end")]
    done = ended(await events_of(engine, request(reasoning_budget=500)))
    assert done.text == "".join(f" {number}" * 5 for number in range(9)) + " end"
    script = Scripted()
    engine, _ = opened(script)
    script.answers = [*cuts]
    assert "given up after 4 tries" in str(failed(await events_of(engine)).error)


async def test_a_server_that_breaks_off_at_once_is_not_asked_for_ever() -> None:
    script = Scripted(continues=True)
    engine, server = opened(script)
    script.answers = [Told([chunk("a"), chunk("b")])] * 9
    assert "ended in the midst; given up after 4 tries" in str(failed(await events_of(engine)).error)
    assert len(server.bodies) == 4


async def test_what_breaks_after_the_end_breaks_nothing() -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [Told([chunk("four"), end(), CUT])]
    done = ended(await events_of(engine))
    assert (done.text, done.finish_reason, done.interruptions) == ("four", "stop", ())
    assert len(server.bodies) == 1


async def test_an_answer_that_is_done_needs_no_reason() -> None:
    script = Scripted()
    engine, _ = opened(script)
    script.answers = [Told([chunk("four"), "[DONE]"])]
    done = ended(await events_of(engine))
    assert (done.text, done.finish_reason, done.interruptions) == ("four", "stop", ())


async def test_a_failure_leaves_the_others() -> None:
    script = Scripted()
    engine, _ = opened(script, max_rows=1)
    script.answers = [Told(status=400, body={"error": "bad"}), said("fine")]
    events = await events_of(engine, request("a"), request("b"))
    ends = {event.request_id: type(event) for event in events if not isinstance(event, TokenChunk)}
    assert sorted(ends) == ["a", "b"]
    assert set(ends.values()) == {Failure, Completion}


# ---- several servers


async def test_another_server_takes_over_at_once() -> None:
    script = Scripted()
    engine, server = opened(script, base_url=["http://one", "http://two"], backoff_s=100.0)
    script.answers = [Told(status=500), said("four")]
    assert ended(await events_of(engine)).text == "four"
    assert len(set(server.hosts)) == 2


async def test_a_server_that_fails_three_times_is_left_alone() -> None:
    script = Scripted()
    engine, server = opened(script, base_url=["http://one", "http://two"], backoff_s=100.0, max_rows=1)

    def answer(path: str, body: dict[str, Any]) -> Told | Exception:
        return CUT if server.hosts[-1] == "one" else said("four")

    server.answer = answer
    events = await events_of(engine, *[request(f"r{i}") for i in range(20)])
    assert sum(isinstance(event, Completion) for event in events) == 20
    assert server.hosts.count("one") == 3


# ---- budgets


async def test_beta_is_kept_here_where_the_server_does_not() -> None:
    """Reading stops at beta, the tag is closed, and the server goes on after it."""
    script = Scripted(continues=True, reasoning=True)
    engine, server = opened(script)
    words = [chunk(reasoning=f"w{number} ") for number in range(40)]
    script.answers = [Told(words), said("the answer")]
    end = ended(await events_of(engine, request(reasoning_budget=10)))
    assert (end.usage.reasoning_tokens, end.forced, end.closed, end.text) == (10, True, True, "\n\nthe answer")
    assert end.interruptions == ()
    (_, first), (_, second) = server.bodies
    assert "thinking_token_budget" not in first
    assert second["messages"][-1]["content"] == f"<think>\n{end.reasoning}\n</think>\n\n"


async def test_a_server_that_ends_before_beta_by_its_own_count_is_asked_for_the_answer() -> None:
    script = Scripted(continues=True, reasoning=True)
    engine, _ = opened(script)
    script.answers = [Told([chunk(reasoning="one two"), end("length")]), said("the answer")]
    done = ended(await events_of(engine))
    assert (done.reasoning, done.forced, done.text, done.finish_reason) == ("one two", True, "\n\nthe answer", "stop")


async def test_beta_ends_it_where_no_server_goes_on() -> None:
    script = Scripted(reasoning=True)
    engine, server = opened(script)
    assert not engine.model.conclude
    script.answers = [Told([chunk(reasoning=f"w{number} ") for number in range(40)])]
    done = ended(await events_of(engine, request(reasoning_budget=10)))
    assert (done.finish_reason, done.usage.reasoning_tokens, done.forced) == ("budget", 10, False)
    assert len(server.bodies) == 1


async def test_a_cue_is_written_and_gone_on_with() -> None:
    script = Scripted(continues=True)
    engine, server = opened(script)
    script.answers = [said(*[" word"] * 30), said("42]")]
    cue = AnswerCue(text="\nAnswer: [", stop=("]",))
    done = ended(await events_of(engine, request(reasoning_budget=10, cue=cue)))
    assert done.text == " word" * 10 + "\nAnswer: [42"
    assert server.bodies[1][1]["messages"][-1]["content"] == " word" * 10 + "\nAnswer: ["


async def test_a_whole_answer_is_cut_as_a_stream_is() -> None:
    script = Scripted()
    engine, _ = opened(script)
    answer = {"choices": [{"index": 0, "message": {"content": "one two three four"}, "finish_reason": "stop"}]}
    script.answers = [Told([answer], whole=True)]
    done = ended(await events_of(engine, request(reasoning_budget=2)))
    assert (done.finish_reason, len(done.token_ids)) == ("budget", 2)


@pytest.mark.parametrize(("counted", "approximate"), [(3, False), (4, False), (30, True)])
async def test_tokens_that_are_not_as_many_as_is_counted_are_an_estimate(counted: int, approximate: bool) -> None:
    class Encoding(Scripted):
        def __call__(self, path: str, body: dict[str, Any]) -> Told | Exception:
            if path == "/tokenize" and "prompt" in body:
                return Told(body={"tokens": [ord(char) for char in body["prompt"]]})
            if path == "/detokenize":
                return Told(body={"text": "".join(map(chr, body["tokens"]))})
            return super().__call__(path, body)

    script: Scripted = Encoding()
    engine, _ = opened(script)
    assert engine.model.details["tokenizer"] == "server"
    counts = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": counted}}
    script.answers = [Told([chunk("abc"), end(), counts, "[DONE]"])]
    assert ended(await events_of(engine)).approximate is approximate
    script = Scripted()
    engine, _ = opened(script)
    script.answers = [said("abc")]
    assert ended(await events_of(engine)).approximate, "all that is estimated is"


# ---- what is sent


async def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    script = Scripted()
    engine, server = opened(script, api_key_env="MY_KEY")
    script.answers = [Told(status=400, body={"error": {"message": "the key sk-very-secret is odd"}})]
    events = await events_of(engine)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    assert "sk-very-secret" not in f"{events} {engine.model} {engine.settings}"
    assert engine.model.details["api_key_env"] == "MY_KEY"


async def test_greedy_requests_have_no_seed_and_others_a_short_one() -> None:
    script = Scripted()
    engine, server = opened(script)
    script.answers = [said("a"), said("b")]
    async with engine.generate([request()]) as stream:
        [event async for event in stream]
    await events_of(engine, request(temperature=0.0))
    drawn, greedy = (body for _, body in server.bodies)
    assert 0 <= drawn["seed"] < 2**31
    assert "seed" not in greedy
    assert drawn["max_tokens"] == 50 + 20
