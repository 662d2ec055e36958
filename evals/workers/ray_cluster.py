"""Workers that are actors of a Ray cluster: one for each GPU, or one on each machine where there are none."""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from engine.errors import EngineClosedError
from evals.workers.messages import Job, Message, Task
from evals.workers.outbox import Outbox
from evals.workers.serving import serve
from rsa.compose import is_remote
from rsa.errors import ConfigError
from rsa.words import shortened

if TYPE_CHECKING:
    from types import ModuleType

CALLS_AT_ONCE = 4
"""Calls of an actor that may wait together: one for messages, the others put tasks."""
CONNECT_TIMEOUT_S = 10.0
"""Time limit of finding out whether anybody listens at the address of a cluster."""
END_TIMEOUT_S = 5.0
"""Time limit of an actor to end in order."""
MAX_SAID = 200
"""Characters of what Ray says of an actor that is gone."""


class RayWorker:
    """A worker as the object of an actor: its calls run in threads, and it works in one of its own.

    No method may be a coroutine: Ray would run all calls in one event loop, where `take` would stand in the way.
    """

    def __init__(self, job: Job) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[list[Message]] = queue.SimpleQueue()
        work = (_work, job, self._tasks, self._messages)
        self._thread = threading.Thread(target=anyio.run, args=work, name="worker", daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Give it a task."""
        self._tasks.put(task)

    def take(self) -> list[Message]:
        """Wait for messages; those that are there, in order."""
        return self._messages.get()

    def end(self) -> None:
        """End the work in order: what it has put into files goes."""
        self._tasks.put(None)
        self._thread.join()


async def _work(job: Job, tasks: queue.SimpleQueue[Task | None], messages: queue.SimpleQueue[list[Message]]) -> None:
    async def receive() -> Task | None:
        return await anyio.to_thread.run_sync(tasks.get, abandon_on_cancel=True)

    async with Outbox(messages.put) as outbox:
        await serve(job, receive, outbox.put)


@dataclass(frozen=True, slots=True)
class RayCluster:
    """The executor that starts actors on a cluster. `address`: as `ray.init` takes it; None: the one we are in."""

    address: str | None = None
    elsewhere = True

    @classmethod
    def at(cls, address: str | None) -> RayCluster:
        """Raises ConfigError where Ray is not installed."""
        _ray()
        return cls(address)

    @asynccontextmanager
    async def channels(self, model: str) -> AsyncIterator[Sequence[RayChannel]]:
        """The ways to its actors. Raises ConfigError for a cluster that does not answer, or has nothing to offer."""
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            await anyio.to_thread.run_sync(self._connect)
        limiter = anyio.CapacityLimiter(1)
        try:
            channels = [
                RayChannel(f"worker {number} ({place.name})", place, limiter)
                for number, place in enumerate(await anyio.to_thread.run_sync(_places, is_remote(model)), 1)
            ]
            limiter.total_tokens = CALLS_AT_ONCE * len(channels)
            yield channels
        finally:
            if ours:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(ray.shutdown)

    def _connect(self) -> None:
        address = self.address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            _check_listening(address)
            _ray().init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds: no such host, nobody listens, another version
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            where = "here" if address == "auto" else f"at {address}"
            hint = "start one with `ray start --head`, or say where it is with `address`"
            raise ConfigError(f"no Ray cluster answers {where} ({why}): {hint}") from None


def _check_listening(address: str) -> None:
    """Raises OSError if nobody listens at HOST:PORT: Ray would end the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


@dataclass(frozen=True, slots=True)
class _Place:
    """A node of the cluster, and how many GPUs a worker gets there."""

    name: str
    node: str
    gpus: int


def _places(remote: bool) -> list[_Place]:
    """A place for each GPU of the cluster; without any, or for a model behind a server, one on each node that takes
    work."""
    nodes = [node for node in _ray().nodes() if node["Alive"]]
    gpus = [
        _Place(f"{node['NodeManagerAddress']}, GPU {number}", node["NodeID"], 1)
        for node in nodes
        for number in range(0 if remote else int(node["Resources"].get("GPU", 0)))
    ]
    found = gpus or [
        _Place(node["NodeManagerAddress"], node["NodeID"], 0) for node in nodes if node["Resources"].get("CPU", 0) >= 1
    ]
    if not found:
        raise ConfigError(
            "the Ray cluster has neither a GPU nor a CPU for a worker: add a node, `ray start --address ...`"
        )
    return found


class RayChannel:
    """The way to an actor: calls of it, which are waited for in threads."""

    def __init__(self, name: str, place: _Place, limiter: anyio.CapacityLimiter) -> None:
        self.name = name
        self._place = place
        self._limiter = limiter
        self._actor: Any = None

    async def open(self, job: Job) -> None:
        self._actor = await anyio.to_thread.run_sync(self._start, job)

    def _start(self, job: Job) -> Any:
        ray = _ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        kind = ray.remote(RayWorker).options(
            num_cpus=1,
            num_gpus=self._place.gpus,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self._place.node, soft=False),
        )
        return kind.remote(job)

    async def send(self, task: Task) -> None:
        await self._call(self._actor.put, task)

    async def receive(self) -> Sequence[Message]:
        messages: Sequence[Message] = await self._call(self._actor.take)
        return messages

    async def aclose(self) -> None:
        if self._actor is not None:
            await anyio.to_thread.run_sync(self._stop)

    def _stop(self) -> None:
        ray = _ray()
        with suppress(ray.exceptions.RayError):  # it may be gone, or never have been there
            ray.get(self._actor.end.remote(), timeout=END_TIMEOUT_S)
        ray.kill(self._actor)

    async def _call(self, method: Any, *arguments: object) -> Any:
        ray = _ray()
        try:
            return await anyio.to_thread.run_sync(
                lambda: ray.get(method.remote(*arguments)), limiter=self._limiter, abandon_on_cancel=True
            )
        except ray.exceptions.RayError as error:
            why = shortened(" ".join(str(error).split()), MAX_SAID)
            raise EngineClosedError(f"its actor is gone ({type(error).__name__}): {why}") from None


def _ray() -> ModuleType:
    """Ray. Raises ConfigError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise ConfigError("the executor ray needs Ray: pip install 'markovian-rsa[ray]'") from None
    module: ModuleType = ray
    return module
