"""Names of files and folders, wherever one can be given: to commands, and to the library."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
from fuzzing.commands import command
from fuzzing.core import Case, Door
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from evals import compare, evaluate, load_benchmark, merge, read_results, rescore, write_report
from evals.export.writing import export
from evals.replay.replaying import replay_folders
from evals.score_file import score_file
from rsa import MarkovianRSA, Problem, load_config, open_engine, read_events, read_run

PLAY = "script = 'hm</think>\\\\boxed{7}'\n"
SMALL = ["--n", "2", "--t", "1", "--c", "2", "--beta", "32", "--tau", "16"]
PARTS = (
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "~",
        "~nosuchuser",
        "-",
        "--",
        "*",
        "a b",
        "é",
        "\udcff",
        "\0",
        "\n",
        "x" * 300,
        "x/" * 500,
    ),
    *("there", "file", "loop", "dangling", "here", "problem.txt", "play.py", "nowhere", "/dev/null", "/proc/self/mem"),
    *(
        "/dev/full",
        "/proc/1/x",
        "/sys/kernel/notes",
        "scripted:play.py",
        "scripted:",
        "openai:",
        ":",
        "kind:x",
        "a/b",
    ),
)
ENDINGS = ("", ".toml", ".jsonl", ".json", ".parquet", ".py", "/", "/x", "/..", ":script", ":nothing", ".csv")
COMMANDS: dict[str, list[str]] = {
    "solve": ["solve", "@", "--model", "scripted:play.py", *SMALL, "--out", "out"],
    "solve --out": ["solve", "problem.txt", "--model", "scripted:play.py", *SMALL, "--out", "@"],
    "solve --resume": ["solve", "--resume", "@"],
    "solve --model": ["solve", "problem.txt", "--model", "@", *SMALL, "--out", "out"],
    "solve --image": ["solve", "problem.txt", "--image", "@", "--model", "scripted:play.py", *SMALL, "--out", "out"],
    "solve --task": ["solve", "problem.txt", "--task", "@", "--model", "scripted:play.py", *SMALL, "--out", "out"],
    "solve --profile": [
        "solve",
        "problem.txt",
        "--profile",
        "@",
        "--model",
        "scripted:play.py",
        *SMALL,
        "--out",
        "out",
    ],
    "eval": ["eval", "@", "--model", "scripted:play.py", *SMALL, "--limit", "1", "--out", "out"],
    "eval --data": [
        "eval",
        "aime25",
        "--data",
        "@",
        "--model",
        "scripted:play.py",
        *SMALL,
        "--limit",
        "1",
        "--out",
        "out",
    ],
    "eval --out": ["eval", "sums", "--model", "scripted:play.py", *SMALL, "--limit", "1", "--no-report", "--out", "@"],
    "eval --resume": ["eval", "--resume", "@"],
    "eval --rescore": ["eval", "--rescore", "@"],
    "report": ["report", "@"],
    "replay": ["replay", "@", "--t", "0", "--report"],
    "compare": ["compare", "@", "@"],
    "tune": ["tune", "@", "--benchmark", "sums", *SMALL, "--limit", "16", "--budget", "100", "--out", "out"],
    "tune --data": ["tune", "scripted:play.py", "--data", "@", *SMALL, "--out", "out"],
    "tune --benchmark": ["tune", "scripted:play.py", "--benchmark", "@", *SMALL, "--budget", "100", "--out", "out"],
    "tune --out": [
        *("tune", "scripted:play.py", "--benchmark", "sums", *SMALL, "--limit", "16", "--budget", "100"),
        *("--out", "@"),
    ],
    "tune --resume": ["tune", "--resume", "@"],
    "merge": ["merge", "@", "@", "--out", "out"],
    "merge --out": ["merge", "there", "--out", "@"],
    "export": ["eval", "export", "@", "--by", "us"],
    "score": ["score", "@", "--metric", "choice"],
    "models info": ["models", "info", "@"],
    "convert": ["convert", "@", "out"],
}
Call = Callable[[str], Any]


def _solver(**settings: Any) -> MarkovianRSA:
    return MarkovianRSA("scripted:play.py", **{"n": 1, "c": 1, "t": 0, "beta": 32, "tau": 16, **settings})


def _solved(**of: Any) -> None:
    anyio.run(lambda: _solver().solve("why?", **of))


def _evaluated(**of: Any) -> None:
    given = {"out": "out", "n": 1, "c": 1, "t": 0, "beta": 32, "tau": 16, "limit": 1, "benchmark": "sums", **of}
    anyio.run(lambda: evaluate(given.pop("benchmark"), "scripted:play.py", **given))


NOBODY_WRITES = ("/dev/null", "/dev/full", "/proc", "/sys")
"""Places outside of the scratch folder where no command can leave anything."""


def contained(name: str, here: Path) -> str:
    """A name that leads nowhere but into the scratch folder, or to places where nothing can be written."""
    path = os.path.abspath(here / os.path.expanduser(name))  # noqa: PTH100, PTH111 (links are left as they are)
    if any(f"{path}/".startswith(f"{place}/") for place in (here.parent, *NOBODY_WRITES)):
        return name
    return f"./{name.replace('..', '.').replace('~', '')}"


CALLS: dict[str, Call] = {
    "out": lambda name: _solved(out=name),
    "out as a Path": lambda name: _solved(out=Path(name)),
    "out, resumed": lambda name: _solved(out=name, resume=True),
    "task": lambda name: _solved(task=name),
    "model": open_engine,
    "profile": load_config,
    "image": lambda name: Problem("?", images=[Path(name)]),
    "read_run": read_run,
    "read_events": read_events,
    "read_results": read_results,
    "write_report": write_report,
    "load_benchmark": load_benchmark,
    "load_benchmark of a Path": lambda name: load_benchmark(Path(name)),
    "evaluate": lambda name: _evaluated(benchmark=name),
    "evaluate, data": lambda name: _evaluated(benchmark="aime25", data=name),
    "evaluate, out": lambda name: _evaluated(out=name),
    "rescore": lambda name: anyio.run(rescore, name),
    "compare": lambda name: compare(name, name),
    "replay_folders": lambda name: anyio.run(replay_folders, [name]),
    "merge": lambda name: merge([name], "out"),
    "merge, out": lambda name: merge(["there"], name),
    "export": lambda name: export(Path(name), by="us"),
    "score_file": lambda name: anyio.run(score_file, name, "choice", lambda line: None),
}


class Paths(Door):
    name = "paths"
    share = 3

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        world = scratch / "world"
        (world / "there" / "here").mkdir(parents=True)
        (world / "there" / "file").touch()
        (world / "file").write_text("x")
        (world / "problem.txt").write_text("why?")
        (world / "play.py").write_text(PLAY)
        (world / "loop").symlink_to("loop")
        (world / "dangling").symlink_to("nowhere/x")
        self._world = world

    @property
    def cases(self) -> SearchStrategy[Case]:
        parts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
        name = st.one_of(st.tuples(parts, st.sampled_from(ENDINGS)).map("".join), st.sampled_from(PARTS))
        given = [{"command": st.sampled_from(list(COMMANDS))}, {"call": st.sampled_from(list(CALLS))}]
        return st.one_of([st.fixed_dictionaries({**one, "name": name}) for one in given])

    def enter(self, case: Case) -> str:
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self._world, here, symlinks=True)
        with contextlib.chdir(here), mock.patch.dict(os.environ, HOME=str(here)):
            # How a line break is shown is the business of who prints it.
            name = contained(case["name"].replace("\n", "") if "call" in case else case["name"], here)
            if "call" in case:
                CALLS[case["call"]](name)
                return "right"
            if "\0" in name:
                return "cannot be"  # no system passes it on to a program
            return command([name if word == "@" else word for word in COMMANDS[case["command"]]], case)
