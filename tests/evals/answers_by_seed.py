"""A script for `--model scripted:`, in the tests of `rsa eval`.

It answers what it is asked for by the seed, but never on problem number 3 if RSA_TEST_HOLD is set; it breaks down on
problem number 2 if RSA_TEST_BREAK is set.
"""

from __future__ import annotations

import os

from engine.api import GenerationRequest
from engine.errors import EngineClosedError
from engine.scripted import Script, ScriptedEngine


def script(request: GenerationRequest) -> Script:
    if os.environ.get("RSA_TEST_BREAK") and _asks(request, 2):
        raise EngineClosedError("the engine's worker died")
    held = bool(os.environ.get("RSA_TEST_HOLD")) and _asks(request, 3)
    return Script(f"thinking of it in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}", held=held)


def _asks(request: GenerationRequest, number: int) -> bool:
    return f"number {number}?" in request.messages[0].text


tiny = ScriptedEngine(script, context_tokens=200)
"""An engine with a context that a long problem does not fit into."""
