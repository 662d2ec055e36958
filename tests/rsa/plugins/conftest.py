"""Engines in place of every model that a plugin opens."""

from __future__ import annotations

import pytest

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import compose


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[GenerationRequest]:
    """What is asked of the engines, all alike, that every model opens."""
    requests: list[GenerationRequest] = []

    def script(request: GenerationRequest) -> Script:
        requests.append(request)
        return Script(reasoning="2 and 2 make 4", answer=r"so \boxed{4}")

    monkeypatch.setattr(compose, "open_engine", lambda model, **options: ScriptedEngine(script, images=True))
    return requests
