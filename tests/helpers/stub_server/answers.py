"""What a stub server answers to a request for completions, in the shapes of its dialect."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stub_server.faults import Fault
from stub_server.generating import Generation, Piece
from stub_server.shapes import LEFT_OUT, Dialect
from stub_server.writing import END, Writer, encode

KNOWN = frozenset(
    {
        *(
            "model",
            "messages",
            "stream",
            "stream_options",
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
        ),
        *("n", "stop", "seed", "logprobs", "top_logprobs", "reasoning_effort", "user"),
        *("frequency_penalty", "presence_penalty", "tools", "tool_choice", "parallel_tool_calls"),
    }
)
"""What a strict server knows; another parameter is refused."""


def log_probability(token: int) -> float:
    """How likely a token is said to have been, whoever drew it, and where."""
    return -(token % 64 + 1) / 16


class Refused(Exception):  # noqa: N818 - an answer, and no error of this program
    """A request that this server does not take, with the status that says so."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", reason: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.reason = status, kind, reason


CLAMPING = ("llama.cpp", "openai")
"""Dialects in which a completion that does not fit in the context is cut short, and not refused."""


@dataclass(frozen=True)
class Model:
    """What is served: its name, who writes, and from how many tokens on a request is refused (None: never)."""

    name: str
    writer: Writer
    refused_from: int | None = None


def chat_prompt(writer: Writer, dialect: Dialect, body: Any) -> list[int]:
    """The tokens that the messages of a request become."""
    turns = [
        (str(message["role"]), _text_of(message.get("content")) + _calls_of(message)) for message in body["messages"]
    ]
    last = dialect.continues == "last turn" and turns[-1][0] == "assistant"
    thinking = (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
    continues = last or (dialect.continues is not None and bool(body.get(dialect.continues)))
    return writer.prompt_ids(turns, thinking=thinking, continues=continues, tools=body.get("tools") or ())


class Work:
    """One request for completions: its generations, and how its dialect writes them."""

    def __init__(self, model: Model, dialect: Dialect, body: Any, *, chat: bool, number: int) -> None:
        self._dialect, self._body, self._chat = dialect, body, chat
        self._check(model)
        prompt: Any = chat_prompt(model.writer, dialect, body) if chat else body["prompt"]
        self.prompt: list[int] = encode(prompt) if isinstance(prompt, str) else prompt
        max_tokens = self._max_tokens(model)
        seed = body.get("seed") if self._dialect.seeds else None
        seed = 0 if body.get("temperature") == 0 else secrets.randbits(31) if seed is None else seed
        self.generations = [
            Generation(
                model.writer,
                self.prompt,
                seed=seed + number,
                max_tokens=max_tokens,
                stop=[body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or [],
                budget=body.get("thinking_token_budget") if self._dialect.thinking_token_budget else None,
                tagged=not self._chat or self._dialect.reasoning == "tags",
            )
            for number in range(body.get("n") or 1)
        ]
        self._known: dict[str, Any] = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{number}", "model": model.name}

    def _max_tokens(self, model: Model) -> int:
        """How many tokens a completion may have; more than there is room for is refused where servers do so."""
        room = model.writer.context - len(self.prompt)
        wanted: int = self._body.get("max_completion_tokens") or self._body.get("max_tokens") or room
        if room < 1 or (wanted > room and self._dialect.name not in CLAMPING):
            values = {"context": model.writer.context, "wanted": wanted, "prompt": len(self.prompt)}
            message = self._dialect.filled("too_long", total=wanted + len(self.prompt), **values)
            raise Refused(400, message, "exceed_context_size_error", "context_length_exceeded")
        if model.refused_from is not None and wanted >= model.refused_from:
            raise Refused(400, f"max_tokens={wanted} is too large", "BadRequestError")
        return min(wanted, room)

    def _check(self, model: Model) -> None:
        if not self._chat and self._dialect.shapes["completion"] is None:
            raise Refused(404, "This is a chat model", "invalid_request_error")
        if self._body.get("model") != model.name:
            raise Refused(
                404, f"The model `{self._body.get('model')}` does not exist.", "NotFoundError", "model_not_found"
            )
        if self._dialect.streaming == "refused" and self._body.get("stream"):
            raise Refused(400, "streaming is not supported by this server", "invalid_request_error")
        if self._dialect.strict and (unknown := sorted(set(self._body) - KNOWN)):
            raise Refused(400, f"Unrecognized request argument supplied: {unknown[0]}", "invalid_request_error")
        if (self._body.get("n") or 1) > 1 and not self._dialect.n:
            raise Refused(400, "Only one completion choice is allowed", "invalid_request_error")

    def events(self, fault: Fault | None) -> Iterator[bytes]:
        """The events of a stream: choices take turns, token by token."""
        self._spoil(fault)
        if self._chat:
            ids = self.prompt if self._gives_ids("always") else LEFT_OUT
            for index in range(len(self.generations)):
                yield self._written("first", index=index, prompt_ids=ids)
        running = [(index, generation.pieces()) for index, generation in enumerate(self.generations)]
        templates: dict[tuple[int, str], str] = {}
        while running:
            for turn in list(running):
                index, pieces = turn
                piece = next(pieces, None)
                if piece is None:
                    running.remove(turn)
                    yield self._end(index, fault)
                    continue
                key = (index, piece.section)
                if key not in templates:
                    templates[key] = self._template(*key)
                if (event := self._event(piece, templates[key])) is not None:
                    yield event
        if (self._body.get("stream_options") or {}).get("include_usage"):
            shape = "usage" if self._chat else "completion"
            told = self._dialect.filled(shape, usage=self._usage(fault), **self._known)
            yield json.dumps({**told, "choices": []}).encode()

    def _event(self, piece: Piece, template: str) -> bytes | None:
        """A token's chunk; None where it has nothing to show."""
        hidden = self._chat and self._dialect.reasoning == "hidden" and piece.section == "reasoning"
        text = "" if hidden else piece.text
        if not text and (piece.token == END or not self._gives_ids("always")):
            return None
        lines = template.replace('"\\u0000text"', json.dumps(text)).replace('"\\u0000ids"', f"[{piece.token}]")
        return lines.replace('"\\u0000logprobs"', json.dumps(self._logprobs([piece]))).encode()

    def _template(self, index: int, section: str) -> str:
        shape = self._dialect.section_shapes[section] if self._chat else "completion"
        values: dict[str, Any] = {"text": "\0text", "ids": "\0ids", "logprobs": "\0logprobs"}
        if not self._gives_ids("always"):
            values["ids"] = LEFT_OUT
        return self._written(shape, index=index, finish=None, usage=None, **values).decode()

    def _end(self, index: int, fault: Fault | None) -> bytes:
        generation = self.generations[index]
        finish = None if fault is not None and fault.kind == "no_end" else generation.finish
        ids = [token for token in generation.tokens[-1:] if token == END] if self._gives_ids("always") else LEFT_OUT
        shape = "last" if self._chat else "completion"
        return self._written(shape, index=index, finish=finish, ids=ids, text="", logprobs=None, usage=None)

    def whole(self, pieces: list[list[Piece]], fault: Fault | None) -> Any:
        """The answer at once."""
        self._spoil(fault)
        choices = [self._choice(index, own) for index, own in enumerate(pieces)]
        ids = self.prompt if self._gives_ids("always") else LEFT_OUT
        if self._chat:
            return self._dialect.filled(
                "whole", choices=choices, usage=self._usage(fault), prompt_ids=ids, **self._known
            )
        body = self._dialect.filled("completion", usage=self._usage(fault), **self._known)
        return {**body, "choices": choices}

    def _choice(self, index: int, pieces: list[Piece]) -> Any:
        texts = {"reasoning": "", "answer": ""}
        for piece in pieces:
            shown = "answer" if self._dialect.reasoning == "tags" or not self._chat else piece.section
            texts[shown] += piece.text
        values: dict[str, Any] = {
            "index": index,
            "finish": self.generations[index].finish,
            "logprobs": self._logprobs(pieces),
            "ids": [piece.token for piece in pieces] if self._gives_ids("always", "whole") else LEFT_OUT,
        }
        if self._chat:
            return self._dialect.filled(
                "choice", answer=texts["answer"], reasoning=texts["reasoning"] or None, **values
            )
        return self._dialect.filled("completion", text=texts["answer"], usage=None, **values, **self._known)["choices"][
            0
        ]

    def _written(self, shape: str, **values: Any) -> bytes:
        return json.dumps(self._dialect.filled(shape, **self._known, **values)).encode()

    def _gives_ids(self, *where: str) -> bool:
        return self._dialect.token_ids in where and bool(self._body.get("return_token_ids"))

    def _logprobs(self, pieces: list[Piece]) -> Any:
        if not self._body.get("logprobs"):
            return None
        if not self._chat and self._dialect.token_ids != "logprobs":
            numbers = [log_probability(piece.token) for piece in pieces]
            return {"tokens": [piece.text for piece in pieces], "token_logprobs": numbers, "top_logprobs": None}
        return {"content": [self._logprob(piece) for piece in pieces]}

    def _logprob(self, piece: Piece) -> dict[str, Any]:
        own = {"id": piece.token} if self._dialect.token_ids == "logprobs" else {}
        said = {"token": piece.text, "logprob": log_probability(piece.token), "bytes": None, "top_logprobs": []}
        return {**own, **said}

    def _usage(self, fault: Fault | None) -> Any:
        if fault is not None and fault.kind == "wrong_usage":
            return {"prompt_tokens": -3, "completion_tokens": "many", "total_tokens": None}
        written = sum(len(generation.tokens) for generation in self.generations)
        usage = {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": written,
            "total_tokens": len(self.prompt) + written,
        }
        if self._dialect.reasoning == "hidden":
            reasoned = sum(generation.reasoning_tokens for generation in self.generations)
            return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoned}}
        return usage

    def _spoil(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "missing_ids":
            self._known = {**self._known, "id": LEFT_OUT}
            self._body = {**self._body, "return_token_ids": False}


def _calls_of(message: Any) -> str:
    """The calls of a turn as the chat template of the tiny models writes them."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    told = [{**function, "arguments": json.loads(function["arguments"])} for function in functions]
    return "".join(f"<tool_call>\n{json.dumps(each, ensure_ascii=False)}\n</tool_call>" for each in told)


def _text_of(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
