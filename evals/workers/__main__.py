"""The program of a worker that is a process of the driver's machine: `python -m evals.workers SCRATCH`, where
SCRATCH is a folder that is removed when it has ended, however it does.

It reads frames from standard input, first its job and then tasks, and writes frames of messages to standard output;
what libraries print goes to standard error. When its input ends, so does it: the driver is done, or dead.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from evals.workers.messages import Broken, Message, Task
from evals.workers.outbox import Outbox
from evals.workers.processes import LENGTH_BYTES, framed
from evals.workers.serving import serve
from rsa.errors import ConfigError


def read(source: IO[bytes]) -> Any:
    """What the next frame holds; None when there are no more. Blocks."""
    head = source.read(LENGTH_BYTES)
    data = source.read(int.from_bytes(head, "big")) if len(head) == LENGTH_BYTES else b""
    return pickle.loads(data) if data else None


async def work(source: IO[bytes], target: IO[bytes], scratch: Path) -> None:
    """Be a worker between two pipes."""

    def write(messages: list[Message]) -> None:
        target.write(framed(messages))
        target.flush()

    async def receive() -> Task | None:
        task: Task | None = await anyio.to_thread.run_sync(read, source, abandon_on_cancel=True)
        return task

    async with Outbox(write) as outbox:
        try:
            job = await anyio.to_thread.run_sync(read, source)
        except Exception as error:  # what is of the driver's program itself cannot be found here
            why = f"the metric cannot be read in another process ({error}): put its class into a module"
            outbox.put(Broken(ConfigError(why)))
            return
        if job is not None:
            await serve(job, receive, outbox.put, scratch)


def main() -> None:
    """Run until the input ends."""
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        anyio.run(work, sys.stdin.buffer, target, Path(sys.argv[1]))
    except BrokenPipeError:  # nobody is there to be told
        os._exit(1)
    os._exit(0)  # a thread may still wait for input


if __name__ == "__main__":
    main()
