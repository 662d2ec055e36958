"""The MLX engine: the asynchronous face of one worker thread, the only one that touches MLX."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import anyio
import mlx.core as mx

from engine.admission import check_requests, check_room
from engine.api import Completion, EngineEvent, Failure, GenerationRequest, ImagePart, ModelInfo
from engine.backend import MEMORY_SHARE, free_memory_bytes, on_cpu, wire_memory
from engine.bridge import Mailbox
from engine.errors import (
    EngineClosedError,
    EngineError,
    ImageError,
    OutOfMemoryError,
)
from engine.mlx.features import ImageStore, PreparedImage
from engine.mlx.memory import ModelMemory
from engine.mlx.model import TextModel
from engine.mlx.row import Row
from engine.mlx.scheduler import Scheduler, explain
from engine.mlx.tokenizer import ChatTokenizer

_PREFILL_CHUNK_CPU = 512
_PREFILL_CHUNKS_GPU = (2048, 16384)
"""Tokens of a prefill chunk on a GPU, for a model of 2 GB and more, and for the smallest: those take time for each pass
rather than for each token."""
_PREFILL_CHUNK_ROOMY, _ROOMY_BYTES = 8192, 16 * 2**30
"""Tokens of a chunk of a large model on CUDA with that much memory for caches: each pass reads all experts' weights. On
an H200 ZAYA1's 16K tokens take 0.28 s so, and 0.44 s in chunks of 2,048."""
_LARGE_MODEL_BYTES = 2 * 10**9
_ROWS, _MOST_ROWS_GPU = 64, 512
"""Rows decoded at once on a CPU, where more make each slower and all of them hardly faster; and at most on a GPU, which
takes more while their logits are small, of which the sampler holds a few copies."""
_LOGITS_BYTES = 128 * 2**20
_CUDA_CACHE_SHARE = 1 / 16
"""The freed buffers that MLX keeps on CUDA, as a share of the memory for KV caches. By itself it keeps as many as the
GPU holds (22 GB for nano within seconds, on an H200), and eight processes on one GPU ended for lack of memory."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What a loader hands to the engine: a model, its tokenizer, and its identity.

    images  prepares them, for a model that sees; then `model` is a `SeeingModel`, and the tokenizer was made with the
            same store.
    """

    model: TextModel
    tokenizer: ChatTokenizer
    info: ModelInfo
    images: ImageStore | None = None


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The requests of a stream are valid and queued."""


@dataclass(frozen=True, slots=True)
class _Rejected:
    error: EngineError


class MLXEngine:
    """Generates with a model on MLX; implements `engine.api.Engine`.

    load      called once, on the worker thread, since arrays belong to the thread that makes them.
    max_rows  completions that decode together, further ones queue; None: 64 on a CPU, up to 512 on a GPU.
    kv_bytes  memory for KV caches; None: most of what is free after loading.

    Raises, when made, whatever `load` raises. Blocks until the model is loaded: in async code, make it in a thread.
    """

    def __init__(
        self, load: Callable[[], LoadedModel], *, max_rows: int | None = None, kv_bytes: int | None = None
    ) -> None:
        self._load = load
        self._max_rows = max_rows
        self._kv_bytes = kv_bytes
        self._commands: queue.SimpleQueue[Callable[[Scheduler], None] | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[tuple[ChatTokenizer, ModelInfo, ImageStore | None] | Exception] = (
            queue.SimpleQueue()
        )
        self._posted: set[Mailbox[Any]] = set()  # those whose readers are still to be woken
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="mlx-engine", daemon=True)
        self._thread.start()
        ready = self._ready.get()
        if isinstance(ready, Exception):
            self._thread.join()  # it must not be inside MLX when the interpreter ends
            raise ready
        self._tokenizer, self._info, self._images = ready
        atexit.register(self.close)  # MLX must not compute while the interpreter is taken down

    @property
    def model(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> ChatTokenizer:
        return self._tokenizer

    def generate(self, requests: Sequence[GenerationRequest]) -> MLXStream:
        """See `engine.api.Engine.generate`."""
        return MLXStream(self, requests)

    async def memory(self) -> ModelMemory:
        """See `engine.api.KnowsMemory.memory`."""
        answers: Mailbox[ModelMemory | EngineError] = Mailbox()

        def measure(scheduler: Scheduler) -> None:
            try:
                answers.put(scheduler.memory())
            except Exception as error:  # whoever asked waits for it
                answers.put(explain(error))

        self.call(measure)
        answer = await answers.get()
        if isinstance(answer, EngineError):
            raise answer
        return answer

    @property
    def alive(self) -> bool:
        return not self._closed and self._thread.is_alive()

    async def aclose(self) -> None:
        """Cancel everything and free the model. Idempotent."""
        with anyio.CancelScope(shield=True):  # the wait is one step long
            await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """`aclose` for callers without an event loop. Running requests fail with EngineClosedError."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._commands.put(None)
        self._thread.join()
        atexit.unregister(self.close)

    def call(self, command: Callable[[Scheduler], None]) -> None:
        """Have the worker run `command` between two steps. Raises EngineClosedError."""
        with self._lock:  # nothing may be queued behind the end
            if self._closed:
                raise EngineClosedError("the engine is closed: open a new one")
            self._commands.put(command)

    def post(self, mailbox: Mailbox[Any], event: object) -> None:
        """Put an event where its reader will find it, who is woken when the step is over; for the worker."""
        mailbox.add(event)
        self._posted.add(mailbox)

    async def prepare(self, requests: Sequence[GenerationRequest]) -> dict[ImagePart, PreparedImage]:
        """Make patches of all images, in threads beside the worker. Raises ImageError for what is no usable image,
        OutOfMemoryError for one that does not fit into memory."""
        prepared: dict[ImagePart, PreparedImage] = {}
        if self._images is None:
            return prepared
        for request in requests:
            for number, image in enumerate(_images(request), 1):
                if image not in prepared:
                    try:
                        prepared[image] = await anyio.to_thread.run_sync(self._images.prepare, image.data)
                    except ImageError as error:
                        raise ImageError(f"request {request.id!r}, image {number}: {error}") from error
                    except MemoryError:
                        raise OutOfMemoryError(
                            f"request {request.id!r}: image {number} does not fit into memory: use a smaller one"
                        ) from None
        return prepared

    def rows_of(
        self,
        requests: Sequence[GenerationRequest],
        emit: Callable[[EngineEvent], None],
        prepared: Mapping[ImagePart, PreparedImage],
    ) -> list[Row]:
        """Render and check requests, whose images are `prepared`. Raises RequestError, ContextError."""
        prompts: dict[Any, list[int]] = {}  # the N candidates of a round share their messages
        made = []
        for request in requests:
            key = (request.messages, request.thinking, request.tools)
            if key not in prompts:
                prompts[key] = self._prompt_ids(request)
            images = tuple(prepared[image] for image in _images(request))
            context = self.model.context_tokens
            made.append(Row(request, prompts[key], self.tokenizer, emit=emit, context_tokens=context, images=images))
        return made

    def _prompt_ids(self, request: GenerationRequest) -> list[int]:
        prompt_ids = self.tokenizer.prompt_ids(request.messages, thinking=request.thinking, tools=request.tools)
        image_tokens = prompt_ids.count(self._images.token_id) if self._images is not None else 0
        check_room(request, len(prompt_ids), self.model, image_tokens=image_tokens)
        return prompt_ids

    def _work(self) -> None:
        """The worker: load, then run commands and steps until closed."""
        try:
            scheduler = self._start()
            if scheduler is not None:
                self._serve(scheduler)
        finally:
            mx.synchronize()
            mx.clear_streams()  # else they are torn down as the thread dies, in a race with the interpreter's exit

    def _start(self) -> Scheduler | None:
        try:
            wire_memory()
            loaded = self._load()
            scheduler = self._make_scheduler(loaded)
        except Exception as error:  # whoever makes the engine waits for it
            self._ready.put(error)
            return None
        info = loaded.info.model_copy(update={"max_rows": scheduler.max_rows, "logprobs": True})
        self._ready.put((loaded.tokenizer, info, loaded.images))
        return scheduler

    def _serve(self, scheduler: Scheduler) -> None:
        running = True
        while running:
            try:
                running = self._run_commands(scheduler)
                if running:
                    scheduler.step()
            except Exception as error:  # the worker outlives a command or a step that fails, its rows do not
                scheduler.fail_all(explain(error))
            self._wake_readers()
        scheduler.fail_all(EngineClosedError("the engine was closed while this request ran"))
        self._wake_readers()

    def _wake_readers(self) -> None:
        for mailbox in self._posted:
            mailbox.notify()
        self._posted.clear()

    def _make_scheduler(self, loaded: LoadedModel) -> Scheduler:
        kv_bytes = self._kv_bytes if self._kv_bytes is not None else int(free_memory_bytes() * MEMORY_SHARE)
        if mx.cuda.is_available() and not on_cpu():
            mx.set_cache_limit(int(kv_bytes * _CUDA_CACHE_SHARE))
        rows = self._max_rows or (_ROWS if on_cpu() else _gpu_rows(loaded.model))
        return Scheduler(
            loaded.model,
            max_rows=min(rows, loaded.model.max_rows or rows),
            kv_bytes=kv_bytes,
            prefill_chunk=_PREFILL_CHUNK_CPU if on_cpu() else _gpu_chunk(loaded.model, kv_bytes),
            context_tokens=loaded.info.context_tokens,
            image_token=loaded.images.token_id if loaded.images is not None else None,
        )

    def _run_commands(self, scheduler: Scheduler) -> bool:
        """Run what waits, or wait for something while there is nothing to generate. False: closed."""
        while True:
            if scheduler.idle:
                self._wake_readers()
            try:
                command = self._commands.get(block=scheduler.idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(scheduler)


class MLXStream:
    """Implements `engine.api.GenerationStream`."""

    def __init__(self, engine: MLXEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine = engine
        self._requests = requests
        self._prepared: dict[ImagePart, PreparedImage] = {}
        self._rows: dict[str, Row] = {}  # filled by the worker before it accepts
        self._open = len(requests)

    async def __aenter__(self) -> Self:
        self._events: Mailbox[EngineEvent | _Accepted | _Rejected] = Mailbox()
        check_requests(self._requests, self._engine.model)
        self._prepared = await self._engine.prepare(self._requests)
        self._engine.call(self._submit)
        try:
            first = await self._events.get()
        except BaseException:  # cancelled while the worker was busy
            self._end_all()
            raise
        if isinstance(first, _Rejected):
            raise first.error
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Cancel what still runs: its rows are free at the engine's next step."""
        self._end_all()

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        if self._open == 0:
            raise StopAsyncIteration
        event = await self._events.get()
        assert not isinstance(event, _Accepted | _Rejected)
        if isinstance(event, Completion | Failure):
            self._open -= 1
        return event

    def cancel(self, request_id: str) -> None:
        """End a request now; its `Completion` (`cancelled`) still comes. Unknown or finished: no effect."""
        self._tell(request_id, lambda row: row.finish("cancelled"))

    def conclude(self, request_id: str, at: int = 0) -> None:
        """Treat the reasoning budget as used up at so many tokens: the request answers, or ends with `budget`."""
        self._tell(request_id, partial(Row.conclude, at=at))

    def _submit(self, scheduler: Scheduler) -> None:
        """On the worker: check the requests and queue them, or say what is wrong."""
        try:
            rows = self._engine.rows_of(self._requests, partial(self._engine.post, self._events), self._prepared)
        except Exception as error:
            self._events.put(_Rejected(explain(error)))
            return
        self._rows = {row.request.id: row for row in rows}
        self._prepared = {}  # the rows have them, until their prompt is computed
        self._events.put(_Accepted())
        scheduler.submit(rows)

    def _end_all(self) -> None:
        for request in self._requests:
            self.cancel(request.id)

    def _tell(self, request_id: str, order: Callable[[Row], None]) -> None:
        """Give an order to a row, on the worker, between two steps."""

        def command(_: Scheduler) -> None:
            row = self._rows.get(request_id)
            if row is not None and row.finish_reason is None:
                order(row)

        try:
            self._engine.call(command)
        except EngineClosedError:
            return  # it has ended by itself


def _gpu_chunk(model: TextModel, kv_bytes: int) -> int:
    """Tokens of a pass on a GPU."""
    least, most = _PREFILL_CHUNKS_GPU
    if mx.cuda.is_available() and kv_bytes >= _ROOMY_BYTES:
        least = _PREFILL_CHUNK_ROOMY
    return min(most, max(least, least * _LARGE_MODEL_BYTES // model.weight_bytes))


def _gpu_rows(model: TextModel) -> int:
    """Rows that decode together on a GPU."""
    if model.vocab_size is None:
        return _ROWS
    return min(_MOST_ROWS_GPU, max(_ROWS, _LOGITS_BYTES // (4 * model.vocab_size)))


def _images(request: GenerationRequest) -> list[ImagePart]:
    return [image for message in request.messages for image in message.images]
