"""Words of the command line: flags with values that nobody should give them, in any number and order."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from fuzzing.commands import command
from fuzzing.core import Case, Door
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

PLAY = "script = 'hm</think>\\\\boxed{7}'\n"
MODEL = ["--model", "scripted:play.py"]
SMALL = ["--n", "2", "--t", "1", "--c", "2", "--beta", "32", "--tau", "16"]
LINES: tuple[list[str], ...] = (
    ["solve", "problem.txt", *MODEL, *SMALL],
    ["solve", "problem.txt", *MODEL, *SMALL, "--json", "--quiet"],
    ["solve", "--resume", "run"],
    ["solve", "--resume", "run", "--json"],
    ["eval", "sums", *MODEL, *SMALL, "--limit", "1", "--no-report"],
    ["eval", "hmmt_feb25", "--data", "rows.jsonl", *MODEL, *SMALL, "--limit", "1", "--no-report", "--json"],
    ["eval", "--resume", "results", "--no-report"],
    ["eval", "--rescore", "results", "--no-report"],
    ["eval", "export", "results", "--by", "us"],
    ["compare", "results", "results"],
    ["merge", "results", "--no-report"],
    ["tune", "scripted:play.py", "--data", "rows.jsonl", *SMALL],
    ["tune", "--resume", "results"],
    ["report", "run"],
    ["replay", "results", "run", "--stop", "decided", "--t", "0"],
    ["score", "answers.jsonl", "--metric", "choice"],
    ["models", "list"],
    ["models", "info", "nano"],
)
FLAGS = (
    *("--n", "--c", "--t", "--beta", "--tau", "--answer-budget", "--temperature", "--top-p", "--top-k", "--min-p"),
    *(
        "--seed",
        "--select",
        "--carry",
        "--confidence",
        "--task",
        "--total-tokens",
        "--deadline",
        "--prompt-tokens",
        "--method",
    ),
    *("--stop", "--parents", "--profile", "--out", "--resume", "--limit", "--ids", "--epochs", "--data-seed"),
    *("--revision", "--shard", "--in-flight", "--executor", "--devices", "--column", "--metric", "--format", "--by"),
    *("--relation", "--url", "--max-rows", "--kv-bits", "--tokenizer", "--image", "--data"),
    *("--tokens-per-problem", "--seconds-per-problem", "--draws", "--budget", "--benchmark"),
)
SWITCHES = ("--strict", "--json", "--quiet", "-q", "--no-force-answer", "--help", "--version", "--rescore", "--", "-")
VALUES = (
    *(
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "nan",
        "inf",
        "1e23",
        "100000000000000000000000",
        "10000000",
        "9" * 5000,
        "4k",
        "1.3k",
    ),
    *("", " ", "x", "all", "0,1", "1/2", "2/1", "0/0", "1/0", "a=b", "problem=x[", "=", "vote", "rsa", "math", "light"),
    *("\udcff", "é", "٣", "\n", "{}", "[]", "None", "--n", "-", "~nosuchuser/x", "there", "x" * 5000, "local", "true"),
    *("http://127.0.0.1:1", "first_party", "eval-results", "choice", "single", "run", "results", "problem.txt"),
)


class Arguments(Door):
    name = "arguments"

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._world = world = scratch / "world"
        (world / "there").mkdir(parents=True)
        (world / "problem.txt").write_text("why?")
        (world / "play.py").write_text(PLAY)
        (world / "answers.jsonl").write_text('{"id": 1, "gold": "B", "candidate": "\\\\boxed{B}"}\n')
        row = {"problem_idx": 1, "problem": "What is 1 + 6?", "answer": "7"}
        (world / "rows.jsonl").write_text(json.dumps(row) + "\n")
        with contextlib.chdir(world):
            for words in (
                ["solve", "problem.txt", *MODEL, *SMALL, "--out", "run"],
                ["eval", "sums", *MODEL, *SMALL, "--limit", "1", "--no-report", "--out", "results"],
            ):
                command(words, {})

    @property
    def cases(self) -> SearchStrategy[Case]:
        value = st.one_of(st.sampled_from(VALUES), st.integers(-3, 40).map(str))
        place = st.integers(0, 20)
        change = st.one_of(
            st.tuples(st.just("flag"), place, st.sampled_from(FLAGS), value),
            st.tuples(st.just("flag"), place, st.sampled_from(FLAGS), value),
            st.tuples(st.just("value"), place, value),
            st.tuples(st.just("switch"), place, st.sampled_from((*SWITCHES, *FLAGS))),
            st.tuples(st.sampled_from(("drop", "double")), place),
        ).map(list)
        changes = st.lists(change, min_size=1, max_size=2)
        return st.fixed_dictionaries({"line": st.integers(0, len(LINES) - 1), "changes": changes})

    def enter(self, case: Case) -> str:
        words = list(LINES[case["line"]])
        for what, place, *given in case["changes"]:
            at = 1 + place % len(words)
            if what in ("flag", "switch"):
                words[at:at] = given
            elif what == "value" and at < len(words):
                words[at] = given[0]
            elif what == "double":
                words[at:at] = words[at - 1 : at]
            elif what == "drop":
                del words[at : at + 1]
        here = self.scratch / "here"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(self._world, here)
        with contextlib.chdir(here):
            return command(words, case)
