"""Markovian RSA: parallel, bounded-context test-time compute.

    from rsa import MarkovianRSA
    MarkovianRSA("nano", n=4, t=1).solve_sync("Use 3, 7, 5 and 2 once each to make 24.").answer

Names are imported when they are first used, so that `import rsa` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.tools import Tool, ToolCall
    from rsa.compose import open_engine
    from rsa.controller import EventStream, MarkovianRSA
    from rsa.errors import (
        ConfigError,
        NoCandidatesError,
        ProblemError,
        PromptError,
        ResumeMismatchError,
        RSAError,
        RunFolderError,
        RunLockedError,
        RunWriteError,
    )
    from rsa.problem import Problem, Turn
    from rsa.results import Candidate, Check, Round, RunResult, Tail, Vote
    from rsa.runlog import read_events, read_result, read_run
    from rsa.settings.config import Limits, RSAConfig
    from rsa.settings.profiles import load_config, profile_names

__all__ = [
    "Candidate",
    "Check",
    "ConfigError",
    "EventStream",
    "Limits",
    "MarkovianRSA",
    "NoCandidatesError",
    "Problem",
    "ProblemError",
    "PromptError",
    "RSAConfig",
    "RSAError",
    "ResumeMismatchError",
    "Round",
    "RunFolderError",
    "RunLockedError",
    "RunResult",
    "RunWriteError",
    "Tail",
    "Tool",
    "ToolCall",
    "Turn",
    "Vote",
    "load_config",
    "open_engine",
    "profile_names",
    "read_events",
    "read_result",
    "read_run",
]

_HOME = {
    **dict.fromkeys(("Limits", "RSAConfig"), "rsa.settings.config"),
    **dict.fromkeys(("EventStream", "MarkovianRSA"), "rsa.controller"),
    **dict.fromkeys(("Candidate", "Check", "Round", "RunResult", "Tail", "Vote"), "rsa.results"),
    **dict.fromkeys(("Problem", "Turn"), "rsa.problem"),
    **dict.fromkeys(("load_config", "profile_names"), "rsa.settings.profiles"),
    **dict.fromkeys(("read_events", "read_result", "read_run"), "rsa.runlog"),
    **dict.fromkeys(("Tool", "ToolCall"), "engine.tools"),
    "open_engine": "rsa.compose",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rsa' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "rsa.errors")), name)


def __dir__() -> list[str]:
    return __all__
