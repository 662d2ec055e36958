"""Started by test_resuming: solves with the scripted engine until it is killed.

Usage: run_a_child.py FOLDER. It stops for good at candidate r1-c02, and says so on standard output.
"""

from __future__ import annotations

import sys
from typing import Any

from engine.api import GenerationRequest
from engine.scripted import Script, ScriptedEngine
from rsa import MarkovianRSA

SETTINGS: dict[str, Any] = {"n": 4, "c": 2, "t": 2, "beta": 64, "tau": 16, "answer_budget": 32}


def script(request: GenerationRequest) -> Script:
    return Script(reasoning=f"in {request.id}", answer=rf"\boxed{{{request.sampling.seed % 3}}}")


class Announcing(ScriptedEngine):
    """Says when only held rows are left: the moment to kill this process."""

    async def _changed(self) -> None:
        print("held", flush=True)
        await super()._changed()


if __name__ == "__main__":
    engine = Announcing(script, hold=lambda request: request.id == "r1-c02")
    MarkovianRSA(engine, **SETTINGS).solve_sync("why?", out=sys.argv[1])
