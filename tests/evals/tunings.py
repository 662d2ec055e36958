"""Tunings on the scripted engine: models that rounds help and harm, their problems, and what is asked for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from engine.api import GenerationRequest
from engine.script import Script
from engine.scripted import ScriptedEngine
from evals.tuning.records import Asked, Tuned
from evals.tuning.tuning import tune

MODEL = "scripted:play.py"
PLAY = r"""
import random
from engine.script import Script

def script(request):
    rng = random.Random(request.sampling.seed)
    right = rng.random() < (0.3, 0.95)[int(request.id[1])]
    return Script("so it is", r"\boxed{%d}" % (1 if right else rng.randrange(2, 9)))
"""
WORDS = ["--n", "4", "--c", "2", "--t", "1", "--beta", "64", "--tau", "32", "--answer-budget", "32"]
"""What the command is asked for, in a folder with PLAY in play.py."""
Play = Callable[[GenerationRequest], Script]


def play(*chances: float) -> Play:
    """A model that is right with these chances, round by round; wrong answers differ."""

    def script(request: GenerationRequest) -> Script:
        rng = random.Random(request.sampling.seed)
        right = rng.random() < chances[int(request.id[1])]
        answer = "1" if right else str(rng.randrange(2, 9))
        return Script(" ".join(["so"] * rng.randint(5, 20)), rf"\boxed{{{answer}}}")

    return script


HELPS, HARMS = play(0.3, 0.9), play(0.8, 0.2)


def rows(folder: Path, count: int = 80) -> Path:
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"what is number {i}?", "answer": "1"}) + "\n" for i in range(count))
    )
    return file


def asked(data: Path, **changes: Any) -> Asked:
    wishes: dict[str, Any] = {
        "budget": "100k",
        "settings": {"t": 1, "answer_budget": 32},
        "axes": {"n": (4,), "c": (2, 1), "beta": (64,), "tau": (32,)},
    }
    return Asked.of(MODEL, data=data, **{**wishes, **changes})


def tuned(wish: Asked, folder: Path, script: Play, engine: ScriptedEngine | None = None) -> Tuned:
    return anyio.run(partial(tune, wish, folder, engine=engine or ScriptedEngine(script)))
