"""What servers send, read with care: a server may leave out anything, add anything, and send what it should not.

Shapes: chunks of `POST /chat/completions` (`delta`), whole answers of it (`message`), and both of `POST /completions`
(`text`). Reasoning stands in `reasoning_content` (SGLang, llama.cpp, DeepSeek), in `reasoning` (vLLM, mlx-lm, Ollama,
OpenRouter), or between think tags in the text. Token ids stand in `token_ids` (vLLM); those that llama.cpp and mlx-lm
put into log-probabilities are not taken for those of the answer, for in a stream they lack tokens that end inside a
character. Log-probabilities stand in `content`, an entry a token (chats, and all of llama.cpp), or in `token_logprobs`
(`/completions`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.documents import DocumentError, json_value

REASONING_FIELDS = ("reasoning_content", "reasoning")
_SHOWN_CHARACTERS = 120
_HALVES = re.compile("[\ud800-\udfff]")


class WireError(Exception):
    """What came is not what the API has there; the message is a line."""


class ServerError(Exception):
    """An error that the server reports in the midst of a stream; `status` as in HTTP, 500 if it says none."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class CallPart:
    """What a chunk adds to a call of a tool: its name, once, and the next of its arguments' text."""

    index: int
    name: str = ""
    arguments: str = ""


class Told(NamedTuple):
    """What a server says of a token that it drew: its log-probability, its text and its id; None where it does not."""

    log_probability: float | None
    text: str | None = None
    id: int | None = None


@dataclass(slots=True)  # not frozen: there is one for each token
class Delta:
    """What one chunk brings of the first choice.

    reasoning, text   what it adds to either; `field` is where the reasoning stood.
    token_ids         of both; None if the server did not say.
    finish            why the server ended it; None while it goes on.
    prompt_ids, prompt_tokens, cached_tokens   of the prompt, where the chunk says so.
    completion_tokens   of the answer so far, likewise.
    logprobs          of the tokens that came, as the server counts them; none if it does not say.
    calls             of tools, which stand beside the text.
    """

    reasoning: str = ""
    text: str = ""
    field: str = ""
    token_ids: tuple[int, ...] | None = None
    finish: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    logprobs: tuple[Told, ...] = ()
    calls: tuple[CallPart, ...] = ()


def read_json(data: str | bytes) -> Mapping[str, Any]:
    """A JSON object. Raises WireError."""
    try:
        value = json_value(data)
    except DocumentError:  # JSON that is none, bytes that are no UTF-8
        raise WireError(f"the server sent what is no JSON: {_shown(data)}") from None
    if not isinstance(value, dict):
        raise WireError(f"the server sent {type(value).__name__} in place of an object: {_shown(data)}")
    return value


def read_answer(value: Mapping[str, Any]) -> Delta:
    """A chunk of a stream, or a whole answer. Raises WireError, and ServerError for an error in its place."""
    if value.get("error"):
        raise _server_error(value)
    choices = value.get("choices")
    if not isinstance(choices, list):
        raise WireError(f"the server sent no choices: {_shown(json.dumps(value))}")
    choice = _first(choices)
    written = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
    if not isinstance(written, dict):
        raise WireError(f"the server sent a delta that is none: {_shown(json.dumps(written))}")
    field = REASONING_FIELDS[0] if written.get(REASONING_FIELDS[0]) else REASONING_FIELDS[1]
    reasoning, finish = _text(written, field), choice.get("finish_reason")
    delta = Delta(
        reasoning=reasoning,
        text=_text(written, "content"),
        field=field if reasoning else "",
        token_ids=_ids(choice.get("token_ids")),
        finish=finish if isinstance(finish, str) else None,
        prompt_ids=_ids(value.get("prompt_token_ids") or choice.get("prompt_token_ids")),
        logprobs=_logprobs(choice.get("logprobs")),
        calls=_calls(written.get("tool_calls")),
    )
    usage = value.get("usage")
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        delta.prompt_tokens = _count(usage.get("prompt_tokens"))
        delta.completion_tokens = _count(usage.get("completion_tokens"))
        delta.cached_tokens = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return delta


def _first(choices: list[Any]) -> Mapping[str, Any]:
    """The choice that was asked for; none where only counts come."""
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    if choices:
        raise WireError(f"the server sent choices that are none: {_shown(json.dumps(choices))}")
    return {}


def read_models(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of `GET /models`, each with an `id`. Raises WireError."""
    listed = value.get("data")
    if not isinstance(listed, list):
        raise WireError(f"it lists no models: {_shown(json.dumps(value))}")
    return [each for each in listed if isinstance(each, dict) and isinstance(each.get("id"), str)]


def read_tokens(value: Mapping[str, Any]) -> list[int]:
    """The tokens of a `POST /tokenize`. Raises WireError."""
    ids = _ids(value.get("tokens"))
    if ids is None:
        raise WireError(f"the server sent no tokens: {_shown(json.dumps(value))}")
    return list(ids)


def read_detokenized(value: Mapping[str, Any]) -> str:
    """The text of a `POST /detokenize`: vLLM, SGLang and llama.cpp each name it differently. Raises WireError."""
    for name in ("prompt", "text", "content"):
        if isinstance(value.get(name), str):
            return _whole(str(value[name]))
    raise WireError(f"the server sent no text for tokens: {_shown(json.dumps(value))}")


def message_of(data: bytes) -> tuple[str, str]:
    """The message and the code of an error's body, as one line each; empty where there is none."""
    try:
        value = json_value(data)
    except DocumentError:
        return _shown(data), ""
    if not isinstance(value, dict):
        return _shown(data), ""
    error = value.get("error", value)
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or error
        return _shown(message if isinstance(message, str) else json.dumps(message), 300), str(error.get("code") or "")
    return _shown(str(error), 300), ""


def _server_error(value: Mapping[str, Any]) -> ServerError:
    message, code = message_of(json.dumps(value).encode())
    return ServerError(message, int(code) if re.fullmatch("[45][0-9]{2}", code) else 500)


def _text(written: Mapping[str, Any], name: str) -> str:
    value = written.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WireError(f"the server sent a {name} that is no text: {_shown(json.dumps(value))}")
    return _whole(value)


def _calls(value: object) -> tuple[CallPart, ...]:
    """Parts of calls; those of a whole answer have no index but their place."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise WireError(f"the server sent calls that are none: {_shown(json.dumps(value))}")
    return tuple(_call_part(place, each) for place, each in enumerate(value))


def _call_part(place: int, value: object) -> CallPart:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(function, dict):
        raise WireError(f"the server sent a call that is none: {_shown(json.dumps(value))}")
    index = _count(value.get("index"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):  # Ollama's own API has them as an object
        arguments = json.dumps(arguments)
    return CallPart(place if index is None else index, _text(function, "name"), _whole(arguments or ""))


def _logprobs(value: object) -> tuple[Told, ...]:
    if not isinstance(value, dict):
        return ()
    content, numbers, texts = (value.get(name) for name in ("content", "token_logprobs", "tokens"))
    if isinstance(content, list):
        entries = [each if isinstance(each, dict) else {} for each in content]
        return tuple(_told(each.get("logprob"), each.get("token"), each.get("id")) for each in entries)
    if not isinstance(numbers, list) or not isinstance(texts, list) or len(numbers) != len(texts):
        return ()
    return tuple(_told(number, text, None) for number, text in zip(numbers, texts, strict=True))


def _told(number: Any, text: object, token: object) -> Told:
    likely = min(float(number), 0.0) if type(number) in (float, int) and math.isfinite(number) else None
    return Told(likely, text if isinstance(text, str) else None, _count(token))


def _ids(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(type(each) is int and each >= 0 for each in value):
        return None
    return tuple(value)


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _shown(data: str | bytes, characters: int = _SHOWN_CHARACTERS) -> str:
    """The beginning of it in one line."""
    text = " ".join((data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data).split())
    return _whole(text if len(text) <= characters else text[:characters] + "...")


def _whole(text: str) -> str:
    """A text without halves of characters, which JSON can spell (a server may cut a character in two), but no file can
    hold, and no tokenizer encode."""
    return text if text.isascii() else _HALVES.sub("\ufffd", text)
