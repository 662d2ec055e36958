"""The plugin of `llm` (https://llm.datasette.io): `llm -m rsa/nano "Use 3, 7, 5 and 2 once each to make 24."`

A model for each of configs/models, and for the one that RSA_MODEL names. Its options are settings of a run; with
`-o progress 1` the run's rounds are told as the model's reasoning. An engine is opened for each prompt.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from queue import Queue
from typing import Any

import llm
from anyio.from_thread import start_blocking_portal
from llm.parts import AttachmentPart, StreamEvent, TextPart
from pydantic import Field

from engine.api import Role
from rsa.compose import model_names
from rsa.controller import MarkovianRSA
from rsa.errors import ProblemError
from rsa.events import RunFinished
from rsa.plugins.asking import Wanted, facts_of, text_of
from rsa.problem import Problem, Turn
from rsa.results import RunResult

PREFIX = "rsa/"
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff"})
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class RunOptions(llm.Options):
    """Settings of a run, as `llm -o NAME VALUE` gives them; what is not given comes from the profile or the model."""

    profile: str | None = Field(None, description="Settings by name: paper-8k, light, ...")
    method: str | None = Field(None, description="auto, single, vote, rsa, markovian or full-rsa")
    n: int | None = Field(None, description="Candidates a round")
    c: int | None = Field(None, description="Tails in an aggregation prompt")
    t: int | None = Field(None, description="Aggregation rounds after round 0")
    beta: int | str | None = Field(None, description="Reasoning tokens of a candidate: 4096 or 4k")
    tau: int | str | None = Field(None, description="Tokens of a tail")
    answer_budget: int | str | None = Field(None, description="Tokens of an answer")
    temperature: float | None = Field(None, description="Of the candidates' sampling")
    top_p: float | None = Field(None, description="Of the candidates' sampling")
    seed: int | None = Field(None, description="Fixes every subset and every draw")
    select: str | None = Field(None, description="vote, weighted, pooled, tournament, aggregate or first")
    stop: str | None = Field(None, description="When to stop early, with commas: decided, consensus:.9, ...")
    parents: str | None = Field(None, description="Whose tails are read: uniform, confident or distinct")
    waves: str | None = Field(None, description="Candidates of a round that begin together: 4,4,8")
    total_tokens: int | str | None = Field(None, description="At most so many tokens, all candidates together")
    deadline_s: float | None = Field(None, description="At most so many seconds")
    base_url: str | None = Field(None, description="Of the server that runs an openai: model")
    runs: str | None = Field(None, description="Folder that keeps the run")
    progress: bool | None = Field(None, description="Tell the rounds as reasoning while they are played")


class _Asking:
    """What both kinds of model have in common."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = PREFIX + name

    async def told(self, prompt: llm.Prompt, stream: bool, response: Any) -> AsyncGenerator[str | StreamEvent, None]:
        """The run's progress, if it was asked for and somebody reads along; then its answer."""
        given = prompt.options.model_dump()
        progress = bool(given.pop("progress")) and stream
        wanted = Wanted.of(self.name, given)
        problem = _problem(prompt)
        out = None if wanted.runs is None else wanted.runs / f"llm-{response.id}"
        rsa = MarkovianRSA(self.name, config=wanted.config, engine_options=wanted.options)
        async with rsa, rsa.stream(problem, out=out) as events:
            lines = _lines() if progress else None
            async for event in events:
                if lines is not None and (line := lines.feed(event)):
                    yield StreamEvent(type="reasoning", chunk=line)
                if isinstance(event, RunFinished):
                    result = event.result
        _keep(response, result)
        yield text_of(result)


class RSAModel(_Asking, llm.Model):
    """Markovian RSA on a model, for programs that are not asynchronous, and for `llm` itself."""

    can_stream = True
    attachment_types = _IMAGES

    class Options(RunOptions):
        """As `RunOptions`."""

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str | StreamEvent]:
        parts: Queue[str | StreamEvent | None] = Queue()

        async def play() -> None:
            try:
                async for part in self.told(prompt, stream, response):
                    parts.put(part)
            finally:
                parts.put(None)

        with start_blocking_portal() as portal:  # an event loop in a thread of its own
            run = portal.start_task_soon(play)
            try:
                while (part := parts.get()) is not None:
                    yield part
                run.result()  # raises what ended it
            finally:
                run.cancel()


class AsyncRSAModel(_Asking, llm.AsyncModel):
    """Markovian RSA on a model, for asynchronous programs."""

    can_stream = True
    attachment_types = _IMAGES

    class Options(RunOptions):
        """As `RunOptions`."""

    async def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.AsyncResponse, conversation: llm.AsyncConversation | None
    ) -> AsyncGenerator[str | StreamEvent, None]:
        async for part in self.told(prompt, stream, response):
            yield part


@llm.hookimpl
def register_models(register: Any) -> None:
    """Called by `llm`."""
    asked = os.environ.get("RSA_MODEL")
    for name in dict.fromkeys([*model_names(), *([asked] if asked else [])]):
        register(RSAModel(name), AsyncRSAModel(name))


def _lines() -> Any:
    from rsa.serve.progress import ProgressLines

    return ProgressLines()


def _problem(prompt: llm.Prompt) -> Problem:
    """The conversation of a prompt. Raises ProblemError for what a model cannot be told."""
    turns = []
    for message in prompt.messages:
        if message.role not in _ROLES:
            raise ProblemError(f"a message of the role {message.role} cannot be part of a problem: leave tools out")
        texts = [part.text for part in message.parts if isinstance(part, TextPart)]
        images = [
            part.attachment.content_bytes()  # type: ignore[no-untyped-call]
            for part in message.parts
            if isinstance(part, AttachmentPart) and part.attachment is not None
        ]
        if texts or images:
            turns.append(Turn(_ROLES[message.role], "\n".join(texts), images))
    return Problem.conversation(turns)


def _keep(response: Any, result: RunResult) -> None:
    """What `llm logs` shows of a run."""
    usage = result.usage
    details = {"reasoning_tokens": usage.reasoning_tokens, "cached_tokens": usage.cached_tokens}
    response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens, details=details)
    response.response_json = facts_of(result)
