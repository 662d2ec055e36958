"""Processes that tests start: each in a group of its own, of which nothing is left when the test ends, however it does.

`subprocess.run` kills its child alone, and leaving a `with Popen(...)` waits for the child, for ever if that never
ends: a test that ran into its time limit left an evaluation and its workers behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

Done = subprocess.CompletedProcess[str]


@contextmanager
def started(words: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process, by default with pipes for its texts and no input; leaving the block kills all of its group."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([str(word) for word in words], text=True, start_new_session=True, **{**pipes, **options})
    try:
        yield child
    finally:
        with suppress(ProcessLookupError, PermissionError):  # a Mac says the latter of a group that has only a zombie
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def run(words: Sequence[object], *, text: str | None = None, check: bool = False, **options: Any) -> Done:
    """A process to its end. `text` is its input; with `check` it must end well."""
    given = {} if text is None else {"stdin": subprocess.PIPE}
    with started(words, **{**given, **options}) as child:
        out, err = child.communicate(text)
    assert not check or child.returncode == 0, err
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def run_python(program: str, **more: str) -> Done:
    """A program in a Python of its own, without our settings in its environment, but with `more`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RSA_")}
    return run([sys.executable, "-c", program], env={**kept, **more})
