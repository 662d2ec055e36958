"""A script for `--model scripted:`, in the tests of `rsa eval`.

It answers what it is asked for by the seed, but never on problem number 3 if RSA_TEST_HOLD is set; it breaks down on
problem number 2 if RSA_TEST_BREAK is set. If RSA_TEST_KILL names a file, a process that comes to round 1 of problem
number 3 is killed, as long as there are letters in the file: each takes one. If RSA_TEST_HOLD_ONE names a file, the
process that comes to it first writes its id there and never answers. RSA_TEST_ASKED names a file of the seeds that were
asked for.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from engine.api import GenerationRequest
from engine.errors import EngineClosedError
from engine.scripted import Script, ScriptedEngine


def script(request: GenerationRequest) -> Script:
    if os.environ.get("RSA_TEST_BREAK") and _asks(request, 2):
        raise EngineClosedError("the engine's worker died")
    if "RSA_TEST_ASKED" in os.environ:
        with Path(os.environ["RSA_TEST_ASKED"]).open("a") as file:
            file.write(f"{request.sampling.seed}\n")
    third = request.id.startswith("r1") and _asks(request, 3)
    if "RSA_TEST_KILL" in os.environ and third:
        letters = Path(os.environ["RSA_TEST_KILL"])
        if letters.stat().st_size:
            os.truncate(letters, letters.stat().st_size - 1)
            os.kill(os.getpid(), signal.SIGKILL)
    held = bool(os.environ.get("RSA_TEST_HOLD")) and _asks(request, 3)
    if "RSA_TEST_HOLD_ONE" in os.environ and third:
        held = _first_of_all(Path(os.environ["RSA_TEST_HOLD_ONE"]))
    return Script(f"thinking of it in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}", held=held)


def _first_of_all(path: Path) -> bool:
    """Whether this process is the first that asked so."""
    with suppress(FileExistsError), path.open("x") as file:
        file.write(str(os.getpid()))
    return path.read_text() == str(os.getpid())


def _asks(request: GenerationRequest, number: int) -> bool:
    return f"number {number}?" in request.messages[0].text


tiny = ScriptedEngine(script, context_tokens=200)
"""An engine with a context that a long problem does not fit into."""
unvouched = ScriptedEngine(script, aggregates=None)
"""An engine of a model for whose rounds nobody has vouched."""
