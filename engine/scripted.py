"""A public test double: an engine whose answers come from a function instead of a model.

It keeps every promise of `engine.api` (budgets, forced answers, stop strings, cancel, conclude, failures), so
whatever is built on that boundary can be tested without weights, without MLX and without waiting:

    engine = ScriptedEngine(lambda request: Script(reasoning="2 + 2 is 4", answer=r"\\boxed{4}"))

Rows take turns, one step each, as the events are read; nothing runs between reads and nothing sleeps. A test
holds rows with `hold` and lets them go with `release`. The same requests give the same events.

`rsa solve --model scripted:play.py` plays what the file's `script` says: see `open_scripted`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import runpy
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel

from engine.admission import check_requests, check_room
from engine.api import (
    Completion,
    EngineEvent,
    Failure,
    GenerationRequest,
    GenerationStream,
    ModelInfo,
    RecommendedSampling,
)
from engine.byte_tokenizer import END, THINK_CLOSE, THINK_OPEN, ByteTokenizer
from engine.errors import EngineClosedError, EngineError, ModelError
from engine.paths import path_named
from engine.script import Script, ScriptedRow, ScriptLike, as_script

__all__ = ["END", "THINK_CLOSE", "THINK_OPEN", "ByteTokenizer", "Script", "ScriptLike", "ScriptedEngine"]


class ScriptedStream:
    """The events of one `ScriptedEngine.generate` call; see `engine.api.GenerationStream`."""

    def __init__(self, engine: ScriptedEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine = engine
        self._requests = tuple(requests)
        self._rows: dict[str, ScriptedRow] = {}
        self._ready: deque[EngineEvent] = deque()

    async def __aenter__(self) -> Self:
        self._rows = self._engine._admit(self._requests)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for request_id in list(self._rows):
            self._end(request_id)

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        await anyio.lowlevel.checkpoint()
        while not self._ready:
            if not self._rows:
                raise StopAsyncIteration
            if self._engine._closed:
                self._fail(EngineClosedError("the engine was closed while this request ran"))
            elif not self._step():
                await self._engine._changed()
        return self._ready.popleft()

    def _step(self) -> bool:
        """Give every row that may run one step. False: none may."""
        running = [row for row in self._rows.values() if self._engine._may_run(row)]
        self._engine.steps += 1 if running else 0
        for row in running:
            events = row.step(row.script.tokens_per_step or self._engine.tokens_per_step)
            self._ready.extend(events)
            if events and isinstance(events[-1], Completion | Failure):
                self._end(row.request.id)
        return bool(running)

    def _fail(self, error: EngineError) -> None:
        for request_id in list(self._rows):
            self._ready.append(Failure(request_id, error))
            self._end(request_id)

    def _end(self, request_id: str) -> None:
        self._engine._leave(self._rows.pop(request_id))

    def cancel(self, request_id: str) -> None:
        if request_id in self._rows:
            self._rows[request_id].finish("cancelled")
            self._engine.cancelled.append(request_id)
            self._engine._wake()

    def conclude(self, request_id: str, at: int = 0) -> None:
        if request_id in self._rows:
            self._rows[request_id].conclude(at)
            self._engine.concluded.append(request_id)
            self._engine._wake()


class ScriptedEngine:
    """An `engine.api.Engine` that plays scripts.

    script           gives each request its script; a single script is played to all.
    hold             requests for which it is true wait before their first token until `release`d; cancelling
                     or concluding one lets it go too.
    tokens_per_step  size of a step, and so of a chunk.
    max_rows         rows that may run together, further ones wait; None: all.
    thinks           False: a model without think tags.
    images, tools    False: it reads text only, calls no tools.
    conclude         False: it cannot be made to answer in the midst of its reasoning.
    logprobs         False: it does not say how likely its tokens were.
    sampling         what the makers of the model recommend, if they say.
    aggregates       whether rounds of aggregation help it, among `ModelInfo.details`; None: nobody has vouched.

    What tests look at: `requests` (all it ever got, in order), `cancelled` and `concluded` (request ids),
    `active`, `max_active` (requests at once, over all streams), `steps`.
    """

    def __init__(
        self,
        script: Callable[[GenerationRequest], ScriptLike] | ScriptLike,
        *,
        hold: Callable[[GenerationRequest], bool] | None = None,
        tokens_per_step: int = 16,
        context_tokens: int | None = None,
        max_rows: int | None = None,
        thinks: bool = True,
        images: bool = True,
        tools: bool = True,
        conclude: bool = True,
        logprobs: bool = True,
        sampling: RecommendedSampling | None = None,
        aggregates: bool | None = True,
        name: str = "scripted",
        fingerprint: str = "scripted-1",
    ) -> None:
        self._script = script
        self._hold = hold or (lambda request: False)
        self._released: set[str] = set()
        self._all_released = False
        self._change: anyio.Event | None = None  # made when waited for: an event belongs to one event loop
        self._closed = False
        self.tokens_per_step = tokens_per_step
        self._model = ModelInfo(
            name=name,
            context_tokens=context_tokens,
            fingerprint=fingerprint,
            thinks=thinks,
            sampling=sampling,
            max_rows=max_rows,
            images=images,
            tools=tools,
            conclude=conclude,
            logprobs=logprobs,
            details={} if aggregates is None else {"aggregates": aggregates},
        )
        self._tokenizer = ByteTokenizer(thinks=thinks)
        self.requests: list[GenerationRequest] = []
        self.cancelled: list[str] = []
        self.concluded: list[str] = []
        self._rows: list[ScriptedRow] = []  # of all streams, first come first
        self.max_active = 0
        self.steps = 0

    @property
    def active(self) -> int:
        return len(self._rows)

    @property
    def model(self) -> ModelInfo:
        return self._model

    @property
    def tokenizer(self) -> ByteTokenizer:
        return self._tokenizer

    def generate(self, requests: Sequence[GenerationRequest]) -> GenerationStream:
        return ScriptedStream(self, requests)

    @property
    def alive(self) -> bool:
        return not self._closed

    async def aclose(self) -> None:
        self._closed = True
        self._wake()

    def release(self, *request_ids: str) -> None:
        """Let held requests go; without an id, all of them, also those still to come."""
        self._released.update(request_ids)
        self._all_released |= not request_ids
        self._wake()

    def _wake(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _changed(self) -> None:
        if self._change is None:
            self._change = anyio.Event()
        await self._change.wait()

    def _as_it_can(self, request: GenerationRequest) -> GenerationRequest:
        if self._model.conclude:
            return request
        unforced = request.sampling.model_copy(update={"force_answer": False})
        return request.model_copy(update={"sampling": unforced})

    def _may_run(self, row: ScriptedRow) -> bool:
        """False for a row that is held, and for one behind as many others as may run together."""
        if row.finish_reason is not None:  # what is left is to say so
            return True
        if self._model.max_rows is not None and row not in self._rows[: self._model.max_rows]:
            return False
        if row.concluding or row.token_ids or self._all_released or row.request.id in self._released:
            return True
        return not (row.script.held or self._hold(row.request))

    def _leave(self, row: ScriptedRow) -> None:
        self._rows.remove(row)
        self._wake()

    def _admit(self, requests: Sequence[GenerationRequest]) -> dict[str, ScriptedRow]:
        """Rows of new requests, or the error that the boundary promises on entering a stream."""
        if self._closed:
            raise EngineClosedError("the engine is closed: open a new one")
        check_requests(requests, self._model)
        rows: dict[str, ScriptedRow] = {}
        context = self._model.context_tokens
        for request in requests:
            script = as_script(self._script(request) if callable(self._script) else self._script)
            row = ScriptedRow(self._as_it_can(request), script, self._tokenizer, context_tokens=context)
            check_room(request, row.prompt_tokens, self._model)
            rows[request.id] = row
        self.requests.extend(requests)
        self._rows.extend(rows.values())
        self.max_active = max(self.max_active, self.active)
        return rows


def open_scripted(name: str) -> ScriptedEngine:
    """The engine of `--model scripted:FILE.py` or `scripted:MODULE`; `:NAME` after that says what there is played.

    NAME is a function that gives each request its script, a script, or a ScriptedEngine; `script` unless one is given.
    Raises ModelError for what is not there or is none of these.
    """
    where, _, attribute = name.partition(":")
    attribute = attribute or "script"
    path = path_named(where, ModelError).resolve() if where.endswith(".py") else None
    namespace = _namespace(where, path)
    if attribute not in namespace:
        near = difflib.get_close_matches(attribute, namespace, n=1)
        raise ModelError(f"{where} has no {attribute!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    found = namespace[attribute]
    if not isinstance(found, ScriptedEngine | Script | str) and not callable(found):
        raise ModelError(
            f"{attribute!r} in {where} is {type(found).__name__}: give a function of a request, a script or a "
            "ScriptedEngine"
        )
    engine = found if isinstance(found, ScriptedEngine) else ScriptedEngine(found)
    facts: dict[str, object] = {"details": {**engine.model.details, "source": f"scripted:{path or where}:{attribute}"}}
    if path is not None:  # another script is another model
        facts["fingerprint"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    engine._model = engine.model.model_copy(update=facts)
    return engine


def _namespace(where: str, path: Path | None) -> Mapping[str, Any]:
    """The names of a file, which is run anew, or of a module."""
    if path is not None and not path.is_file():
        raise ModelError(f"there is no file {path}")
    try:
        return vars(importlib.import_module(where)) if path is None else runpy.run_path(str(path))
    except Exception as error:  # somebody's program may run into anything
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"the script {where} cannot be run ({why})") from error
