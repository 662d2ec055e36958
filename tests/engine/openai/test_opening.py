"""What is found out of a server as its engine is opened, and what is said of one that cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from told_server import MODEL, URL, Told, ToldServer, chunk, end

from engine import loader
from engine.api import Message, ModelInfo, Tool
from engine.byte_tokenizer import ByteTokenizer
from engine.errors import EngineError, ModelError, RequestError
from engine.openai import opening
from engine.openai.bodies import OPTIONAL
from engine.openai.opening import open_openai
from engine.openai.probe import QUESTION
from engine.registry import open_engine

VLLM_PROMPT = [1, 2, 3, 4, 5]


class Kind:
    """A server that can do what it is told to, and takes any other field or refuses it (`strict`)."""

    def __init__(self, **can: Any) -> None:
        self.can, self.drawn = can, itertools.count()

    def __call__(self, path: str, body: dict[str, Any]) -> Told | Exception:
        can = self.can
        if path in ("/tokenize", "/detokenize") and can.get("tokenizer"):
            return tokenize(path, body, can["tokenizer"])
        if path == "/completions" and can.get("completes"):
            given = len(body["prompt"]) if isinstance(body["prompt"], list) else 3
            return Told([chunk("x", usage={"prompt_tokens": given}), end("length")])
        if path != "/chat/completions":
            return Told(status=404)
        if can.get("strict"):
            for name in (*OPTIONAL, "thinking_token_budget", "continue_final_message", "max_tokens"):
                if name in body and name not in can["strict"]:
                    return Told(status=400, body={"error": {"message": f"Unrecognized request argument: {name}"}})
        return self.answer(body)

    def answer(self, body: dict[str, Any]) -> Told:
        can, field = self.can, self.can.get("reasoning", "")
        thoughts = " ".join(f"thought{number}" for number in range(20))
        if can.get("budget") and "thinking_token_budget" in body:
            thoughts = "so"
        if field == "tags":
            deltas = [chunk(f"<think>{thoughts}</think>OK")]
        else:
            deltas = [*([chunk(reasoning=thoughts, field=field)] if field else []), chunk("OK")]
        if can.get("ids"):
            deltas[0]["choices"][0]["token_ids"] = [7, 8, 9]
            deltas[0]["prompt_token_ids"] = VLLM_PROMPT
        if can.get("logprobs"):
            deltas[0]["choices"][0]["logprobs"] = {"content": [{"token": "O", "logprob": -0.5}]}
        counts = {"prompt_tokens": self.prompt_tokens(body)}
        seed = str(body.get("seed") if can.get("seeds") else next(self.drawn))
        if body.get("n") == 2:
            choices = [{"index": i, "message": {"content": "OK"}} for i in range(2 if can.get("n") else 1)]
            return Told([{"choices": choices, "usage": counts}], whole=True)
        if can.get("unstreamed") or not body["stream"]:
            message = {"content": f"OK {seed}", **({field: thoughts} if field and field != "tags" else {})}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return Told([{"choices": [choice], "usage": counts}], whole=True)
        return Told([*deltas, chunk(seed), end(), {"choices": [], "usage": counts}, "[DONE]"])

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        turns = body["messages"]
        images = sum(isinstance(turn["content"], list) for turn in turns) if self.can.get("images") else 0
        goes_on = turns[-1]["role"] == "assistant" and (
            self.can.get("goes_on") == "always" or (self.can.get("goes_on") and body.get("continue_final_message"))
        )
        return len(VLLM_PROMPT) + 60 * images + (len(turns) - 1) * (1 if goes_on else 6)


def tokenize(path: str, body: dict[str, Any], dialect: str) -> Told:
    """A token a character, and one for each tag."""
    if path == "/detokenize":
        text = "".join("" if token < 32 and token != 10 else chr(token) for token in body["tokens"])
        return Told(body={{"vllm": "prompt", "sglang": "text", "llamacpp": "content"}[dialect]: text})
    if "messages" in body:
        return Told(body={"tokens": VLLM_PROMPT}) if dialect == "vllm" else Told(status=400)
    text = body["content" if dialect == "llamacpp" else "prompt"]
    tags = {"<think>": [1], "</think>": [2]}
    return Told(body={"tokens": tags.get(text, [ord(char) for char in text])})


def found(**can: Any) -> ModelInfo:
    engine = open_openai(MODEL, base_url=URL, transport=ToldServer(Kind(**can)), backoff_s=0.0)
    return engine.model


VLLM = {"reasoning": "reasoning", "ids": True, "tokenizer": "vllm", "completes": True, "seeds": True, "n": True,
        "goes_on": "asked", "logprobs": True}  # fmt: skip
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vLLM", VLLM, {"reasoning": "reasoning", "token_ids": True, "tokenizer": "server", "continues": "ids",
     "seeds": True, "thinking_budget": False, "images": False, "n": True, "logprobs": True, "streaming": True}),
    ("vLLM with a reasoning config", {**VLLM, "budget": True}, {"thinking_budget": True}),
    ("vLLM with a model that sees", {**VLLM, "images": True}, {"images": True}),
    ("SGLang", {"reasoning": "reasoning_content", "tokenizer": "sglang", "goes_on": "asked", "seeds": True},
     {"reasoning": "reasoning_content", "token_ids": False, "tokenizer": "server", "continues": "turn"}),
    ("llama.cpp", {"reasoning": "reasoning_content", "tokenizer": "llamacpp", "goes_on": "always"},
     {"tokenizer": "server", "continues": "turn", "seeds": False}),
    ("tags in the text", {"reasoning": "tags"}, {"reasoning": "tags", "tokenizer": "estimated", "continues": "none"}),
    ("OpenAI", {"strict": ["seed", "stream_options", "max_completion_tokens", "logprobs"], "seeds": True},
     {"reasoning": "none", "tokenizer": "estimated", "continues": "none", "template_kwargs": False}),
    ("no streaming", {"unstreamed": True}, {"streaming": False}),
    ("ids that nobody can read", {"ids": True}, {"token_ids": False, "tokenizer": "estimated"}),
]  # fmt: skip


@pytest.mark.parametrize(("can", "facts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_server_can_do_is_found_out(can: dict[str, Any], facts: dict[str, Any]) -> None:
    model = found(**can)
    assert {name: model.details[name] for name in facts} == facts
    assert model.thinks == (model.details["reasoning"] != "none")
    assert model.exact_tokens == (model.details["tokenizer"] != "estimated")
    assert model.conclude == (model.details["continues"] != "none")
    assert model.seeds == model.details["seeds"]
    assert model.lacks("images") is None or not model.details["images"]


def test_notes_say_what_is_approximate_or_cannot_be() -> None:
    notes = "\n".join(found(reasoning="tags", unstreamed=True).notes)
    for words in ("tokens are estimated", "does not stream", "cannot go on", "does not keep seeds"):
        assert notes.count(words) == 1
    assert found(**VLLM).notes == ()


def test_a_server_without_streaming_that_says_so_is_asked_for_whole_answers() -> None:
    class NoStream(Kind):
        def __call__(self, path: str, body: dict[str, Any]) -> Told | Exception:
            if body.get("stream"):
                return Told(status=400, body={"error": {"message": "stream is not supported"}})
            return super().__call__(path, body)

    model = open_openai(MODEL, base_url=URL, transport=ToldServer(NoStream()), backoff_s=0.0).model
    assert model.details["streaming"] is False


class Chat(ByteTokenizer):
    """A tokenizer of ours that puts a BOS token, 400, in front."""

    def prompt_ids(
        self, messages: Sequence[Message], *, thinking: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        return [400, *super().prompt_ids(messages, thinking=thinking, tools=tools)]

    def spell(self, token_ids: Sequence[int]) -> str:
        return " ".join(map(str, token_ids)).removeprefix("400")


@pytest.mark.parametrize(("counted", "continues"), [(0, "ids"), (-1, "ids"), (-2, "turn")])
def test_a_bos_token_that_only_we_write_is_left_out(
    counted: int, continues: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """counted: tokens more than we render that the server counts."""
    chat = Chat()
    asked = (Message(role="user", text=QUESTION),)
    theirs = len(chat.prompt_ids(asked)) + counted

    class Counting(Kind):
        def prompt_tokens(self, body: dict[str, Any]) -> int:
            return theirs

    monkeypatch.setattr(opening, "_local", lambda tokenizer: chat)
    monkeypatch.setattr(loader, "model_type_of", lambda tokenizer: "zaya")
    server = ToldServer(Counting(completes=True))
    engine = open_openai(MODEL, base_url=URL, tokenizer="here", transport=server, backoff_s=0.0)
    details = engine.model.details
    assert (details["tokenizer"], details["continues"], details["architecture"]) == ("local", continues, "zaya")
    rendered = len(chat.prompt_ids(asked))
    assert engine.tokenizer.prompt_tokens(asked) == (theirs if continues == "ids" else rendered)


def answering(status: int = 200, body: Any = None, error: Exception | None = None) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if error is not None:
            raise error
        return httpx2.Response(status, json=body) if body is not None else httpx2.Response(status, text="<html>\nhi")

    return httpx2.MockTransport(answer)


UNTRUSTED = httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
MODELS = {"data": [{"id": "small"}, {"id": "large"}]}


@pytest.mark.parametrize(
    ("transport", "kind", "says"),
    [
        (
            answering(error=httpx2.ConnectError("refused")),
            ModelError,
            "cannot connect to http://told/v1/models .refused.: is it",
        ),
        (
            answering(),
            ModelError,
            "http://told/v1 is no server of the OpenAI API, or not a whole one: .*no JSON",
        ),
        (
            answering(404),
            ModelError,
            "http://told/v1/chat/completions does not know what it was asked for .404.*: is it the right",
        ),
        (answering(200, {"hello": 1}), ModelError, "http://told/v1 is no server of the OpenAI API.*no choices"),
        (answering(200, MODELS), ModelError, "http://told/v1 has no model 'told'; it has small, large"),
        (answering(401, {"error": "who?"}), ModelError, "wants a key .401: who.*environment variable OPENAI_API_KEY"),
        (answering(error=UNTRUSTED), ModelError, "certificate of http://told.* is not trusted .*SSL_CERT_FILE"),
        (answering(error=httpx2.ProxyError("407")), ModelError, "the proxy on the way to .*HTTPS_PROXY"),
        (answering(503), ModelError, "http://told/v1/models answered 503"),
        (answering(error=httpx2.ReadTimeout("")), ModelError, "http://told/v1/models said nothing for 60 s"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_of_in_a_line(
    transport: Any, kind: type[EngineError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(kind, match=says) as caught:
        open_openai(MODEL, base_url=URL, transport=transport, backoff_s=0.0)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_one_server_that_is_down_does_not_keep_the_others_from_work() -> None:
    up = ToldServer(Kind())

    def respond(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "down":
            raise httpx2.ConnectError("refused")
        return up.respond(request)

    engine = open_openai(MODEL, base_url=["http://down", URL], transport=httpx2.MockTransport(respond), backoff_s=0.0)
    assert engine.model.details["base_url"] == "http://down/v1 http://told/v1"


def test_the_registry_opens_it_and_refuses_servers_for_other_kinds() -> None:
    engine = open_engine("openai", MODEL, base_url=URL, transport=ToldServer(Kind()), backoff_s=0.0)
    assert engine.model.details["source"] == "openai:told"
    with pytest.raises(RequestError, match=r"kind 'scripted' take no `base_url`: leave it out .*openai:MODEL"):
        open_engine("scripted", "play.py", base_url=URL)
