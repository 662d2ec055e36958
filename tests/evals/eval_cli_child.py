"""The `rsa` command with the scripted engine in place of every model, for the tests of `rsa eval`.

Usage: eval_cli_child.py ARGUMENTS. It answers what it is asked for by the seed, but never on problem number 3 if
RSA_TEST_HOLD is set; it breaks down on problem number 2 if RSA_TEST_BREAK is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from engine.api import Engine, GenerationRequest
from engine.errors import EngineClosedError
from engine.scripted import Script, ScriptedEngine, ScriptedStream
from rsa import compose
from rsa.command.cli import main


def script(request: GenerationRequest) -> Script:
    return Script(f"thinking of it in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}")


def asks(request: GenerationRequest, number: int) -> bool:
    return f"number {number}?" in request.messages[0].text


class Breaking(ScriptedEngine):
    def generate(self, requests: Any) -> ScriptedStream:
        if any(asks(request, 2) for request in requests):
            raise EngineClosedError("the engine's worker died")
        return ScriptedStream(self, requests)


def open_scripted(model: str, **options: Any) -> Engine:
    """Any model."""
    if os.environ.get("RSA_TEST_BREAK"):
        return Breaking(script)
    hold = bool(os.environ.get("RSA_TEST_HOLD"))
    return ScriptedEngine(script, hold=lambda request: hold and asks(request, 3))


def no_settings(model: str) -> Mapping[str, Any]:
    return {}


def nothing_to_fetch(model: str, show: Callable[..., None]) -> None:
    return None


def patch() -> None:
    """Put the scripted engine in place of every model, in this process."""
    compose.open_engine = open_scripted
    compose.model_settings = no_settings
    compose.fetch_if_missing = nothing_to_fetch  # type: ignore[assignment]


if __name__ == "__main__":
    patch()
    main()
