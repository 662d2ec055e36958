"""Calls of the library with arguments that nobody should give."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from fuzzing.core import Case, Door
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import ValidationError

from engine.scripted import ScriptedEngine
from evals import Benchmark, Question, compare, evaluate, load_benchmark, merge, rescore, write_report
from evals.export.writing import export
from rsa import (
    Limits,
    MarkovianRSA,
    Problem,
    RSAConfig,
    Tool,
    ToolCall,
    Turn,
    load_config,
    open_engine,
    read_events,
    read_run,
)

VALUES: dict[str, Any] = {
    **{repr(value): value for value in (None, True, False, 0, 1, -1, 5, 0.5, -1.0, 2**64, 10**23, "", " ", "x", "\0")},
    **{repr(value): value for value in (b"", b"x", "\ud800", "~nosuchuser", (), [], {}, [5], [None], {"a": 1}, {5: 5})},
    "nan": float("nan"),
    "inf": float("inf"),
    "10**5000": 10**5000,
    "an object": object(),
    "a type": str,
    "a function": lambda *given: given,
    "a Path": Path("x"),
    "a long text": "x" * 100_000,
    "a set": {1, 2},
    "a generator": (number for number in range(2)),
    "an engine": ScriptedEngine("hm</think>\\boxed{7}"),
    "a Problem": Problem("why?"),
    "a Turn": Turn("user", "so"),
    "a Tool": Tool(name="add"),
    "a call": ToolCall(id="1", name="add"),
    "a config": RSAConfig(n=1, c=1),
    "limits": Limits(total_tokens=5),
    "turns": [Turn("user", "so"), Turn("assistant", "no")],
    "a Question": Question(id="1", problem="2 + 3?", gold=5),
    "questions": [Question(id="1", problem="2 + 3?", gold=5)],
    "an image": b"\x89PNG\r\n\x1a\n",
}
SMALL: dict[str, Any] = {"n": 1, "c": 1, "t": 0, "beta": 32, "tau": 16, "answer_budget": 16}
PLAIN: dict[str, Any] = {"engine": ScriptedEngine("hm</think>\\boxed{7}"), "problem": "why?"}


def _solve(**given: Any) -> None:
    own = ("config", "profile", "method", "engine_options", "progress_every_s", "sync", "engine")
    settings = {} if "config" in given or "profile" in given else SMALL
    solver = MarkovianRSA(**{"engine": PLAIN["engine"], **settings, **{k: v for k, v in given.items() if k in own}})
    rest = {key: value for key, value in given.items() if key not in own}
    anyio.run(lambda: solver.solve(**{"problem": PLAIN["problem"], **SMALL, **rest}))


def _stream(**given: Any) -> None:
    solver = MarkovianRSA(PLAIN["engine"], **SMALL)

    async def main() -> None:
        async with solver.stream(**{"problem": "why?", **given}) as events:
            async for _ in events:
                pass

    anyio.run(main)


def _solve_sync(**given: Any) -> None:
    MarkovianRSA(ScriptedEngine("hm</think>\\boxed{7}"), **SMALL).solve_sync(**{"problem": "why?", **given})


def _evaluate(**given: Any) -> None:
    questions = [Question(id="1", problem="2 + 3?", gold="A")]
    own = Benchmark(name="own", metric="choice", questions=questions, task="general")
    plain = {"benchmark": own, "engine": ScriptedEngine("hm</think>\\boxed{A}"), "out": "out", "limit": 1, **SMALL}
    anyio.run(lambda: evaluate(**{**plain, **given}))


def _benchmark(**given: Any) -> None:
    Benchmark(**{"name": "own", "metric": "choice", "questions": [], **given})


def _turn(**given: Any) -> None:
    Problem.conversation([Turn(**given), Turn("user", "?")])


def _tool(**given: Any) -> None:
    try:
        tool = Tool(**given)
    except ValidationError:
        return  # a record of the boundary, whose faults are pydantic's
    Problem("?", tools=[tool])


def _rescore(**given: Any) -> None:
    anyio.run(lambda: rescore(**given))


SETTINGS = tuple(RSAConfig.model_fields)
EVALUATION = (
    *("benchmark", "engine", "method", "engine_options", "out", "profile", "data", "columns", "limit", "ids"),
    *("data_seed", "revision", "shard", "epochs", "in_flight", "executor", "resume", "on_event", *SETTINGS),
)
RUN = ("problem", "out", "resume", *SETTINGS)
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
    "solve": (_solve, {}, ("engine", "config", "profile", "method", "engine_options", "sync", *RUN)),
    "stream": (_stream, {}, RUN),
    "solve_sync": (_solve_sync, {}, RUN),
    "Problem": (
        Problem,
        {"text": "why?"},
        ("text", "images", "system", "earlier", "later", "tools", "problem_id"),
    ),
    "conversation": (Problem.conversation, {"turns": [Turn("user", "?")]}, ("turns", "tools", "problem_id")),
    "Turn": (_turn, {"role": "user", "text": "?"}, ("role", "text", "images", "calls", "answers")),
    "Tool": (_tool, {"name": "a"}, ("name", "description", "parameters")),
    "load_config": (load_config, {}, ("profile", "overrides", "defaults")),
    "RSAConfig": (RSAConfig, {}, SETTINGS),
    "Limits": (Limits, {}, tuple(Limits.model_fields)),
    "replace": (RSAConfig().replace, {}, SETTINGS),
    "open_engine": (open_engine, {"model": "scripted:play.py"}, ("model",)),
    "read_run": (read_run, {"folder": "run"}, ("folder",)),
    "read_events": (read_events, {"folder": "run"}, ("folder", "repair")),
    "evaluate": (
        _evaluate,
        {},
        EVALUATION,
    ),
    "Benchmark": (_benchmark, {}, tuple(Benchmark.model_fields)),
    "load_benchmark": (load_benchmark, {"name": "sums"}, ("name",)),
    "write_report": (write_report, {"folder": "run"}, ("folder", "max_bytes")),
    "compare": (compare, {"first": "a", "second": "b"}, ("first", "second")),
    "merge": (merge, {"folders": ["a"], "out": "b"}, ("folders", "out")),
    "rescore": (_rescore, {"folder": "a"}, ("folder", "metric", "benchmark")),
    "export": (export, {"folder": Path("a")}, ("kind", "by", "relation", "task", "url", "out")),
}


class Library(Door):
    name = "library"
    share = 44

    @property
    def cases(self) -> SearchStrategy[Case]:
        def of(name: str) -> SearchStrategy[Case]:
            values = st.sampled_from(list(VALUES))
            given = st.dictionaries(st.sampled_from(CALLS[name][2]), values, min_size=1, max_size=2)
            return st.fixed_dictionaries({"call": st.just(name), "given": given})

        return st.sampled_from(list(CALLS)).flatmap(of)

    def enter(self, case: Case) -> str:
        call, plain, _ = CALLS[case["call"]]
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        given = {key: VALUES[value] for key, value in case["given"].items()}
        with contextlib.chdir(here):
            call(**{**plain, **given})
        return "right"
