"""Workers that are processes of this machine: one for each GPU, which it sees alone, or several on a CPU."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from engine.errors import EngineClosedError
from evals.workers.devices import Devices
from evals.workers.messages import Job, Message, Task
from rsa.errors import ConfigError
from rsa.processes import python_environment
from rsa.words import shortened

LENGTH_BYTES = 8
"""Bytes before each frame on a pipe, which say how long it is."""
MAX_SAID = 300
"""Characters of the last words of a worker that died."""
_BREAKDOWNS = (OSError, anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
"""The errors that a pipe to a process which ends causes here."""


def framed(content: Any) -> bytes:
    """Something as it goes through a pipe: its length and its bytes."""
    data = pickle.dumps(content)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


@dataclass(frozen=True, slots=True)
class Processes:
    """The executor that starts processes on this machine, an engine in each."""

    devices: Devices
    elsewhere = False

    @asynccontextmanager
    async def channels(self, model: str) -> AsyncIterator[Sequence[ProcessChannel]]:
        """The ways to all of them. Raises ConfigError for devices that are not here."""
        found = self.devices.found()
        named = [(f"worker {number} ({device.name})", device) for number, device in enumerate(found, 1)]
        with TemporaryDirectory(prefix="rsa-workers-") as scratch:  # processes that are killed leave things behind
            yield [ProcessChannel(name, device.environment, scratch) for name, device in named]


class ProcessChannel:
    """The way to a process on this machine: frames through its pipes. It keeps its run folders in `scratch`."""

    def __init__(self, name: str, environment: Mapping[str, str], scratch: str) -> None:
        self.name = name
        self._environment = environment
        self._scratch = scratch
        self._process: Process | None = None
        self._messages: BufferedByteReceiveStream | None = None
        self._said: IO[bytes] | None = None
        self._sending = anyio.Lock()

    async def open(self, job: Job) -> None:
        try:
            first = framed(job)
        except Exception as error:  # a metric of one's own may hold anything
            raise ConfigError(
                f"the metric of {job.benchmark.name} cannot be sent to other processes ({error}): make it of a class "
                "in a module"
            ) from None
        self._said = TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = await anyio.open_process(
            [sys.executable, "-P", "-m", "evals.workers", self._scratch],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**python_environment(*sys.path), **self._environment},  # it may need modules of the program
            start_new_session=True,  # Ctrl-C is the driver's business
        )
        assert self._process.stdout is not None
        self._messages = BufferedByteReceiveStream(self._process.stdout)
        await self._write(first)

    async def send(self, task: Task) -> None:
        await self._write(framed(task))

    async def receive(self) -> Sequence[Message]:
        assert self._messages is not None
        try:
            length = int.from_bytes(await self._messages.receive_exactly(LENGTH_BYTES), "big")
            messages: Sequence[Message] = pickle.loads(await self._messages.receive_exactly(length))
        except _BREAKDOWNS:
            raise EngineClosedError(await self._end()) from None
        return messages

    async def aclose(self) -> None:
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):  # it has just ended
                process.kill()
            await process.aclose()
        if self._said is not None:
            self._said.close()

    async def _write(self, frame: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._sending:
            try:
                await self._process.stdin.send(frame)
            except _BREAKDOWNS:
                raise EngineClosedError(await self._end()) from None

    async def _end(self) -> str:
        """What became of a process whose pipes are closed."""
        assert self._process is not None
        code = await self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = self._last_words()
        return f"the process {self._process.pid} {how}{f': {last}' if last else ''}"

    def _last_words(self) -> str:
        if self._said is None or self._said.closed:
            return ""
        self._said.seek(max(0, os.fstat(self._said.fileno()).st_size - 4096))
        lines = self._said.read().decode(errors="replace").split("\n")
        return shortened(next((line.strip() for line in reversed(lines) if line.strip()), ""), MAX_SAID)
